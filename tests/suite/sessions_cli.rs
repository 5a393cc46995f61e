//! `cloakroom sessions`: over the control socket, over Redis, and over a file
//! that no proxy has open.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::backend::Backend;
use crate::harness::cli::Ran;
use crate::harness::config::Config;
use crate::harness::cookies::CookieJar;
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::session::{key, state, token_of};
use crate::harness::users::{ALICE, BOB};

fn sessions(proxy: &Proxy, arguments: &[&str]) -> Ran {
    proxy.cli(&[&["sessions"], arguments].concat())
}

fn json(proxy: &Proxy, arguments: &[&str]) -> Value {
    let ran = sessions(proxy, &[arguments, &["--json"]].concat()).succeeded();
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}\n{}", ran.text()))
}

/// The handle of the session in a jar, as its user sees it.
fn handle(proxy: &Proxy, jar: &CookieJar) -> String {
    let all = proxy.get_as("/auth/sessions", jar).json();
    let mut all = all["sessions"].as_array().unwrap().iter();
    let own = all.find(|entry| entry["current"] == true).unwrap();
    own["handle"].as_str().unwrap().to_owned()
}

fn folders() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().display().to_string();
    (folder, name)
}

/// A proxy over each kind of store that the command line can reach while it
/// runs, and a word for it.
fn over_each_store(test: impl Fn(&str, Proxy) + Sync) {
    let backend = Backend::start();
    let redis = Redis::start();
    let (_runtime, runtime) = folders();
    let config = Config::to(backend.addr());
    let test = &test;
    std::thread::scope(|scope| {
        let memory = config.clone().env("XDG_RUNTIME_DIR", &runtime);
        scope.spawn(move || test("memory", memory.start()));
        let file = config.clone().store("file:./data");
        scope.spawn(move || test("file", file.start()));
        let shared = config.clone().store(&redis.url());
        scope.spawn(move || test("redis", shared.start()));
    });
}

#[test]
fn operators_see_who_is_signed_in() {
    over_each_store(|store, proxy| {
        let jars = [
            proxy.sign_in(&ALICE),
            proxy.sign_in(&ALICE),
            proxy.sign_in(&BOB),
        ];
        let first = handle(&proxy, &jars[0]);
        let ran = sessions(&proxy, &["list"]).succeeded();
        assert_eq!(ran.stdout.lines().count(), 4, "{store}: {}", ran.text());
        for wanted in ["HANDLE", ALICE.id, BOB.id, &first, "127.0.0.1"] {
            assert!(
                ran.stdout.contains(wanted),
                "{store}: {wanted}\n{}",
                ran.text()
            );
        }
        let listed = json(&proxy, &["list"]);
        assert_eq!(listed["sessions"].as_array().unwrap().len(), 3);
        assert_eq!(listed["more"], false);
        let listed = json(&proxy, &["list", "--limit", "2"]);
        assert_eq!(listed["sessions"].as_array().unwrap().len(), 2);
        assert_eq!(listed["more"], true);
        let bobs = json(&proxy, &["list", "--user", BOB.id]);
        assert_eq!(bobs["sessions"].as_array().unwrap().len(), 1);
        assert_eq!(bobs["sessions"][0]["user"], BOB.id);
        let none = json(&proxy, &["list", "--user", "nobody"]);
        assert_eq!(none["sessions"].as_array().unwrap().len(), 0);

        let counted = json(&proxy, &["count"]);
        assert_eq!(
            (&counted["sessions"], &counted["users"]),
            (&3.into(), &2.into())
        );
        let said = sessions(&proxy, &["count", "--user", ALICE.id]).succeeded();
        assert_eq!(said.stdout, "2 sessions of 1 users\n");

        let shown = sessions(&proxy, &["show", &first]).succeeded();
        assert!(shown.stdout.contains(ALICE.id), "{}", shown.text());
        assert_eq!(json(&proxy, &["show", &first])["handle"], first.as_str());
        let foreign = sessions(&proxy, &["show", &first, "--user", BOB.id]);
        assert_eq!(foreign.code, Some(1), "{}", foreign.text());
        assert!(
            foreign.stderr.contains("there is no session"),
            "{}",
            foreign.text()
        );

        let all = [
            sessions(&proxy, &["list"]).text(),
            sessions(&proxy, &["list", "--json"]).text(),
            shown.text(),
        ];
        for (text, jar) in all
            .iter()
            .flat_map(|text| jars.iter().map(move |jar| (text, jar)))
        {
            let token = token_of(jar);
            assert!(
                !text.contains(&token) && !text.contains(&key(&token)),
                "{text}"
            );
        }
    });
}

/// Where the command line does not speak with the proxy, the store tells it.
fn ends(store: &str, proxy: &Proxy, jar: &CookieJar) {
    let begin = Instant::now();
    while state(proxy, jar) == ALICE.id {
        assert!(begin.elapsed() < Duration::from_secs(1), "{store}");
    }
    let ended = ["unknown_session", "session_ended"];
    assert!(ended.contains(&state(proxy, jar).as_str()), "{store}");
}

#[test]
fn operators_end_sessions_at_once() {
    over_each_store(|store, proxy| {
        let jars: Vec<_> = (0..3).map(|_| proxy.sign_in(&ALICE)).collect();
        let bob = proxy.sign_in(&BOB);
        for jar in &jars {
            assert_eq!(proxy.get_as("/", jar).status, 200);
        }
        let gone = handle(&proxy, &jars[0]);
        let ran = sessions(&proxy, &["revoke", &gone]).succeeded();
        assert_eq!(ran.stdout, format!("{gone} ended\n"), "{store}");
        ends(store, &proxy, &jars[0]);
        assert_eq!(state(&proxy, &jars[1]), ALICE.id);

        // What is there is ended, although not all of it is.
        let second = handle(&proxy, &jars[1]);
        let ran = sessions(&proxy, &["revoke", &gone, &second]);
        assert_eq!(ran.code, Some(1), "{store}: {}", ran.text());
        assert!(ran.stderr.contains(&gone) && !ran.stderr.contains(&second));
        ends(store, &proxy, &jars[1]);
        let foreign = handle(&proxy, &bob);
        let ran = sessions(&proxy, &["revoke", &foreign, "--user", ALICE.id]);
        assert_eq!(ran.code, Some(1), "{}", ran.text());
        assert_eq!(state(&proxy, &bob), BOB.id);

        let more = proxy.sign_in(&ALICE);
        let ran = json(&proxy, &["revoke-user", ALICE.id]);
        assert_eq!(ran["ended"], 2, "{store}");
        for jar in [&jars[2], &more] {
            ends(store, &proxy, jar);
            assert_eq!(proxy.get_as("/", jar).status, 401);
        }
        assert_eq!(state(&proxy, &bob), BOB.id, "{store}");
        // It is no ban.
        let again = proxy.sign_in(&ALICE);
        assert_eq!(state(&proxy, &again), ALICE.id);
        assert_eq!(json(&proxy, &["revoke-user", "nobody"])["ended"], 0);
    });
}

/// Signing out everywhere, in the browser, and the command line see the same.
#[test]
fn signing_out_everywhere_is_seen_by_the_command_line() {
    over_each_store(|store, proxy| {
        let jars = [proxy.sign_in(&ALICE), proxy.sign_in(&ALICE)];
        let everywhere = crate::harness::http::Request::post("/auth/logout-all");
        assert_eq!(proxy.send(&everywhere.cookies(&jars[0])).status, 204);
        let counted = json(&proxy, &["count"]);
        assert_eq!(counted["sessions"], 0, "{store}");
        let listed = json(&proxy, &["list", "--user", ALICE.id]);
        assert_eq!(listed["sessions"].as_array().unwrap().len(), 0, "{store}");
    });
}

fn control_socket(proxy: &Proxy) -> PathBuf {
    proxy.folder().join("data/control.sock")
}

#[test]
fn without_a_proxy_the_file_is_opened() {
    let backend = Backend::start();
    let mut proxy = Config::to(backend.addr()).store("file:./data").start();
    let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
    let gone = handle(&proxy, &alice);
    assert!(control_socket(&proxy).exists());
    assert!(proxy.terminate().success());
    assert!(!control_socket(&proxy).exists(), "it is left behind");
    assert_eq!(json(&proxy, &["count"])["sessions"], 2);
    sessions(&proxy, &["revoke", &gone]).succeeded();
    proxy.restart();
    assert_eq!(state(&proxy, &alice), "unknown_session");
    assert_eq!(state(&proxy, &bob), BOB.id);

    // A socket that a crash has left behind is in nobody's way.
    proxy.kill();
    assert!(control_socket(&proxy).exists());
    assert_eq!(json(&proxy, &["revoke-user", BOB.id])["ended"], 1);
    proxy.restart();
    assert_eq!(state(&proxy, &bob), "unknown_session");
    assert_eq!(json(&proxy, &["count"])["sessions"], 0);
}

#[test]
fn what_cannot_be_done_is_explained() {
    let backend = Backend::start();
    let config = Config::to(backend.addr());
    // A store of which this process is the only one to know.
    let proxy = config.clone().start();
    let ran = sessions(&proxy, &["list"]);
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("admin.control"), "{}", ran.text());

    let off = config
        .clone()
        .store("file:./data")
        .set("admin.control", "off");
    let proxy = off.start();
    assert!(!control_socket(&proxy).exists());
    let ran = sessions(&proxy, &["count"]);
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("another process") && ran.stderr.contains("admin.control is off"));

    // Looking makes no store.
    let mut proxy = config.clone().store("file:./data").start();
    proxy.terminate();
    std::fs::remove_dir_all(proxy.folder().join("data")).unwrap();
    let ran = sessions(&proxy, &["list"]);
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("no proxy has run"), "{}", ran.text());
    assert!(!proxy.folder().join("data").exists());

    std::fs::write(proxy.config_file(), "[servr]\n").unwrap();
    let ran = sessions(&proxy, &["list"]);
    assert_eq!(ran.code, Some(78), "{}", ran.text());
    assert!(ran.stderr.contains("did you mean"), "{}", ran.text());
    assert_eq!(
        sessions(&proxy, &["list", "-c", "/nowhere/x"]).code,
        Some(78)
    );
    assert_eq!(sessions(&proxy, &["revoke"]).code, Some(2));
    assert_eq!(sessions(&proxy, &[]).code, Some(2));

    let mut redis = Redis::start();
    let proxy = config.store(&redis.url()).start();
    redis.stop();
    let ran = sessions(&proxy, &["count"]);
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("redis"), "{}", ran.text());
}

/// Sends bytes to a control socket and reads what comes until it ends.
fn say(socket: &Path, bytes: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_control_socket_is_its_owners_and_takes_orders_alone() {
    let backend = Backend::start();
    let (_folder, folder) = folders();
    let socket = PathBuf::from(&folder).join("named.sock");
    let named = Config::to(backend.addr())
        .store("file:./data")
        .set("admin.control", socket.display().to_string());
    let proxy = named.clone().start();
    let alice = proxy.sign_in(&ALICE);
    let mode = socket.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(json(&proxy, &["count"])["sessions"], 1);
    let ask = |method: &str, path: &str, body: &str| {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        say(
            &socket,
            &format!("{head}Content-Length: {length}\r\n\r\n{body}"),
        )
    };
    for (method, path, body, status) in [
        ("GET", "/sessions", "", "405"),
        ("POST", "/", "", "404"),
        ("POST", "/metrics", "", "404"),
        ("POST", "/sessions", "", "400"),
        ("POST", "/sessions", "{\"order\":\"stop\"}", "400"),
        (
            "POST",
            "/sessions",
            "{\"order\":\"list\",\"token\":\"x\"}",
            "400",
        ),
        ("POST", "/sessions", "{\"order\":\"list\"}", "200"),
    ] {
        let answer = ask(method, path, body);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{body}: {answer}"
        );
        assert!(!answer.contains(&token_of(&alice)), "{answer}");
    }
    let large = ask("POST", "/sessions", &"x".repeat(100_000));
    assert!(large.starts_with("HTTP/1.1 400 "), "{large}");
    assert_eq!(state(&proxy, &alice), ALICE.id);

    // One that was asked for by name and cannot be made is an error.
    let taken = named.store("file:./other").try_start();
    let ran = taken.err().expect("two share a control socket");
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.text().contains("admin.control"), "{}", ran.text());
}

#[test]
fn sessions_move_from_the_file_to_redis_and_nobody_signs_in_again() {
    let backend = Backend::start();
    let redis = Redis::start();
    let config = Config::to(backend.addr());
    let mut before = config.clone().store("file:./data").start();
    let (alice, bob, gone) = (
        before.sign_in(&ALICE),
        before.sign_in(&BOB),
        before.sign_in(&ALICE),
    );
    // One that signing out everywhere has ended, and one after it.
    let everywhere = crate::harness::http::Request::post("/auth/logout-all");
    assert_eq!(before.send(&everywhere.cookies(&alice)).status, 204);
    assert_eq!(state(&before, &gone), "session_ended");
    let alice = before.sign_in(&ALICE);
    let migrate = ["migrate", "--to", "env:TARGET"];

    let refused = sessions(&before, &["migrate", "--to", &redis.url()]);
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    assert!(
        refused.stderr.contains("another process"),
        "{}",
        refused.text()
    );
    assert!(
        refused.stderr.contains("Stop the proxy"),
        "{}",
        refused.text()
    );
    assert_eq!(redis.size(), 0);

    before.terminate();
    before.rewrite(|config| config.env("TARGET", &redis.url()));
    let moved = json(&before, &migrate);
    let counts = |moved: &Value| {
        ["copied", "present", "ended", "unreadable"].map(|name| moved[name].as_u64().unwrap())
    };
    assert_eq!(counts(&moved), [2, 0, 1, 0], "{moved}");
    let after = config.clone().store(&redis.url()).start();
    assert_eq!(state(&after, &alice), ALICE.id);
    assert_eq!(state(&after, &bob), BOB.id);
    assert_eq!(state(&after, &gone), "unknown_session");
    assert_eq!(after.get_as("/", &alice).status, 200);

    // Again: nothing is overwritten, and what has ended here meanwhile and is
    // there no more comes back only as a whole new copy would.
    let again = json(&before, &migrate);
    assert_eq!(counts(&again), [0, 2, 1, 0], "{again}");
    // What was copied can be ended as anything else.
    assert_eq!(
        json(&after, &["list", "--user", ALICE.id])["sessions"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(json(&after, &["revoke-user", ALICE.id])["ended"], 1);
    assert_eq!(state(&after, &alice), "unknown_session");
    assert_eq!(state(&after, &bob), BOB.id);

    // And back, without a configuration.
    let folder = before.folder().join("back");
    let back = format!("file:{}", folder.display());
    let ran = sessions(&before, &["migrate", "--from", &redis.url(), "--to", &back]).succeeded();
    assert!(ran.stdout.contains("1 copied"), "{}", ran.text());
    let third = config.store(&back).start();
    assert_eq!(state(&third, &bob), BOB.id);

    for arguments in [
        &["migrate", "--to", "memory:"][..],
        &["migrate", "--from", "memory:", "--to", "file:./x"],
        &["migrate", "--to", "file:./data"],
        &["migrate", "--to", "nonsense"],
        &["migrate", "--from", "file:./nowhere", "--to", "file:./x"],
    ] {
        let ran = sessions(&before, arguments);
        assert_eq!(ran.code, Some(1), "{arguments:?} {}", ran.text());
    }
    assert!(!before.folder().join("nowhere").exists());
}
