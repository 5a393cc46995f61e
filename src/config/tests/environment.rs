//! What is said beside the file: by the environment and the command line.

use super::*;

#[test]
fn the_environment_counts_before_the_file() {
    let loaded = load_text(
        BASE,
        &with(&[
            (
                "CLOAKROOM__SERVER__LISTEN",
                "[\"127.0.0.1:0\", \"[::1]:0\"]",
            ),
            ("CLOAKROOM__SESSION__IDLE_TIMEOUT", "8h"),
            ("CLOAKROOM__SESSION__SECRETS", "[{ env = \"OTHER\" }]"),
            ("OTHER", "bhTn3dVh2zlk0Wq8VXb4mJgk5uYc1rTn"),
            ("CLOAKROOM__UPSTREAMS__APP__URLS", "[\"http://app:81\"]"),
            ("CLOAKROOM__LOGIN__TITLE", "1984"),
            ("CLOAKROOM__LOG__ACCESS", "false"),
            ("CLOAKROOM__STORE__URL", "memory:"),
            (
                "CLOAKROOM__ROUTES",
                "[{ path = \"/x\", access = \"public\" }]",
            ),
            ("CLOAKROOM__IDENTITY__HEADERS", "{ \"X-Who\" = \"userId\" }"),
            ("CLOAKROOM_UNRELATED", "x"),
        ]),
    );
    let (loaded, warnings) = loaded.unwrap_or_else(|problems| {
        panic!("{}", problem::render(&problems, "test.toml", BASE, false))
    });
    assert_eq!(warnings, []);
    assert_eq!(loaded.server.listen.len(), 2);
    assert_eq!(loaded.session.idle_timeout, Duration::from_secs(8 * 3600));
    assert_ne!(loaded.session.secrets, [Secret::new(SECRET)]);
    assert_eq!(loaded.upstreams[0].addresses[0].authority(), "app:81");
    assert_eq!(loaded.login.title, "1984");
    assert!(!loaded.log.access);
    assert!(matches!(loaded.store.location, StoreLocation::Memory));
    assert_eq!(loaded.routes[0].label, "/x");
    assert_eq!(loaded.identity.len(), 1);
}

#[test]
fn problems_of_the_environment_name_the_variable() {
    for (name, value, help) in [
        (
            "CLOAKROOM__SERVER__LISTN",
            "x",
            "did you mean `CLOAKROOM__SERVER__LISTEN`?",
        ),
        (
            "CLOAKROOM__UPSTREAMS__APP__URL",
            "x",
            "did you mean `CLOAKROOM__UPSTREAMS__APP__URLS`?",
        ),
        (
            "CLOAKROOM__SERVER__LISTEN",
            "0.0.0.0:80",
            "'[\"0.0.0.0:80\"]'",
        ),
        (
            "CLOAKROOM__SERVER__WORKERS",
            "many",
            "an integer from 0 to 1024",
        ),
        ("CLOAKROOM__SERVER__LISTEN", "[\"", "a list is written"),
        ("CLOAKROOM__SESSION__IDLE_TIMEOUT", "30", "\"30s\""),
        ("CLOAKROOM__ROUTES__0__PATH", "/", "replaced as a whole"),
        (
            "CLOAKROOM__IDENTITY__HEADERS__X",
            "a",
            "replaced as a whole",
        ),
        (
            "CLOAKROOM__SESSION__SECRETS",
            "hunter2-and-more",
            "as a TOML list",
        ),
        (
            "CLOAKROOM__SESSION__SECRETS",
            "[\"hunter2-and-more\"]",
            "openssl rand",
        ),
        (
            "CLOAKROOM__STORE__URL",
            "redis://u:hunter2@[",
            "write redis://",
        ),
        ("CLOAKROOM__", "", "CLOAKROOM__SECTION__KEY"),
    ] {
        let problems = load_text(BASE, &with(&[(name, value)])).unwrap_err();
        let text = problem::render(&problems, "cloakroom.toml", BASE, false);
        assert!(text.starts_with(&format!("{name}: error: ")), "{text}");
        assert!(text.contains(help), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(problems.len(), 1, "{text}");
    }
}

#[test]
fn the_command_line_counts_before_everything() {
    let environment = with(&[("CLOAKROOM__SERVER__LISTEN", "[\"127.0.0.1:1\"]")]);
    let overrides = Overrides {
        listen: vec!["127.0.0.1:2".into()],
        upstream: Some("http://other:4000".into()),
        fallback_secret: None,
    };
    let source = Source::inline("x", BASE);
    let (loaded, _) = load(&source, &environment, &overrides).unwrap();
    assert_eq!(listening(&loaded), ["127.0.0.1:2"]);
    assert_eq!(loaded.upstreams[0].name, "app");
    assert_eq!(loaded.upstreams[0].addresses[0].authority(), "other:4000");

    let two =
        format!("{BASE}[upstreams.two]\nurls = [\"http://b\"]\n[[routes]]\nupstream = \"two\"\n");
    let problems = load(&Source::inline("x", &two), &environment, &overrides).unwrap_err();
    assert_eq!(problems[0].place, Place::Option("--upstream"));
}

#[test]
fn an_upstream_and_a_kept_secret_are_enough() {
    let overrides = Overrides {
        listen: Vec::new(),
        upstream: Some("http://127.0.0.1:3000".into()),
        fallback_secret: Some(Secret::new(SECRET)),
    };
    let source = Source::inline("command line", "");
    let (loaded, warnings) = load(&source, &Environment::default(), &overrides).unwrap();
    assert_eq!(loaded.upstreams[0].name, "app");
    assert_eq!(loaded.session.secrets, [Secret::new(SECRET)]);
    assert_eq!(warnings.len(), 1, "{warnings:?}");

    let problems = load(
        &source,
        &Environment::default(),
        &Overrides {
            upstream: Some("localhost:3000".into()),
            ..overrides
        },
    )
    .unwrap_err();
    assert!(
        source
            .render(&problems, false)
            .starts_with("--upstream: error: ")
    );
}
