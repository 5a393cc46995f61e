//! Health, draining, metrics and logs.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use crate::harness::PATIENCE;
use crate::harness::backend::{Answer, Backend, Reply, nobody};
use crate::harness::config::Config;
use crate::harness::eventually;
use crate::harness::http::{Client, Request};
use crate::harness::process::Signal;
use crate::harness::users::{ALICE, CAROL};

/// A backend that answers `/public/slow` when it is told to.
fn slow() -> (Backend, mpsc::Sender<()>) {
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let backend = Backend::with(move |request| {
        if request.target != "/public/slow" {
            return Reply::ok("fine");
        }
        let wait = wait.lock().unwrap().take().unwrap();
        Reply::take(move |mut stream, _| {
            // The test may have failed by now.
            let _ = wait.recv_timeout(PATIENCE);
            let _ = stream.write_all(&Answer::new(200).body("at last").bytes());
        })
    });
    (backend, go_on)
}

#[test]
fn draining_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let (backend, go_on) = slow();
    let mut proxy = Config::to(backend.addr())
        .set("server.drain_delay", "1s")
        .set("server.limits.idle_timeout", "1m")
        .start();
    assert_eq!(proxy.admin_get("/healthz").text(), "ok\n");
    assert_eq!(proxy.admin_get("/readyz").text(), "ready\n");

    let mut silent = Client::connect(proxy.addr());
    let mut idle = Client::connect(proxy.addr());
    assert_eq!(idle.request(&Request::get("/public")).status, 200);
    let mut busy = Client::connect(proxy.addr());
    busy.send(Request::get("/public/slow").bytes("x"));
    backend.wait_for(2);

    proxy.signal(Signal::Term);
    let drained = eventually("it is not ready any more", || {
        let response = proxy.admin_get("/readyz");
        (response.status == 503).then_some(response)
    });
    assert_eq!(drained.text(), "draining\n");
    // Still serving: on new connections and on old ones.
    assert_eq!(proxy.get("/public").status, 200);
    assert_eq!(idle.request(&Request::get("/public")).status, 200);
    assert_eq!(proxy.admin_get("/healthz").status, 200);
    assert!(
        proxy
            .admin_get("/metrics")
            .text()
            .contains("cloakroom_draining 1")
    );

    assert!(idle.is_closed());
    assert!(silent.is_closed());
    // Each worker closes its own socket.
    eventually("nobody is let in any more", || {
        Client::try_connect(proxy.addr()).is_err().then_some(())
    });
    go_on.send(()).unwrap();
    let last = busy.read("GET");
    assert_eq!(last.text(), "at last");
    assert_eq!(last.header("connection").as_deref(), Some("close"));
    assert!(busy.is_closed());
    assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.output().text());
    proxy.output().wait_for_json(|l| l["message"] == "stopped");
}

#[test]
fn a_connection_that_says_nothing_does_not_hold_up_the_end() {
    let backend = Backend::start();
    for http2 in [true, false] {
        let mut proxy = Config::to(backend.addr())
            .set("server.http2", http2)
            .set("server.limits.header_timeout", "1m")
            .set("server.drain_timeout", "1m")
            .start();
        let mut silent = Client::connect(proxy.addr());
        // The proxy has taken it once one that came later is served.
        for _ in 0..4 {
            assert_eq!(proxy.get("/public").status, 200);
        }
        let begin = std::time::Instant::now();
        assert_eq!(proxy.terminate().code(), Some(0));
        assert!(begin.elapsed() < Duration::from_secs(5), "http2 = {http2}");
        assert!(silent.is_closed());
    }
}

#[test]
fn what_does_not_finish_is_cut_after_drain_timeout() {
    let (backend, _go_on) = slow();
    let mut proxy = Config::to(backend.addr())
        .set("server.drain_timeout", "200ms")
        .start();
    let mut busy = Client::connect(proxy.addr());
    busy.send(Request::get("/public/slow").bytes("x"));
    backend.wait_for(1);
    assert_eq!(proxy.terminate().code(), Some(0));
    assert!(busy.is_closed());
}

#[test]
fn readiness_needs_what_it_is_told_to_need() {
    let mut backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with("[admin]\nready_requires = [\"upstream\", \"store\"]")
        .start();
    assert_eq!(proxy.admin_get("/readyz").status, 200);
    backend.stop();
    let down = proxy.admin_get("/readyz");
    assert_eq!(down.status, 503);
    assert!(
        down.text().contains("no connection to upstream"),
        "{}",
        down.text()
    );
    assert_eq!(proxy.admin_get("/healthz").status, 200);
    // By itself an application that is down takes nobody out of rotation.
    assert_eq!(
        Config::to(nobody()).start().admin_get("/readyz").status,
        200
    );
}

/// CVE-2022-24797: health and metrics are on the admin listener alone, and
/// nothing else is there.
#[test]
fn health_and_metrics_are_on_the_admin_listener_alone() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    for target in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(proxy.get(target).status, 401, "{target}");
        let head = Request::new("HEAD", target).send(proxy.admin());
        assert_eq!((head.status, head.body.len()), (200, 0));
        let post = Request::post(target).send(proxy.admin());
        assert_eq!(
            (post.status, post.header("allow").as_deref()),
            (405, Some("GET, HEAD"))
        );
    }
    for target in ["/", "/public", "/auth/login", "/healthz/"] {
        assert_eq!(proxy.admin_get(target).status, 404, "{target}");
    }
    let off = Config::to(backend.addr())
        .set("admin.listen", "off")
        .start();
    assert_eq!(off.get("/public").status, 200);
}

/// Samples by name and labels; fails on a line that is not OpenMetrics.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut types = BTreeMap::new();
    let mut samples = BTreeMap::new();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let words: Vec<_> = rest.splitn(3, ' ').collect();
            match words[0] {
                "TYPE" => {
                    assert!(
                        ["counter", "gauge", "histogram"].contains(&words[2]),
                        "{line}"
                    );
                    assert!(types.insert(words[1], words[2]).is_none(), "twice: {line}");
                }
                "HELP" | "UNIT" => {}
                "EOF" => {}
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        let name = series.split('{').next().unwrap();
        assert!(name.starts_with("cloakroom_"), "{line}");
        let family = ["_total", "_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        assert!(
            types.contains_key(family) || types.contains_key(name),
            "{line}"
        );
        if let Some(labels) = series.split_once('{') {
            let labels = labels.1.strip_suffix('}').unwrap();
            assert!(labels.matches('"').count() % 2 == 0, "{line}");
        }
        assert!(
            samples.insert(series.to_owned(), value).is_none(),
            "twice: {line}"
        );
    }
    samples
}

#[test]
fn the_counters_move_and_nobody_outside_can_add_series() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let metrics = || {
        let response = proxy.admin_get("/metrics");
        let kind = response.header("content-type").unwrap();
        assert!(
            kind.starts_with("application/openmetrics-text; version=1.0.0"),
            "{kind}"
        );
        samples(&response.text())
    };
    let before = metrics();
    let jar = proxy.sign_in(&ALICE);
    assert_eq!(proxy.try_sign_in("alice", "wrong").status, 401);
    assert_eq!(proxy.get_as("/x", &jar).status, 200);
    assert_eq!(proxy.get("/x").status, 401);
    assert_eq!(proxy.get_as("/admin", &jar).status, 403);
    assert_eq!(proxy.sign_out(&jar).status, 204);
    for n in 0..50 {
        let odd = Request::new(&format!("M{n}"), &format!("/public/{n}?{n}"))
            .header("host", format!("h{n}.test"))
            .header("user-agent", format!("agent {n}"));
        assert_eq!(proxy.send(&odd).status, 200);
    }
    let after = eventually("all is counted", || {
        let after = metrics();
        let public = r#"cloakroom_requests_total{route="/public",class="2xx"}"#;
        (after.get(public) == Some(&50.0)).then_some(after)
    });
    for (series, by) in [
        (r#"cloakroom_requests_total{route="/",class="2xx"}"#, 1.0),
        (r#"cloakroom_requests_total{route="/",class="4xx"}"#, 1.0),
        (
            r#"cloakroom_requests_total{route="/admin",class="4xx"}"#,
            1.0,
        ),
        (r#"cloakroom_refusals_total{reason="no_cookie"}"#, 1.0),
        (r#"cloakroom_refusals_total{reason="missing_role"}"#, 1.0),
        (
            r#"cloakroom_refusals_total{reason="invalid_credentials"}"#,
            1.0,
        ),
        (r#"cloakroom_logins_total{result="success"}"#, 1.0),
        (r#"cloakroom_logins_total{result="rejected"}"#, 1.0),
        ("cloakroom_sessions_created_total", 1.0),
        (r#"cloakroom_sessions_ended_total{cause="logout"}"#, 1.0),
        (
            r#"cloakroom_store_operations_total{operation="create",result="ok"}"#,
            1.0,
        ),
        (
            r#"cloakroom_store_operations_total{operation="delete",result="ok"}"#,
            1.0,
        ),
        ("cloakroom_upstream_duration_seconds_count", 51.0),
    ] {
        let value = |samples: &BTreeMap<String, f64>| {
            *samples.get(series).unwrap_or_else(|| panic!("no {series}"))
        };
        assert_eq!(value(&after) - value(&before), by, "{series}");
    }
    let names: Vec<_> = after.keys().collect();
    assert_eq!(names, before.keys().collect::<Vec<_>>());
}

/// S-61: what an access line holds.
#[test]
fn each_request_has_one_line_that_tells_all() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let jar = proxy.sign_in(&CAROL);
    let request = Request::post("/admin/x?secret=1")
        .cookies(&jar)
        .header("host", "App.test:81")
        .body("12345");
    let response = proxy.send(&request);
    let line = proxy.output().wait_for_json(|l| l["path"] == "/admin/x");
    for (field, value) in [
        ("kind", "access"),
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("host", "app.test"),
        ("protocol", "HTTP/1.1"),
        ("route", "/admin"),
        ("user", CAROL.id),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert_eq!(line["status"], 200);
    assert_eq!(line["reason"], serde_json::Value::Null);
    assert_eq!(line["aborted"], false);
    assert_eq!(line["bytes_in"], 5);
    assert_eq!(line["bytes_out"], response.body.len());
    let id = backend.only_request().header("x-request-id").unwrap();
    assert_eq!(line["request_id"], id.as_str());
    let handle = line["session"].as_str().unwrap();
    assert!(!jar.header().unwrap().contains(handle));
    let ms = |field: &str| line[field].as_f64().unwrap();
    assert!(ms("duration_ms") >= ms("upstream_ms") && ms("upstream_ms") > 0.0);
    assert!(line["time"].as_str().unwrap().ends_with('Z'));

    let refused = proxy.get_as("/denied/y", &jar);
    let line = proxy.output().wait_for_json(|l| l["path"] == "/denied/y");
    assert_eq!(
        (line["status"].as_u64(), line["reason"].as_str()),
        (Some(403), Some("route_denied"))
    );
    assert_eq!(line["request_id"], refused.header("x-request-id").unwrap());
    assert!(
        !proxy.output().text().contains("secret=1"),
        "a query was logged"
    );

    let off = Config::to(backend.addr()).set("log.access", false).start();
    assert_eq!(off.get("/public/quiet").status, 200);
    assert!(!off.output().text().contains("/public/quiet"));
}

/// S-54, S-61, CVE-2022-23469: not at any level, in any format.
#[test]
fn no_secret_is_ever_logged() {
    let backend = Backend::start();
    for format in ["json", "text"] {
        let mut proxy = Config::to(backend.addr())
            .set("log.level", "trace")
            .set("log.format", format)
            .start();
        let jar = proxy.sign_in(&ALICE);
        proxy.try_sign_in("alice", "a wrong but telling password");
        let cookie = jar.get("cloakroom.sid").unwrap().to_owned();
        for target in [
            "/x",
            "/public",
            "/admin",
            "/auth/session",
            "/denied",
            "/public/%00",
        ] {
            let request = Request::get(target)
                .cookies(&jar)
                .header("authorization", "Bearer telling-token");
            proxy.send(&request);
        }
        let cut = format!("cloakroom.sid={}", &cookie[..cookie.len() - 2]);
        proxy.send(&Request::get("/x").header("cookie", cut));
        proxy.sign_out(&jar);
        proxy.get_as("/x", &jar);
        proxy.terminate();
        let text = proxy.output().text();
        assert!(text.contains("stopped"), "{text}");
        // Of the token, and of its signature.
        for secret in [
            &cookie[4..24],
            &cookie[38..58],
            ALICE.password,
            "a wrong but telling password",
            "telling-token",
            crate::harness::config::SECRET,
        ] {
            assert!(!text.contains(secret), "{secret:?} in {format}:\n{text}");
        }
    }
}

/// RUSTSEC-2025-0055, S-61: nothing from outside can break or forge a line.
#[test]
fn control_characters_cannot_break_a_line() {
    let backend = Backend::start();
    for format in ["json", "text"] {
        let mut proxy = Config::to(backend.addr())
            .set("log.level", "debug")
            .set("log.format", format)
            .start();
        for target in [
            "/public/%0a%1b[31m",
            "/public/\"},{\"kind\":\"access",
            "/public/\\n\\u001b",
            "/x\u{9b}31m",
        ] {
            let mut client = Client::connect(proxy.addr());
            client.send(
                Request::get(target)
                    .header("user-agent", "a\tb\"}\u{9b}31m")
                    .header("cookie", "cloakroom.sid=\u{9b}31m\"\\")
                    .header("x-forwarded-for", "\u{9b}31m")
                    .bytes("x"),
            );
            client.read("GET");
        }
        proxy.try_sign_in("a\r\nFORGED \u{1b}[31m\u{9b}", "x");
        proxy.terminate();
        let text = proxy.output().text();
        let bad = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(bad), "{text:?}");
        assert!(
            !text.lines().any(|line| line.starts_with("FORGED")),
            "{text}"
        );
        if format == "json" {
            for line in text.lines() {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(value.is_object(), "{line}");
            }
        }
    }
}

#[test]
fn text_is_for_people() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).set("log.format", "text").start();
    proxy.get("/x");
    let line = proxy
        .output()
        .find(PATIENCE, |l| l.contains("/x 401").then(|| l.to_owned()))
        .expect("no access line");
    assert!(
        line.contains("GET") && line.contains("reason=no_cookie"),
        "{line}"
    );
    assert!(!proxy.output().text().contains('{'));
}
