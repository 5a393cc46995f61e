//! Sessions in PostgreSQL, shared by replicas.

use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::eventually;
use crate::harness::http::{Request, Response};
use crate::harness::postgres::PostgresServer;
use crate::harness::proxy::Proxy;
use crate::harness::session;
use crate::harness::users::{ALICE, BOB};

/// Password and all, as an operator would give it.
fn url(server: &PostgresServer) -> String {
    server.sql(
        "create role cloakroom login password 'hunter2'; \
         create schema auth authorization cloakroom",
    );
    format!("{}&schema=auth", server.url_of("cloakroom:hunter2"))
}

fn replica(url: &str, backend: &Backend) -> Proxy {
    Config::to(backend.addr())
        .store(url)
        .set("store.timeout", "2s")
        .set("server.replicas_expected", 2)
        .start()
}

fn assert_unavailable(response: &Response, what: &str) {
    assert_eq!(response.status, 503, "{what} {}", response.text());
    assert_eq!(
        response.refusal().as_deref(),
        Some("store_unavailable"),
        "{what}"
    );
    assert!(response.header("retry-after").is_some(), "{what}");
    assert!(!response.fields().has("set-cookie"), "{what} {response:?}");
}

#[test]
fn sessions_are_shared_and_outlive_the_proxy() {
    let backend = Backend::start();
    let server = PostgresServer::start();
    let url = url(&server);
    let (mut one, two) = (replica(&url, &backend), replica(&url, &backend));

    // Whoever does not sign in leaves nothing behind.
    for _ in 0..20 {
        assert_eq!(one.get("/").status, 401);
        assert_eq!(one.get("/public").status, 200);
        let unknown = session::signed_jar(&session::new_token());
        assert_eq!(session::state(&two, &unknown), "unknown_session");
    }
    let sessions = "select count(*) from auth.cloakroom_session";
    assert_eq!(server.sql(sessions), "0");

    let alice = one.sign_in(&ALICE);
    assert_eq!(server.sql(sessions), "1");
    let key = server.sql("select key from auth.cloakroom_session");
    assert_eq!(key, session::key(&session::token_of(&alice)));
    let dump = server.sql("select encode(value, 'escape') from auth.cloakroom_session");
    assert!(!dump.contains(&session::token_of(&alice)), "{dump}");

    backend.clear();
    for proxy in [&one, &two] {
        assert_eq!(proxy.get_as("/", &alice).status, 200);
        assert_eq!(session::state(proxy, &alice), ALICE.id);
    }
    assert_eq!(backend.requests().len(), 2);
    one.restart();
    assert_eq!(session::state(&one, &alice), ALICE.id);

    assert!(two.sign_out(&alice).status < 300);
    for proxy in [&one, &two] {
        assert_eq!(session::state(proxy, &alice), "unknown_session");
    }
    assert_eq!(server.sql(sessions), "0");

    let all = [one.sign_in(&BOB), two.sign_in(&BOB)];
    let everywhere = Request::post("/auth/logout-all").cookies(&all[0]);
    assert!(one.send(&everywhere).status < 300);
    for (jar, proxy) in all.iter().zip([&two, &one]) {
        let state = session::state(proxy, jar);
        assert!(
            ["session_ended", "unknown_session"].contains(&&*state),
            "{state}"
        );
    }
    let again = two.sign_in(&BOB);
    assert_eq!(session::state(&one, &again), BOB.id);
    // An operator's way to end a session.
    server.sql("delete from auth.cloakroom_session");
    assert_eq!(session::state(&two, &again), "unknown_session");

    for proxy in [&one, &two] {
        let log = proxy.output().text();
        assert!(log.contains("sessions are kept in postgres://"), "{log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
}

#[test]
fn while_postgres_is_stopped_nobody_is_let_in_or_signed_out() {
    let backend = Backend::start();
    let mut server = PostgresServer::start();
    let url = url(&server);
    let proxy = replica(&url, &backend);
    let alice = proxy.sign_in(&ALICE);
    server.stop();
    backend.clear();
    for (what, request) in [
        ("a request", Request::get("/").cookies(&alice)),
        ("an unsafe request", Request::post("/").cookies(&alice)),
        (
            "an optional session",
            Request::get("/optional").cookies(&alice),
        ),
        ("a logout", Request::post("/auth/logout").cookies(&alice)),
        (
            "a logout everywhere",
            Request::post("/auth/logout-all").cookies(&alice),
        ),
        (
            "a login",
            Request::post("/auth/login").json(&serde_json::json!({
                "username": ALICE.name, "password": ALICE.password,
            })),
        ),
    ] {
        assert_unavailable(&proxy.send(&request), what);
    }
    assert!(backend.requests().is_empty(), "a request got through");
    assert_eq!(proxy.get_as("/public", &alice).status, 200);
    assert_eq!(proxy.get("/").refusal().as_deref(), Some("no_cookie"));

    // What was kept is there again, and found by itself.
    server.restart();
    let state = eventually("the store is back", || {
        let state = session::state(&proxy, &alice);
        (state != "store_unavailable").then_some(state)
    });
    assert_eq!(state, ALICE.id);
    assert!(!proxy.output().text().contains("hunter2"));
}

#[test]
fn cloakroom_starts_without_postgres_and_finds_it_later() {
    let backend = Backend::start();
    let mut server = PostgresServer::start();
    let url = url(&server);
    server.stop();
    let proxy = replica(&url, &backend);
    assert_eq!(proxy.get("/public").status, 200);
    let login = proxy.try_sign_in(ALICE.name, ALICE.password);
    assert_unavailable(&login, "a login");
    server.restart();
    eventually("signing in works", || {
        (proxy.try_sign_in(ALICE.name, ALICE.password).status == 200).then_some(())
    });
}
