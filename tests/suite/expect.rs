//! What several parts of the suite expect of an answer.

use crate::harness::http::Response;

/// A refusal with this status and reason, as the contract wants every one:
/// told apart by a machine (S-39), never kept, with the browser's guards
/// (S-64), and without a word on the session cookie.
#[track_caller]
pub fn refused(response: &Response, status: u16, reason: &str) {
    assert_eq!(
        (response.status, response.refusal().as_deref()),
        (status, Some(reason)),
        "{}{}",
        String::from_utf8_lossy(&response.head.raw),
        response.text()
    );
    own(response);
    let status_field = response.header("proxy-status").unwrap();
    assert!(
        status_field.starts_with("cloakroom; error="),
        "{status_field}"
    );
    assert!(response.header("x-request-id").is_some());
    let temporary = status == 503;
    assert_eq!(response.fields().has("retry-after"), temporary);
    let kind = response.header("content-type").unwrap_or_default();
    if kind == "application/json" && !response.body.is_empty() {
        let body = response.json();
        assert_eq!(body["reason"], reason);
        assert!(body["error"].is_string(), "{body}");
        assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    }
}

/// What every answer of Cloakroom's own has.
#[track_caller]
pub fn own(response: &Response) {
    let head = String::from_utf8_lossy(&response.head.raw);
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "same-origin"),
    ] {
        assert_eq!(response.header(name).as_deref(), Some(value), "{head}");
    }
    let csp = response.header("content-security-policy").unwrap();
    assert!(csp.contains("default-src 'none'"), "{csp}");
    assert!(!response.fields().has("set-cookie"), "{head}");
    assert!(!response.fields().has("server"), "{head}");
}
