//! The embedded store: what was answered is kept, and no file is ever lost.

use std::sync::Mutex;

use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::cookies::CookieJar;
use crate::harness::eventually;
use crate::harness::http::{Client, Request};
use crate::harness::proxy::Proxy;
use crate::harness::session;
use crate::harness::users::{ALICE, BOB, CAROL};

/// Signs in until nobody answers any more; gives what was answered.
fn sign_in_until_the_end(proxy: &Proxy, answered: &Mutex<Vec<(CookieJar, &str)>>) {
    let people = [ALICE, BOB, CAROL];
    for i in 0..1_000 {
        let person = people[i % people.len()];
        let body = serde_json::json!({ "username": person.name, "password": person.password });
        let request = Request::post("/auth/login").json(&body);
        let Ok(mut client) = Client::try_connect(proxy.addr()) else {
            return;
        };
        if client.try_send(request.bytes("app.example.test")).is_err() {
            return;
        }
        let Ok(response) = client.try_read("POST") else {
            return;
        };
        assert_eq!(response.status, 200, "{}", response.text());
        let jar = session::jar(&session::only_cookie(&response).value);
        answered.lock().unwrap().push((jar, person.id));
    }
}

#[test]
fn every_login_that_was_answered_survives_a_crash() {
    let backend = Backend::start();
    let mut proxy = Config::to(backend.addr()).store("file:./data").start();
    let answered = Mutex::new(Vec::new());
    let mut ended: Vec<CookieJar> = Vec::new();
    for round in 1..=5 {
        let before = answered.lock().unwrap().len();
        // The process is killed while logins are running; the harness's handle
        // is not needed for that, so that others can use it.
        let id = proxy.id();
        std::thread::scope(|scope| {
            let (proxy, answered) = (&proxy, &answered);
            for _ in 0..4 {
                scope.spawn(move || sign_in_until_the_end(proxy, answered));
            }
            eventually("logins", || {
                (answered.lock().unwrap().len() >= before + 5 + round).then_some(())
            });
            let status = std::process::Command::new("sh")
                .args(["-c", "kill -s KILL \"$0\"", &id.to_string()])
                .status();
            assert!(status.unwrap().success());
            // Whoever finds nobody at the port ends by itself.
        });
        proxy.restart();
        for (jar, user) in answered.lock().unwrap().iter() {
            assert_eq!(session::state(&proxy, jar), *user, "round {round}");
        }
        // A sign-out that was answered is kept as well.
        let (jar, _) = answered.lock().unwrap().pop().unwrap();
        assert_eq!(proxy.sign_out(&jar).status, 204);
        ended.push(jar);
        proxy.restart();
        for jar in &ended {
            assert_eq!(
                session::state(&proxy, jar),
                "unknown_session",
                "round {round}"
            );
        }
    }
    assert!(answered.lock().unwrap().len() >= 5 * 5);
}

#[test]
fn signing_out_everywhere_survives_a_crash() {
    let backend = Backend::start();
    let mut proxy = Config::to(backend.addr()).store("file:./data").start();
    let (one, other) = (proxy.sign_in(&ALICE), proxy.sign_in(&ALICE));
    let bob = proxy.sign_in(&BOB);
    assert_eq!(
        proxy
            .send(&Request::post("/auth/logout-all").cookies(&one))
            .status,
        204
    );
    proxy.restart();
    assert_eq!(session::state(&proxy, &other), "session_ended");
    assert_eq!(session::state(&proxy, &one), "unknown_session");
    assert_eq!(session::state(&proxy, &bob), BOB.id);
    // It ends cleanly too, and with the same sessions.
    assert_eq!(proxy.terminate().code(), Some(0));
    proxy.restart();
    assert_eq!(session::state(&proxy, &other), "session_ended");
    assert_eq!(session::state(&proxy, &bob), BOB.id);
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_as_it_is() {
    let backend = Backend::start();
    let mut proxy = Config::to(backend.addr()).store("file:./data").start();
    let alice = proxy.sign_in(&ALICE);
    assert_eq!(proxy.terminate().code(), Some(0));
    let whole = std::fs::read(proxy.folder().join("data/sessions.redb")).unwrap();
    let mut scribbled = whole.clone();
    scribbled[..4096].fill(0x55);
    // Her session would merely not be found: she would be signed out without a word.
    let key = session::key(&session::token_of(&alice));
    let mut other_key = whole.clone();
    let places = whole.windows(key.len()).enumerate();
    let places: Vec<_> = places.filter(|(_, w)| *w == key.as_bytes()).collect();
    assert!(!places.is_empty());
    for (at, _) in places {
        other_key[at + key.len() - 1] ^= 1;
    }
    for (what, contents) in [
        ("empty", Vec::new()),
        ("foreign", b"SQLite format 3\0 and so on".repeat(500)),
        ("cut off", whole[..whole.len() / 3].to_vec()),
        ("cut off in its head", whole[..100].to_vec()),
        ("cut off by a byte", whole[..whole.len() - 1].to_vec()),
        ("scribbled over", scribbled),
        ("damaged in one place", other_key),
    ] {
        let started = Config::to(backend.addr())
            .store("file:./data")
            .file("data/sessions.redb", contents.clone())
            .set("server.listen", vec!["127.0.0.1:0"]);
        let folder = tempfile::tempdir().unwrap();
        started.write(folder.path());
        let mut command = crate::harness::cli::command(folder.path());
        command.envs(started.environment().iter().map(|(n, v)| (n, v)));
        command.args(["run", "-c", "cloakroom.toml"]);
        let ran = crate::harness::cli::run(&mut command, "");
        assert_eq!(ran.code, Some(1), "{what}: {}", ran.text());
        let said = ran.text();
        assert!(said.contains("sessions.redb"), "{what}: {said}");
        assert!(
            said.contains("cannot be read as a session store"),
            "{what}: {said}"
        );
        assert!(said.contains("move it away"), "{what}: {said}");
        assert!(!said.contains("panicked"), "{what}: {said}");
        let left = std::fs::read(folder.path().join("data/sessions.redb")).unwrap();
        assert!(left == contents, "{what}: the file was changed");
    }
}

#[test]
fn one_folder_belongs_to_one_process() {
    let backend = Backend::start();
    let first = Config::to(backend.addr()).store("file:./data").start();
    let alice = first.sign_in(&ALICE);
    let folder = first.folder().join("data");
    let second = Config::to(backend.addr()).store(&format!("file:{}", folder.display()));
    let Err(ran) = second.clone().try_start() else {
        panic!("two processes share a file")
    };
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.text().contains("another process has"), "{}", ran.text());
    assert_eq!(session::state(&first, &alice), ALICE.id);
    // Once the first has ended, the second may have it.
    drop(second);
    let mut first = first;
    assert_eq!(first.terminate().code(), Some(0));
    let second = Config::to(backend.addr())
        .store(&format!("file:{}", folder.display()))
        .start();
    assert_eq!(session::state(&second, &alice), ALICE.id);
}

#[test]
fn the_embedded_store_is_nobody_elses_to_read() {
    use std::os::unix::fs::PermissionsExt;
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).store("file:./data").start();
    proxy.sign_in(&ALICE);
    let mode = |name: &str| {
        let path = proxy.folder().join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("data"), mode("data/sessions.redb")), (0o700, 0o600));
}
