//! What the application is told of the visitor, and what no visitor can tell
//! it.

use super::expect;
use crate::harness::backend::{Answer, Backend, Recorded};
use crate::harness::config::Config;
use crate::harness::http::{Client, Request};
use crate::harness::users::{self, ALICE, CAROL};

/// A name as servers fold it that make variables of header names.
fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// The fields of this name in any spelling, as name and value.
fn spellings(request: &Recorded, name: &str) -> Vec<(String, String)> {
    let trailers = request.body.trailers.0.iter();
    request
        .fields()
        .0
        .iter()
        .chain(trailers)
        .filter(|(n, _)| folded(n) == name)
        .map(|(n, v)| (n.clone(), String::from_utf8_lossy(v).into_owned()))
        .collect()
}

const SPELLINGS: &[&str] = &[
    "X-User-Id",
    "x-user-id",
    "X-USER-ID",
    "x_user_id",
    "X_USER_ID",
    "X-USER_ID",
    "X_User-Id",
    "x-User_iD",
];

/// CVE-2025-64484, CVE-2026-52845, CVE-2026-33433, CVE-2026-54763,
/// CVE-2026-30851, mod_auth_openidc 2026, S-62.
#[test]
fn no_spelling_of_an_identity_header_gets_through_on_any_route() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let jar = proxy.sign_in(&ALICE);
    for spelling in SPELLINGS {
        for (target, signed_in) in [
            ("/public", false),
            ("/public", true),
            ("/optional", false),
            ("/optional", true),
            ("/x", true),
        ] {
            for method in ["GET", "OPTIONS", "POST"] {
                let mut request = Request::new(method, target)
                    .header(spelling, "evil")
                    .header("Accept", "1")
                    .header(spelling, "evil, too")
                    .header("x_user_email", "evil@example.test")
                    .header("X-User_Roles", "admin");
                if signed_in {
                    request = request.cookies(&jar);
                }
                assert_eq!(proxy.send(&request).status, 200);
                let arrived = backend.only_request();
                backend.clear();
                let what = format!("{spelling} {method} {target} {signed_in}");
                let known = signed_in && target != "/public";
                let expected = |value: &str| match known {
                    true => vec![value.to_owned()],
                    false => Vec::new(),
                };
                for (name, value) in [
                    ("x-user-id", ALICE.id),
                    ("x-user-email", ALICE.email),
                    ("x-user-roles", "user"),
                ] {
                    let values = spellings(&arrived, name);
                    let values: Vec<_> = values.into_iter().map(|(_, v)| v).collect();
                    assert_eq!(values, expected(value), "{what} {name}");
                }
                assert_eq!(arrived.header("accept").as_deref(), Some("1"));
            }
        }
    }
    assert!(backend.malformed().is_empty());
}

/// GHSA-w9mr-28mw-j8hg, CVE-2021-32813, CVE-2024-45410, CVE-2025-48865,
/// CVE-2026-29054, S-21: what `Connection` names can only remove what the
/// client sent.
#[test]
fn connection_options_cannot_remove_what_we_add() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let jar = proxy.sign_in(&ALICE);
    let lines: &[&[&str]] = &[
        &["X-User-Id"],
        &["x-user-id, x-user-email, x-user-roles"],
        &["close, X-USER-ID"],
        &[",, ,X-User-Id,,"],
        &["keep-alive", "x-user-id"],
        &["X-User-Id\t,\t x-forwarded-for"],
        &["x_user_id"],
        &[
            "x-forwarded-for, X-Forwarded-Proto",
            "x-forwarded-host, via",
        ],
        &["x-request-id, host, content-length, cookie"],
        &["X-USER-ID", "", "upgrade", "te"],
    ];
    for connection in lines {
        let request = connection.iter().fold(
            Request::post("/x")
                .cookies(&jar)
                .header("X-Own", "stays")
                .header("X-User-Id", "evil")
                .body("12345"),
            |request, line| request.header("Connection", line),
        );
        let response = proxy.send(&request);
        assert_eq!(response.status, 200, "{connection:?}: {}", response.text());
        let arrived = backend.only_request();
        backend.clear();
        assert_eq!(
            spellings(&arrived, "x-user-id"),
            [("x-user-id".to_owned(), ALICE.id.to_owned())],
            "{connection:?}"
        );
        for (name, value) in [
            ("x-user-email", ALICE.email),
            ("x-user-roles", "user"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-own", "stays"),
            ("content-length", "5"),
        ] {
            assert_eq!(
                arrived.header(name).as_deref(),
                Some(value),
                "{connection:?}"
            );
        }
        for name in ["x-forwarded-host", "via", "x-request-id", "host"] {
            assert!(arrived.fields().has(name), "{connection:?} {name}");
        }
        assert_eq!(arrived.body.content, b"12345");
        assert!(!arrived.fields().has("upgrade"));
    }
    let named = Request::get("/public")
        .header("connection", "x-hop, X-Other")
        .header("X-Hop", "1")
        .header("x-other", "2")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive")
        .header("proxy-authorization", "Basic eDp5");
    proxy.send(&named);
    let arrived = backend.only_request();
    for name in [
        "x-hop",
        "x-other",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
    ] {
        assert!(!arrived.fields().has(name), "{name}");
    }
}

/// S-18: trailers cannot carry what headers cannot.
#[test]
fn trailers_cannot_carry_an_identity_or_framing() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let jar = proxy.sign_in(&ALICE);
    for target in ["/public", "/x"] {
        let names = "X-User-Id, x_user_id, X-Sum, Content-Length, X-Forwarded-For";
        let request = Request::post(target)
            .cookies(&jar)
            .header("trailer", names)
            .header("te", "trailers")
            .header("transfer-encoding", "chunked")
            .body(
                "3\r\nabc\r\n0\r\nX-User-Id: evil\r\nx_user_id: evil\r\nX-Sum: 7\r\n\
                 Content-Length: 100\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\
                 Cookie: a=b\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
            );
        assert_eq!(proxy.send(&request).status, 200);
        let arrived = backend.only_request();
        backend.clear();
        assert_eq!(arrived.body.content, b"abc");
        let expected: &[&str] = if target == "/x" { &[ALICE.id] } else { &[] };
        let values: Vec<_> = spellings(&arrived, "x-user-id")
            .into_iter()
            .map(|(_, value)| value)
            .collect();
        assert_eq!(values, expected);
        for name in [
            "content-length",
            "transfer-encoding",
            "host",
            "cookie",
            "x-forwarded-for",
        ] {
            assert!(!arrived.body.trailers.has(name), "{name}");
        }
    }
    assert!(backend.malformed().is_empty());
}

/// CVE-2026-33433: a configured name may have any case and underscores.
#[test]
fn identity_headers_have_the_names_that_are_configured() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .unset("identity.headers")
        .with(
            "[identity.headers]\n\"x_UsEr_ID\" = \"userId\"\n\"REMOTE-groups\" = \"roles\"\n\
             \"X-Nothing\" = \"no.such.path\"",
        )
        .start();
    let jar = proxy.sign_in(&CAROL);
    let request = [
        "X-User-Id",
        "x_user_id",
        "Remote_Groups",
        "x-nothing",
        "X_NOTHING",
    ]
    .iter()
    .fold(Request::get("/x").cookies(&jar), |r, n| r.header(n, "evil"));
    assert_eq!(proxy.send(&request).status, 200);
    let arrived = backend.only_request();
    let values = |name: &str| -> Vec<_> {
        spellings(&arrived, name)
            .into_iter()
            .map(|(_, value)| value)
            .collect()
    };
    assert_eq!(values("x-user-id"), [CAROL.id]);
    assert_eq!(values("remote-groups"), ["user,admin"]);
    assert!(values("x-nothing").is_empty());
    // The default names are not ours any more.
    backend.clear();
    proxy.send(&Request::get("/public").header("x-user-email", "mine"));
    assert_eq!(
        backend.only_request().header("x-user-email").as_deref(),
        Some("mine")
    );
}

/// A value that its header cannot hold refuses the request; nothing is
/// sanitised (S-11).
#[test]
fn an_identity_that_no_header_can_hold_is_not_forwarded() {
    let backend = Backend::start();
    for note in [
        "\"alice\\u0007\"",
        "\"a\\r\\nX-Admin: 1\"",
        "\"a\\u0000b\"",
        "[\"a,b\", \"c\"]",
        "[\"a\", \"b\\nc\"]",
    ] {
        let noted = format!("[[user]]\nnote = {note}");
        let proxy = Config::to(backend.addr())
            .with("[identity.headers]\n\"X-Note\" = \"note\"")
            .file("users.toml", users::file().replacen("[[user]]", &noted, 1))
            .start();
        let jar = proxy.sign_in(&ALICE);
        let carol = proxy.sign_in(&CAROL);
        for target in ["/x", "/optional"] {
            let response = proxy.get_as(target, &jar);
            expect::refused(&response, 500, "identity_unrepresentable");
        }
        assert!(backend.requests().is_empty(), "{note}");
        assert_eq!(proxy.get_as("/public", &jar).status, 200);
        assert_eq!(proxy.get_as("/x", &carol).status, 200);
        backend.clear();
    }
}

/// CVE-2026-39858, CVE-2026-35051, CVE-2026-54764, CVE-2026-33495: the whole
/// family, in every spelling.
#[test]
fn nobody_is_believed_about_a_requests_way_unless_trusted() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let family = [
        "X-Forwarded-For",
        "x_forwarded_for",
        "X-Forwarded-Proto",
        "X_Forwarded_Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Server",
        "X-Forwarded-Uri",
        "X-Forwarded-Method",
        "X-Forwarded-Ssl",
        "X-Forwarded-Scheme",
        "X-Forwarded-User",
        "X-Original-URL",
        "X-Rewrite-Url",
        "X-Real-IP",
        "X_Real_Ip",
        "x-real_ip",
        "True-Client-IP",
        "X-Client-IP",
        "Client-IP",
        "Forwarded",
        "FORWARDED",
    ];
    let request = family
        .iter()
        .fold(Request::get("/public"), |r, n| r.header(n, "6.6.6.6"));
    assert_eq!(
        proxy
            .send(&request.header("host", "app.example.com:81"))
            .status,
        200
    );
    let arrived = backend.only_request();
    let fields: Vec<_> = arrived
        .fields()
        .0
        .iter()
        .filter(|(name, _)| family.iter().any(|f| folded(f) == folded(name)))
        .map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap()))
        .collect();
    assert_eq!(
        fields,
        [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "app.example.com:81"),
        ]
    );
    let raw = arrived.raw();
    assert!(!String::from_utf8_lossy(&raw).contains("6.6.6.6"));
    // Even a malformed one plays no part (CVE-2024-47070).
    let odd = Request::get("/public").header("x-forwarded-for", "a, ,\"");
    assert_eq!(proxy.send(&odd).status, 200);
}

#[test]
fn the_chain_of_a_trusted_peer_is_walked_and_written_anew() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with("[trust]\nproxies = [\"loopback\", \"10.0.0.0/8\"]")
        .start();
    let sent = |fields: &[(&str, &str)]| {
        backend.clear();
        let request = fields
            .iter()
            .fold(Request::get("/public"), |r, (n, v)| r.header(n, v));
        let response = proxy.send(&request);
        (response, backend.requests().pop())
    };
    for (fields, chain, proto) in [
        (&[][..], "127.0.0.1", "http"),
        (
            &[
                ("x-forwarded-for", "203.0.113.7"),
                ("x-forwarded-proto", "https"),
            ],
            "203.0.113.7, 127.0.0.1",
            "https",
        ),
        // Only what is walked is read; what lies behind it is the client's.
        (
            &[(
                "x-forwarded-for",
                "spoofed!, 6.6.6.6, 203.0.113.7, 10.1.2.3",
            )],
            "203.0.113.7, 10.1.2.3, 127.0.0.1",
            "http",
        ),
        (
            &[
                ("x-forwarded-for", "6.6.6.6"),
                ("X-Forwarded-For", "203.0.113.7, 10.1.2.3"),
            ],
            "203.0.113.7, 10.1.2.3, 127.0.0.1",
            "http",
        ),
        // GHSA-7jmw-8259-q9jx: IPv4 in IPv6 clothes is the same address.
        (
            &[("x-forwarded-for", "203.0.113.7:4711, ::ffff:10.0.0.1")],
            "203.0.113.7, 10.0.0.1, 127.0.0.1",
            "http",
        ),
        (
            &[("x-forwarded-for", "[2001:db8::1]:99")],
            "2001:db8::1, 127.0.0.1",
            "http",
        ),
        // The scheme comes from the hop of the client.
        (
            &[
                ("x-forwarded-for", "203.0.113.7, 10.1.2.3"),
                ("x-forwarded-proto", "https, http"),
            ],
            "203.0.113.7, 10.1.2.3, 127.0.0.1",
            "https",
        ),
        (
            &[
                ("x-forwarded-for", "203.0.113.7, 10.1.2.3"),
                ("x-forwarded-proto", "HTTPS"),
            ],
            "203.0.113.7, 10.1.2.3, 127.0.0.1",
            "https",
        ),
    ] {
        let (response, arrived) = sent(fields);
        assert_eq!(response.status, 200, "{fields:?}: {}", response.text());
        let arrived = arrived.unwrap();
        assert_eq!(
            arrived.header("x-forwarded-for").as_deref(),
            Some(chain),
            "{fields:?}"
        );
        assert_eq!(
            arrived.header("x-forwarded-proto").as_deref(),
            Some(proto),
            "{fields:?}"
        );
    }
    for fields in [
        [("x-forwarded-for", "a"), ("x-ok", "1")],
        [("x-forwarded-for", "203.0.113.7, x"), ("x-ok", "1")],
        [
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-proto", "ftp"),
        ],
        [
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-proto", "https\tx"),
        ],
        [("x-forwarded-for", "256.0.0.1"), ("x-ok", "1")],
    ] {
        let (response, arrived) = sent(&fields);
        expect::refused(&response, 400, "bad_forwarding_header");
        assert!(arrived.is_none(), "{fields:?}");
    }
}

/// S-41.
#[test]
fn the_forwarded_field_is_read_and_written_where_it_is_configured() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with("[trust]\nproxies = [\"loopback\", \"10.0.0.0/8\"]\nheader = \"forwarded\"")
        .start();
    let request = Request::get("/public")
        .header("host", "app.test")
        .header(
            "forwarded",
            "for=6.6.6.6, for=\"[2001:db8::1]:99\";proto=https",
        )
        .header("Forwarded", "for=10.0.0.9")
        .header("x-forwarded-for", "7.7.7.7");
    let response = proxy.send(&request);
    assert_eq!(response.status, 200, "{}", response.text());
    let arrived = backend.only_request();
    assert_eq!(
        arrived.header("x-forwarded-for").as_deref(),
        Some("2001:db8::1, 10.0.0.9, 127.0.0.1")
    );
    assert_eq!(
        arrived.header("forwarded").as_deref(),
        Some("for=\"[2001:db8::1]\";host=\"app.test\";proto=https, for=10.0.0.9, for=127.0.0.1")
    );
    for bad in [
        "for=",
        "for=\"[::1\"",
        "for=1.2.3.4;for=1.2.3.5",
        "nonsense",
    ] {
        let response = proxy.send(&Request::get("/public").header("forwarded", bad));
        expect::refused(&response, 400, "bad_forwarding_header");
    }
}

/// S-54, S-47: our cookie stays here, the others arrive byte for byte.
#[test]
fn only_our_cookie_is_taken_out_of_what_goes_upstream() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let jar = proxy.sign_in(&ALICE);
    let ours = format!("cloakroom.sid={}", jar.get("cloakroom.sid").unwrap());
    for (sent, arrives) in [
        (format!("a=1; {ours}; b=2"), Some("a=1; b=2")),
        (ours.clone(), None),
        (format!("{ours};"), None),
        (format!("  {ours}  "), None),
        (format!("{ours}; a=1"), Some("a=1")),
        (format!("a=1;{ours};b=2"), Some("a=1;b=2")),
        (format!("a=1; {ours}; {ours}; b=2"), Some("a=1; b=2")),
        (
            format!("a=\"x y\"; {ours}; xcloakroom.sid=1; cloakroom.sid.x=2"),
            Some("a=\"x y\"; xcloakroom.sid=1; cloakroom.sid.x=2"),
        ),
        (
            format!("a=b=c;  d;e=%zz; Cloakroom.sid=other; {ours}"),
            Some("a=b=c;  d;e=%zz; Cloakroom.sid=other"),
        ),
    ] {
        backend.clear();
        let response = proxy.send(&Request::get("/x").header("cookie", &sent));
        assert_eq!(response.status, 200, "{sent}: {}", response.text());
        let arrived = backend.only_request();
        assert_eq!(arrived.header("cookie").as_deref(), arrives, "{sent}");
        let raw = String::from_utf8_lossy(&arrived.raw()).into_owned();
        assert!(!raw.contains(jar.get("cloakroom.sid").unwrap()), "{raw}");
    }
    // Several lines, odd spacing, and on public routes too.
    for target in ["/x", "/public"] {
        backend.clear();
        let request = Request::get(target)
            .header("cookie", "a=1")
            .header("Cookie", &ours)
            .header("cookie", format!("b=2;\t{ours}"))
            .header("cookie", format!("cloakroom.sid = {}", &ours[14..]));
        proxy.send(&request);
        let arrived = backend.only_request();
        let cookies = arrived.fields().all("cookie").join("; ");
        assert!(
            cookies.contains("a=1") && cookies.contains("b=2"),
            "{cookies}"
        );
        assert!(!cookies.contains(&ours[14..40]), "{cookies}");
    }
}

/// S-45.
#[test]
fn the_application_cannot_set_our_cookie_and_sets_its_own_in_order() {
    let theirs = [
        "a=1; Path=/",
        "cloakroom.sid=evil; Path=/",
        "b=2; Expires=Fri, 01 Jan 2100 00:00:00 GMT",
        "cloakroom.sid =evil",
        " cloakroom.sid=evil; HttpOnly",
        "xcloakroom.sid=3",
        "=cloakroom.sid=evil; Path=/",
        "a=4; Path=/x",
    ];
    let backend = Backend::with(move |_| {
        theirs
            .iter()
            .fold(Answer::new(200), |a, c| a.header("Set-Cookie", c))
            .into()
    });
    let proxy = Config::to(backend.addr()).start();
    let jar = proxy.sign_in(&ALICE);
    for response in [proxy.get("/public"), proxy.get_as("/x", &jar)] {
        assert_eq!(
            response.fields().all("set-cookie"),
            [
                "a=1; Path=/",
                "b=2; Expires=Fri, 01 Jan 2100 00:00:00 GMT",
                "xcloakroom.sid=3",
                "a=4; Path=/x",
            ]
        );
    }
    proxy.output().wait_for_json(|line| {
        line.to_string()
            .contains("dropped the application's Set-Cookie")
    });
}

/// CVE-2026-33544, CVE-2026-71326: two users at once are never mixed up.
#[test]
fn visitors_on_one_connection_and_at_once_are_never_mixed_up() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let jars = [
        (ALICE, proxy.sign_in(&ALICE)),
        (CAROL, proxy.sign_in(&CAROL)),
    ];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::connect(proxy.addr());
                for round in 0..50 {
                    let (person, jar) = &jars[round % 2];
                    let response = client.request(&Request::get("/x").cookies(jar));
                    let body = response.json();
                    let id = body["headers"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .find(|field| field[0] == "x-user-id");
                    assert_eq!(id.unwrap()[1], person.id);
                    let none = client.request(&Request::get("/optional"));
                    assert!(!none.text().contains("x-user-id"));
                }
            });
        }
    });
}
