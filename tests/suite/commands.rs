//! The command line.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::PATIENCE;
use crate::harness::backend::{Backend, nobody};
use crate::harness::cli::{self, Ran};
use crate::harness::config::{Config, SECRET};
use crate::harness::http::Request;
use crate::harness::process::{Process, Signal, Stream};
use crate::harness::users::ALICE;

fn run(folder: &Path, arguments: &[&str], input: &str) -> Ran {
    cli::run(cli::command(folder).args(arguments), input)
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The text between two others, in a line that is yet to come.
fn awaited(process: &Process, after: &str, until: &[char]) -> String {
    process
        .output()
        .find(PATIENCE, |line| {
            let (_, rest) = line.split_once(after)?;
            Some(rest.split(until).next().unwrap_or_default().to_owned())
        })
        .unwrap_or_else(|| panic!("no {after:?} in\n{}", process.output().text()))
}

#[test]
fn the_demo_can_be_tried_as_it_says_and_leaves_nothing_behind() {
    let temporary = folder();
    let mut command = cli::command(temporary.path());
    command
        .env("TMPDIR", temporary.path())
        .args(["demo", "--listen", "127.0.0.1:0"]);
    let mut demo = Process::start(&mut command);
    let output = demo.output().clone();
    awaited(&demo, "Ctrl-C ends", &['.']);
    let text = output.of(Stream::Stdout);
    assert!(
        text.contains("alice") && text.contains("wonderland"),
        "{text}"
    );
    assert!(text.contains("bob"), "{text}");
    assert!(fs::read_dir(temporary.path()).unwrap().count() > 0);

    let curls: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("curl "))
        .map(|line| {
            let jar = temporary.path().join("jar.txt");
            line.replace("/tmp/cloakroom-demo.txt", &jar.to_string_lossy())
                .replacen("curl ", "curl -sS --noproxy '*' --max-time 20 ", 1)
        })
        .collect();
    assert_eq!(curls.len(), 3, "{text}");
    let said: Vec<_> = curls
        .iter()
        .map(|line| {
            cli::run(Command::new("sh").args(["-c", line]), "")
                .succeeded()
                .stdout
        })
        .collect();
    assert!(
        said[0].contains("401") && said[0].contains("no_cookie"),
        "{}",
        said[0]
    );
    assert!(
        said[1].contains("200 OK") && said[1].contains("set-cookie: cloakroom.sid="),
        "{}",
        said[1]
    );
    assert!(said[2].contains("x-user-id: u-alice"), "{}", said[2]);
    assert!(!said[2].contains("somebody-else"), "{}", said[2]);

    demo.signal(Signal::Int);
    let status = demo.wait(PATIENCE).expect("Ctrl-C does not end the demo");
    assert_eq!(status.code(), Some(0), "{}", output.text());
    fs::remove_file(temporary.path().join("jar.txt")).unwrap();
    let left: Vec<_> = fs::read_dir(temporary.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// `run --upstream` in a folder, until it is ready.
fn run_without_file(folder: &Path, upstream: &str) -> (Process, std::net::SocketAddr) {
    let mut command = cli::command(folder);
    command.env("CLOAKROOM__ADMIN__LISTEN", "off").args([
        "run",
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        upstream,
    ]);
    let process = Process::start(&mut command);
    let addr = awaited(&process, "listening on http://", &['"', ',', ' ']);
    awaited(&process, "ready", &['"']);
    let addr = addr.parse().unwrap_or_else(|e| panic!("{addr}: {e}"));
    (process, addr)
}

#[test]
fn run_needs_no_file_and_keeps_its_secret() {
    let backend = Backend::start();
    let folder = folder();
    let add = [
        "user",
        "add",
        "alice",
        "--id",
        "u-1",
        "--password-stdin",
        "--file",
        "users.toml",
    ];
    run(folder.path(), &add, "a password\n").succeeded();
    let (mut first, addr) = run_without_file(folder.path(), &backend.url());
    let secret = folder.path().join("cloakroom-data/secret");
    let made = fs::read(&secret).unwrap();
    let mode = fs::metadata(&secret).unwrap().permissions().mode();
    assert_eq!((made.len() >= 32, mode & 0o777), (true, 0o600));
    let body = serde_json::json!({ "username": "alice", "password": "a password" });
    let signed_in = Request::post("/auth/login").json(&body).send(addr);
    assert_eq!(signed_in.status, 200, "{}", signed_in.text());
    let mut jar = crate::harness::cookies::CookieJar::new();
    jar.store(&signed_in);
    assert_eq!(Request::get("/").send(addr).status, 401);
    assert_eq!(Request::get("/").cookies(&jar).send(addr).status, 200);
    let said = first.output().text();
    assert!(!said.contains(&*String::from_utf8_lossy(&made)), "{said}");
    first.signal(Signal::Term);
    assert_eq!(first.wait(PATIENCE).and_then(|s| s.code()), Some(0));

    // The secret and the sessions survive.
    let (_second, addr) = run_without_file(folder.path(), &backend.url());
    assert_eq!(fs::read(&secret).unwrap(), made);
    assert_eq!(Request::get("/").cookies(&jar).send(addr).status, 200);
}

#[test]
fn check_says_what_is_wrong_where_and_how_to_mend_it() {
    let fine = Config::to(nobody()).check();
    assert_eq!(fine.code, Some(0), "{}", fine.text());
    assert!(
        fine.stdout.contains("cloakroom.toml: fine"),
        "{}",
        fine.text()
    );

    let text = "[server]\nlisten = [\"127.0.0.1:0\"]\nworkrs = 2\n\n[session]\nsecrets = [\"short\"]\n\
                idle_timeout = \"soon\"\n\n[upstreams.app]\nurls = [\"http://127.0.0.1:3000\"]\n\n\
                [[routes]]\naccess = \"sometimes\"\n";
    let bad = Config::text(text).check();
    assert_eq!(bad.code, Some(1), "{}", bad.text());
    for part in [
        "cloakroom.toml:3:1: error: ",
        "did you mean `workers`",
        "cloakroom.toml:6:",
        "cloakroom.toml:7:",
        "cloakroom.toml:13:",
    ] {
        assert!(bad.stderr.contains(part), "no {part:?} in\n{}", bad.text());
    }
    assert!(bad.stdout.contains("errors"), "{}", bad.text());

    let folder = folder();
    for (arguments, code) in [
        (&["check"][..], 1),
        (&["check", "-c", "nowhere.toml"], 1),
        (&["run"], 78),
        (&["run", "-c", "nowhere.toml"], 78),
    ] {
        let ran = run(folder.path(), arguments, "");
        assert_eq!(ran.code, Some(code), "{arguments:?} {}", ran.text());
        assert!(ran.text().contains(".toml"), "{}", ran.text());
    }
    let Err(ran) = Config::text(text).try_start() else {
        panic!("it started")
    };
    assert_eq!(ran.code, Some(78), "{}", ran.text());
}

/// CVE-2026-54762, CVE-2022-46153: what is missing never means "open".
#[test]
fn a_proxy_without_its_secret_or_its_users_does_not_start() {
    for (what, config, code) in [
        (
            "NOT_SET",
            Config::to(nobody()).with("[session]\nsecrets = [{ env = \"NOT_SET\" }]"),
            78,
        ),
        (
            "NOT_THERE",
            Config::to(nobody()).with("[session]\nsecrets = [{ file = \"NOT_THERE\" }]"),
            78,
        ),
        (
            "users.toml",
            Config::to(nobody()).file("users.toml", "not toml ["),
            1,
        ),
        (
            "nowhere",
            Config::to(nobody()).with("[[routes]]\nupstream = \"nowhere\""),
            78,
        ),
    ] {
        let Err(ran) = config.try_start() else {
            panic!("{what}: it started")
        };
        assert_eq!(ran.code, Some(code), "{what}: {}", ran.text());
        assert!(ran.text().contains(what), "{what}: {}", ran.text());
        assert!(!ran.text().contains(SECRET), "{}", ran.text());
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let backend = Backend::start();
    for key in ["server.listen", "admin.listen"] {
        let address = backend.addr().to_string();
        let config = Config::to(backend.addr());
        let config = match key {
            "server.listen" => config.set(key, vec![address.clone()]),
            _ => config.set(key, address.clone()),
        };
        let Err(ran) = config.try_start() else {
            panic!("it started")
        };
        assert_eq!(ran.code, Some(1), "{}", ran.text());
        assert!(ran.stderr.contains(&address), "{}", ran.text());
        assert!(
            ran.stderr.contains("another program listens there"),
            "{}",
            ran.text()
        );
    }
}

#[test]
fn the_file_is_looked_for_in_order() {
    let folder = folder();
    let write = |name: &str, title: &str| {
        // Wrong in a way that tells which file was read.
        fs::write(folder.path().join(name), format!("[{title}]\n")).unwrap();
    };
    write("cloakroom.toml", "in_the_folder");
    write("b.toml", "in_the_environment");
    write("c.toml", "on_the_command_line");
    let check = |arguments: &[&str], environment: Option<&str>| {
        let mut command = cli::command(folder.path());
        if let Some(file) = environment {
            command.env("CLOAKROOM_CONFIG", file);
        }
        cli::run(command.arg("check").args(arguments), "").text()
    };
    assert!(check(&[], None).contains("in_the_folder"));
    assert!(check(&[], Some("b.toml")).contains("in_the_environment"));
    assert!(check(&["-c", "c.toml"], Some("b.toml")).contains("on_the_command_line"));
    assert!(check(&[], Some("gone.toml")).contains("gone.toml"));
}

#[test]
fn the_environment_overrides_the_file() {
    let backend = Backend::start();
    let proxy = Config::to(nobody())
        .env(
            "CLOAKROOM__UPSTREAMS__APP__URLS",
            &format!("[\"{}\"]", backend.url()),
        )
        .env("CLOAKROOM__LOGIN__TITLE", "From the environment")
        .env(
            "CLOAKROOM__ROUTES",
            "[{ path = \"/\", access = \"public\" }]",
        )
        .start();
    assert_eq!(proxy.get("/anything").status, 200);
    assert!(
        proxy
            .get("/auth/login")
            .text()
            .contains("From the environment")
    );
    let unknown = Config::to(nobody())
        .env("CLOAKROOM__SERVER__WORKRS", "1")
        .check();
    assert_eq!(unknown.code, Some(1));
    assert!(
        unknown.text().contains("CLOAKROOM__SERVER__WORKRS"),
        "{}",
        unknown.text()
    );
}

#[test]
fn wrong_usage_is_told_apart() {
    let folder = folder();
    for arguments in [
        &[][..],
        &["--bogus"],
        &["bogus"],
        &["run", "--bogus"],
        &["check", "-c"],
        &["demo", "--listen", "nowhere"],
        &["completions", "no-such-shell"],
        &["user", "add"],
    ] {
        let ran = run(folder.path(), arguments, "");
        assert_eq!(ran.code, Some(2), "{arguments:?} {}", ran.text());
        assert!(
            ran.stderr.contains("--help") || ran.stderr.contains("Usage"),
            "{}",
            ran.text()
        );
    }
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["help"],
    ] {
        let ran = run(folder.path(), arguments, "").succeeded();
        assert!(ran.stdout.contains("cloakroom"), "{}", ran.text());
    }
}

#[test]
fn the_schema_and_completions_can_be_used() {
    let folder = folder();
    let schema = run(folder.path(), &["schema"], "").succeeded().stdout;
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert!(
        schema["$schema"]
            .as_str()
            .unwrap()
            .contains("json-schema.org")
    );
    for section in [
        "server",
        "routes",
        "session",
        "upstreams",
        "login",
        "store",
        "log",
    ] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
    assert_eq!(schema["additionalProperties"], false);
    for shell in ["bash", "zsh", "fish"] {
        let script = run(folder.path(), &["completions", shell], "")
            .succeeded()
            .stdout;
        assert!(
            script.contains("healthcheck") || script.contains("demo"),
            "{shell}"
        );
    }
    let script = run(folder.path(), &["completions", "bash"], "").stdout;
    cli::run(Command::new("bash").args(["-n"]), &script).succeeded();
}

#[test]
fn users_are_added_changed_listed_and_removed() {
    let folder = folder();
    let user = |arguments: &[&str], input: &str| {
        let all = [&["user"], arguments, &["--file", "users.toml"]].concat();
        run(folder.path(), &all, input)
    };
    let dave = [
        "add",
        "dave",
        "--email",
        "d@example.test",
        "--role",
        "a",
        "--role",
        "b",
        "--password-stdin",
    ];
    let added = user(&dave, "first password\n").succeeded();
    assert!(!added.text().contains("first password"));
    let file = folder.path().join("users.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("$argon2id$") && !text.contains("first password"),
        "{text}"
    );
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0);
    assert_eq!(user(&dave, "again\n").code, Some(1), "added twice");
    let list = user(&["list"], "").succeeded().stdout;
    assert!(list.contains("dave") && !list.contains("argon2"), "{list}");

    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).file("users.toml", text).start();
    let wait_for = |password: &str, status: u16| {
        fs::copy(&file, proxy.folder().join("users.toml")).unwrap();
        crate::harness::eventually("the users file is read again", || {
            (proxy.try_sign_in("dave", password).status == status).then_some(())
        });
    };
    wait_for("first password", 200);
    user(&["set-password", "dave", "--password-stdin"], "second").succeeded();
    wait_for("second", 200);
    wait_for("first password", 401);
    user(&["remove", "dave"], "").succeeded();
    wait_for("second", 401);
    for missing in ["remove", "set-password"] {
        let flags: &[&str] = if missing == "remove" {
            &[]
        } else {
            &["--password-stdin"]
        };
        let ran = user(&[&[missing, "nobody"], flags].concat(), "x\n");
        assert_eq!(ran.code, Some(1), "{}", ran.text());
        assert!(ran.stderr.contains("nobody"), "{}", ran.text());
    }
}

#[test]
fn the_health_check_of_containers_tells_by_its_code() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let ask = |admin: String| run(proxy.folder(), &["healthcheck", "--admin", &admin], "").code;
    assert_eq!(ask(proxy.admin().to_string()), Some(0));
    assert_eq!(ask(nobody().to_string()), Some(1));
    assert_eq!(ask(backend.addr().to_string()), Some(0));
    let sick = Backend::with(|_| crate::harness::backend::Reply::status(503));
    assert_eq!(ask(sick.addr().to_string()), Some(1));
}

/// No command shows a secret, whatever goes wrong.
#[test]
fn no_command_shows_a_secret() {
    let config = Config::to(nobody())
        .with(&format!(
            "[session]\nsecrets = [\"{SECRET}\", 7]\nnonsense = 1"
        ))
        .store("redis://user:telling-password@127.0.0.1:1/x y");
    for ran in [config.check(), config.try_start().err().unwrap()] {
        assert_ne!(ran.code, Some(0));
        for secret in [SECRET, "telling-password", ALICE.password] {
            assert!(!ran.text().contains(secret), "{}", ran.text());
        }
    }
}
