//! Whole files: the examples, the bad ones, arbitrary text.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::compile::SHORTEST_SECRET;
use super::compiled::Compiled;
use super::keys::{self, Availability};
use super::problem::{self, Place};
use super::tree::{self, Entry, Value};
use super::*;
use crate::policy::route::{Access, HostPattern};
use crate::session::settings::StoreLocation;

mod environment;

const SECRET: &str = "Vh2zlk0Wq8VXb4mJgk5uYc1rTn7dEoPs";

const BASE: &str = "[upstreams.app]\nurls = [\"http://127.0.0.1:3000\"]\n\
     [session]\nsecrets = [ { env = \"CLOAKROOM_SECRET\" } ]\n\
     [[login.methods]]\nkind = \"users_file\"\npath = \"Cargo.toml\"\n";

fn environment() -> Environment {
    [
        ("CLOAKROOM_SECRET", SECRET),
        ("REDIS_URL", "redis://user:hunter2@redis:6379/2"),
        ("EMPTY", ""),
        ("SHORT", "hunter2"),
        ("HOME", "/root"),
    ]
    .into_iter()
    .collect()
}

fn with(variables: &[(&str, &str)]) -> Environment {
    let mut all: Vec<(&str, &str)> = vec![("CLOAKROOM_SECRET", SECRET)];
    all.extend(variables);
    all.into_iter().collect()
}

fn load_text(text: &str, environment: &Environment) -> Result<Loaded, Vec<Problem>> {
    load(
        &Source::inline("cloakroom.toml", text),
        environment,
        &Overrides::default(),
    )
}

fn compiled(text: &str) -> Compiled {
    match load_text(text, &environment()) {
        Ok((compiled, _)) => compiled,
        Err(problems) => panic!("{}", problem::render(&problems, "test.toml", text, false)),
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn examples() -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(repository("config"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (
                path.file_name().unwrap().to_string_lossy().into_owned(),
                text,
            )
        })
        .collect();
    files.sort();
    assert!(files.len() >= 4);
    files
}

#[test]
fn every_example_loads_without_errors() {
    for (name, text) in examples() {
        let (_, warnings) = load_text(&text, &environment()).unwrap_or_else(|problems| {
            panic!("{}", problem::render(&problems, &name, &text, false))
        });
        for warning in warnings {
            let expected = warning.what.contains("users file")
                || name == "sidecar-redis.toml" && warning.what.contains("health and metrics");
            assert!(expected, "{name}: {}", warning.what);
        }
    }
}

/// Walks a tree with the keys' paths in the table's form.
fn leaves(entries: &[Entry], pattern: &str, found: &mut Vec<(String, Value)>) {
    for entry in entries {
        let names = keys::names_in(pattern);
        let array = format!("{}[]", entry.key);
        let name = [entry.key.as_str(), &array, "*"]
            .into_iter()
            .find(|name| names.contains(name))
            .unwrap();
        let path = [pattern, name]
            .join(".")
            .trim_start_matches('.')
            .to_string();
        match (&entry.node.value, keys::find(&path)) {
            (value, Some(_)) => found.push((path, value.clone())),
            (Value::Table(inner), None) => leaves(inner, &path, found),
            (Value::Array(items), None) => {
                for item in items {
                    let Value::Table(inner) = &item.value else {
                        panic!("{path}")
                    };
                    leaves(inner, &path, found);
                }
            }
            _ => panic!("{path}"),
        }
    }
}

#[test]
fn the_full_example_has_every_available_key_with_its_default() {
    let text = std::fs::read_to_string(repository("config/full.toml")).unwrap();
    // The keys without a default stand there as comments, and the sections
    // whose mere presence asks for something.
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") || rest.starts_with('[') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (root, problems) = tree::parse_file(&uncommented);
    assert_eq!(problems, []);
    let mut found = Vec::new();
    leaves(&root, "", &mut found);
    for (path, value) in &found {
        let default = keys::find(path).unwrap().default;
        if let Some(default) = default.filter(|_| !path.ends_with("[].upstream")) {
            let node = tree::parse_value(default, &Place::Whole).unwrap();
            assert_eq!(show(&node.value), show(value), "{path}");
        }
    }
    let found: BTreeSet<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    for key in keys::KEYS {
        let there = match key.availability {
            Availability::Now => true,
            Availability::Only(values) => {
                values.iter().any(|v| key.default.is_none_or(|d| d == *v))
            }
        };
        assert_eq!(found.contains(key.path), there, "{}", key.path);
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(|item| show(&item.value)).collect(),
        other => format!("{other:?}"),
    }
}

#[test]
fn writing_down_a_default_changes_nothing() {
    for key in keys::KEYS {
        let (section, name) = key.split();
        let Some(default) = key.default else { continue };
        // Without certificates [server.tls] is an error, whatever else is in it.
        if keys::find_section(section).is_some_and(|section| section.later)
            || section == "server.tls"
        {
            continue;
        }
        // The section alone asks for checks, so it is compared with itself.
        let base = match section {
            "upstreams.*.health" => format!("{BASE}[upstreams.app.health]\n"),
            _ => BASE.to_owned(),
        };
        let lines = match section {
            "upstreams.*.health" => format!("{base}{name} = {default}\n"),
            "upstreams.*" => BASE.replace("[session]", &format!("{name} = {default}\n[session]")),
            "session" => BASE.replace("[[login", &format!("{name} = {default}\n[[login")),
            "login.methods[]" => format!("{BASE}{name} = {default}\n"),
            _ => format!(
                "{BASE}{}\n{name} = {default}\n",
                super::shape::bracketed(section)
            ),
        };
        let result = load_text(&lines, &environment());
        let (loaded, warnings) = result.unwrap_or_else(|problems| {
            panic!("{}", problem::render(&problems, "test.toml", &lines, false))
        });
        assert_eq!(warnings, [], "{}", key.path);
        let (plain, _) = load_text(&base, &environment()).unwrap();
        let mut loaded = loaded;
        loaded.notes.clone_from(&plain.notes);
        assert_eq!(format!("{loaded:?}"), format!("{plain:?}"), "{}", key.path);
    }
}

fn listening(compiled: &Compiled) -> Vec<String> {
    let addresses = compiled.server.listen.iter();
    addresses.map(ToString::to_string).collect()
}

#[test]
fn what_is_not_available_is_refused() {
    for (path, value) in [
        ("session.cookie.x", "1"),
        ("endpoints.debug", "[\"loopback\"]"),
        ("login.templates", "\"templates\""),
        ("login.throttle.attempts", "6"),
        ("telemetry.otlp", "\"http://127.0.0.1:4318\""),
        ("identity.assertion.ttl", "\"60s\""),
        ("server.tls.min_version", "\"1.2\""),
    ] {
        let (section, name) = path.rsplit_once('.').unwrap();
        let text = format!("{BASE}[{section}]\n{name} = {value}\n");
        let problems = load_text(&text, &environment()).unwrap_err();
        assert!(problems.iter().any(Problem::is_error), "{path}");
    }
}

#[test]
fn every_bad_file_is_explained_as_recorded() {
    let folder = repository("tests/fixtures/config");
    let stems = |extension: &str| -> BTreeSet<String> {
        std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ext| ext == extension))
            .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    let files = stems("toml");
    assert!(files.len() >= 30, "{}", files.len());
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let mut wrong = Vec::new();
    for name in &files {
        let text = std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
        let recorded = folder.join(format!("{name}.expected"));
        let problems = match load_text(&text, &environment()) {
            Ok((_, warnings)) => warnings,
            Err(problems) => {
                assert!(problems.iter().any(Problem::is_error), "{name}");
                problems
            }
        };
        assert!(!problems.is_empty(), "{name} has no problem at all");
        let found = problem::render(&problems, "cloakroom.toml", &text, false);
        for secret in ["hunter2", SECRET] {
            assert!(!found.contains(secret), "{name} shows a secret:\n{found}");
        }
        if update {
            std::fs::write(&recorded, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&recorded).unwrap_or_default();
        if found != expected {
            wrong.push(format!("== {name}: expected\n{expected}== found\n{found}"));
        }
    }
    let orphans: Vec<_> = stems("expected").difference(&files).cloned().collect();
    assert_eq!(
        orphans,
        Vec::<String>::new(),
        "recorded texts without a file"
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn defaults_are_those_of_the_reference() {
    let loaded = compiled(BASE);
    assert_eq!(listening(&loaded), ["127.0.0.1:8080"]);
    assert_eq!(loaded.server.header_bytes, 65_536);
    assert_eq!(loaded.session.idle_timeout, Duration::from_secs(86_400));
    assert_eq!(loaded.session.secrets, [Secret::new(SECRET)]);
    assert_eq!(loaded.routes.len(), 1);
    let route = &loaded.routes[0];
    assert_eq!(
        (route.label.as_str(), &route.host),
        ("/", &HostPattern::Any)
    );
    assert_eq!(route.access, Access::Login { roles: vec![] });
    assert_eq!(loaded.notes.len(), 1);
    let identity: Vec<_> = loaded
        .identity
        .iter()
        .map(|(n, p)| (n.as_str(), p.as_str()))
        .collect();
    assert_eq!(
        identity,
        [
            ("x-user-id", "userId"),
            ("x-user-email", "email"),
            ("x-user-roles", "roles")
        ]
    );
    assert_eq!(loaded.admin.listen, Some("127.0.0.1:9180".parse().unwrap()));
}

#[test]
fn the_touch_interval_is_capped() {
    let loaded = compiled(&BASE.replace("[[login", "idle_timeout = \"60s\"\n[[login"));
    assert_eq!(loaded.session.touch_interval, Duration::from_secs(6));
}

#[test]
fn routes_take_the_general_limit_unless_they_have_their_own() {
    let loaded = compiled(&format!(
        "{BASE}[server.limits]\nbody_bytes = \"1KiB\"\n\
         [[routes]]\n[[routes]]\nhost = \"*.Example.com\"\npath = \"/a\"\nmethods = [\"GET\", \"POST\"]\nbody_bytes = \"none\"\n\
         [[routes]]\npath = \"/b\"\nexact = true\naccess = \"deny\"\n"
    ));
    let limits: Vec<_> = loaded.routes.iter().map(|route| route.body_bytes).collect();
    assert_eq!(limits, [Some(1024), None, Some(1024)]);
    let labels: Vec<_> = loaded
        .routes
        .iter()
        .map(|route| route.label.as_str())
        .collect();
    assert_eq!(labels, ["/", "GET,POST *.example.com/a", "/b (exact)"]);
}

#[test]
fn secrets_come_from_files_without_their_newline() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloakroom.toml");
    std::fs::write(
        &path,
        BASE.replace("env = \"CLOAKROOM_SECRET\"", "file = \"key\"")
            .replace("Cargo", "cloakroom"),
    )
    .unwrap();
    let source = Source::read(&path).unwrap();
    let load = || load(&source, &Environment::default(), &Overrides::default());

    assert!(
        load().unwrap_err()[0]
            .what
            .contains("there is no such file")
    );
    std::fs::write(folder.path().join("key"), "\n").unwrap();
    assert!(load().unwrap_err()[0].what.contains("is empty"));
    std::fs::write(folder.path().join("key"), format!("{SECRET}\n")).unwrap();
    let (loaded, warnings) = load().unwrap();
    assert_eq!(loaded.session.secrets[0].len(), SHORTEST_SECRET);
    assert_eq!(warnings, []);
    assert!(
        matches!(loaded.store.location, StoreLocation::File(place) if place.starts_with(folder.path()))
    );
}

#[test]
fn a_secret_in_a_file_for_all_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cloakroom.toml");
    let text = BASE
        .replace("{ env = \"CLOAKROOM_SECRET\" }", &format!("\"{SECRET}\""))
        .replace("Cargo", "cloakroom");
    std::fs::write(&path, text).unwrap();
    for (mode, count) in [(0o644, 1), (0o600, 0)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let source = Source::read(&path).unwrap();
        let (_, warnings) = load(&source, &Environment::default(), &Overrides::default()).unwrap();
        assert_eq!(warnings.len(), count, "{}", source.render(&warnings, false));
        assert!(!source.render(&warnings, false).contains(SECRET));
    }
}

#[test]
fn what_cannot_be_read_is_said_in_words() {
    let folder = tempfile::tempdir().unwrap();
    assert!(
        Source::read(folder.path())
            .unwrap_err()
            .what
            .contains("folder")
    );
    let path = folder.path().join("x");
    std::fs::write(&path, b"a = 1\n\xff").unwrap();
    assert!(
        Source::read(&path)
            .unwrap_err()
            .what
            .contains("line 2 is not UTF-8")
    );
}

#[test]
fn the_summary_is_plain_and_holds_no_secret() {
    let text = std::fs::read_to_string(repository("config/sidecar-redis.toml")).unwrap();
    let summary = compiled(&text).summary().join("\n");
    assert!(
        !summary.contains("hunter2") && !summary.contains(SECRET),
        "{summary}"
    );
    for part in [
        "listening on http://0.0.0.0:8080",
        "route /admin: for signed-in users with the role admin, forwarded to app at http://127.0.0.1:3000",
        "route /internal: closed to everybody",
        "sessions are kept in redis://redis:6379/2",
        "sessions end after 8h without use, and 3d after login",
        "app has 2s to accept a connection and 1m to answer",
        "admin on http://0.0.0.0:9180",
    ] {
        assert!(summary.contains(part), "{part} is not in:\n{summary}");
    }
    let url = "postgresql://carl:hunter2@db:6432/sessions?sslmode=verify-full";
    let postgres = compiled(&format!("{BASE}[store]\nurl = \"{url}\"\n"));
    let summary = postgres.summary().join("\n");
    assert!(
        summary.contains("sessions are kept in postgres://db:6432/sessions"),
        "{summary}"
    );
    assert!(!summary.contains("hunter2"), "{summary}");
}

#[test]
fn each_kind_of_redis_is_understood_and_shown_without_its_passwords() {
    for (url, shown) in [
        ("redis://u:hunter2@a:1/2", "redis://a:1/2"),
        ("redis+unix:///s?user=u&pass=hunter2", "redis+unix:///s"),
        (
            "redis+sentinel://u:hunter2@a,b/1?master=m&sentinel_password=hunter2",
            "redis+sentinel://a:26379,b:26379/1?master=m",
        ),
        (
            "redis+cluster://u:hunter2@a,b:7000",
            "redis+cluster://a:6379,b:7000",
        ),
    ] {
        let text = format!("{BASE}\n[store]\nurl = \"{url}\"\n");
        let summary = compiled(&text).summary().join("\n");
        let line = format!("sessions are kept in {shown}");
        assert!(summary.contains(&line), "{summary}");
        assert!(!summary.contains("hunter2"), "{summary}");
    }
}

#[test]
fn what_is_wrong_with_the_tls_of_redis_is_known_before_the_start() {
    for (url, said) in [
        (
            "rediss://u:hunter2@a?ca=nowhere/ca.pem",
            "nowhere/ca.pem cannot be read: there is no such file",
        ),
        (
            "rediss://u:hunter2@a?cert=hunter2.pem",
            "`cert` and `key` belong together",
        ),
        (
            "redis://u:hunter2@a?ca=ca.pem",
            "only these names are known: protocol",
        ),
        (
            "rediss+sentinel://u:hunter2@a",
            "the name of the master is missing",
        ),
        ("rediss+cluster://u:hunter2@a/1", "no database but 0"),
    ] {
        let variable = [("CLOAKROOM__STORE__URL", url)];
        let problems = load_text(BASE, &with(&variable)).unwrap_err();
        let text = problem::render(&problems, "cloakroom.toml", BASE, false);
        assert!(text.contains(said), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let text = std::fs::read_to_string(repository("config/sidecar-redis.toml")).unwrap();
    let shown = format!("{:?} {:?}", compiled(&text), environment());
    assert!(!shown.contains("hunter2") && !shown.contains(SECRET));
}

fn never_panics(text: &str) {
    let result = load_text(text, &environment());
    let problems = match result {
        Ok((_, warnings)) => warnings,
        Err(problems) => problems,
    };
    problem::render(&problems, "cloakroom.toml", text, false);
    problem::render(&problems, "cloakroom.toml", text, true);
}

proptest! {
    #[test]
    fn arbitrary_text_does_not_panic(text in "(\\PC|\n|\r|\t){0,200}") {
        never_panics(&text);
    }

    #[test]
    fn toml_like_text_does_not_panic(text in "([a-z]{1,8}|\\[|\\]|\\{|\\}|=|\\.|,|\"|'|\"\"\"|#|\n| |[0-9]|routes|server|session|secrets|upstreams|\\[\\[routes\\]\\]|é){0,60}") {
        never_panics(&text);
    }

    #[test]
    fn mutated_examples_do_not_panic(
        which in 0usize..4,
        at in any::<prop::sample::Index>(),
        length in 0usize..40,
        with in "(\\PC|\n){0,12}",
    ) {
        let (_, text) = examples().swap_remove(which);
        let mut chars: Vec<char> = text.chars().collect();
        let start = at.index(chars.len());
        let end = (start + length).min(chars.len());
        chars.splice(start..end, with.chars());
        never_panics(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn mutated_files_do_not_show_their_secret(
        which in 0usize..4,
        at in any::<prop::sample::Index>(),
        length in 0usize..40,
        with in "([a-z]|\\PC|\n|\"|\\[|=){0,12}",
    ) {
        let (_, text) = examples().swap_remove(which);
        let text = text.replace("{ env = \"CLOAKROOM_SECRET\" }", &format!("\"{SECRET}\""));
        let mut chars: Vec<char> = text.chars().collect();
        let start = at.index(chars.len());
        let end = (start + length).min(chars.len());
        chars.splice(start..end, with.chars());
        let text: String = chars.into_iter().collect();
        if let Err(problems) = load_text(&text, &Environment::default()) {
            let shown = problem::render(&problems, "cloakroom.toml", &text, false);
            prop_assert!(!shown.contains(SECRET), "{shown}");
        }
    }

    #[test]
    fn arbitrary_variables_do_not_panic(name in "(SERVER|UPSTREAMS|ROUTES|LISTEN|APP|__|_|[A-Za-z]|\\PC){0,6}", value in "\\PC{0,20}") {
        let environment = with(&[(&format!("CLOAKROOM__{name}"), &value)]);
        let _ = load_text(BASE, &environment);
    }
}
