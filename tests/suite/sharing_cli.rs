//! `cloakroom sessions` over sessions that an Express application shares, in Redis and in
//! PostgreSQL.

use serde_json::{Value, json};

use crate::harness::cli::Ran;
use crate::harness::cookies::CookieJar;
use crate::harness::eventually;
use crate::harness::postgres::PostgresServer;
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::session::{state, token};
use crate::harness::sharing::{COOKIE, Sharing, seen};
use crate::harness::users::{ALICE, BOB};

fn sessions(proxy: &Proxy, arguments: &[&str]) -> Ran {
    proxy.cli(&[&["sessions"], arguments].concat())
}

fn told(proxy: &Proxy, arguments: &[&str]) -> Value {
    let ran = sessions(proxy, &[arguments, &["--json"]].concat()).succeeded();
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}\n{}", ran.text()))
}

fn over_each_store(test: impl Fn(&Sharing, Proxy) + Sync) {
    let test = &test;
    thread_of(|| {
        let redis = Redis::start();
        let app = Sharing::start(&redis, &[]);
        test(&app, app.config(&redis).start());
    });
    thread_of(|| {
        let server = PostgresServer::start();
        let app = Sharing::on_postgres(&server, &[]);
        test(&app, app.config_at(&server.url()).start());
    });
}

fn thread_of(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(test);
    });
}

/// The handles of all sessions that are listed, of this user.
fn handles(proxy: &Proxy, user: &str) -> Vec<String> {
    let listed = told(proxy, &["list", "--user", user]);
    let listed = listed["sessions"].as_array().unwrap().iter();
    listed
        .map(|entry| {
            assert_eq!(entry["user"], user);
            entry["handle"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn ends(proxy: &Proxy, app: &Sharing, jar: &CookieJar) {
    eventually("it ends", || {
        (proxy.get_as("/", jar).status == 401).then_some(())
    });
    assert_eq!(seen(app.addr(), "/", jar)["user"], Value::Null);
}

#[test]
fn operators_see_and_end_sessions_of_both_sides() {
    over_each_store(|app, proxy| {
        let ours = proxy.sign_in(&ALICE);
        let theirs = Sharing::sign_in(app.addr(), &json!(ALICE.id));
        let bobs = [
            Sharing::sign_in(app.addr(), &json!(BOB.id)),
            proxy.sign_in(&BOB),
        ];
        let counted = told(&proxy, &["count"]);
        assert_eq!(
            (&counted["sessions"], &counted["users"]),
            (&json!(4), &json!(2))
        );
        let listed = sessions(&proxy, &["list"]).succeeded();
        assert_eq!(listed.stdout.lines().count(), 5, "{}", listed.text());
        for jar in [&ours, &theirs, &bobs[0], &bobs[1]] {
            let id = token(jar.get(COOKIE).unwrap());
            assert!(!listed.text().contains(&id), "{}", listed.text());
        }
        let alices = handles(&proxy, ALICE.id);
        assert_eq!(alices.len(), 2);
        for handle in &alices {
            let shown = sessions(&proxy, &["show", handle]).succeeded();
            assert!(shown.stdout.contains(ALICE.id), "{}", shown.text());
        }

        for handle in &alices {
            sessions(&proxy, &["revoke", handle]).succeeded();
        }
        for jar in [&ours, &theirs] {
            ends(&proxy, app, jar);
        }
        assert_eq!(handles(&proxy, ALICE.id), Vec::<String>::new());
        assert_eq!(state(&proxy, &bobs[0]), BOB.id);
        assert_eq!(told(&proxy, &["revoke-user", BOB.id])["ended"], 2);
        for jar in &bobs {
            ends(&proxy, app, jar);
        }
        assert_eq!(told(&proxy, &["count"])["sessions"], 0);
    });
}

#[test]
fn shared_sessions_are_not_migrated() {
    over_each_store(|app, proxy| {
        let alice = proxy.sign_in(&ALICE);
        let target = proxy.folder().join("target");
        let to = format!("file:{}", target.display());
        let refused = sessions(&proxy, &["migrate", "--to", &to]);
        assert_eq!(refused.code, Some(1), "{}", refused.text());
        assert!(
            refused.stderr.contains("layout is \"express\""),
            "{}",
            refused.text()
        );
        let table = "postgres://db/app?table=session";
        for arguments in [
            ["--from", table, "--to", &to],
            ["--from", &to, "--to", table],
        ] {
            let refused = sessions(&proxy, &[&["migrate"][..], &arguments].concat());
            assert_eq!(refused.code, Some(1), "{}", refused.text());
            assert!(refused.stderr.contains("express"), "{}", refused.text());
        }
        assert!(!target.exists());
        assert_eq!(seen(app.addr(), "/", &alice)["user"], ALICE.id);
    });
}
