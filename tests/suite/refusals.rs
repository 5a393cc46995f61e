//! `docs/refusals.md` says what the table in the code says.

use std::fmt::Write;
use std::path::Path;

use cloakroom::base::refusal::{Level, Refusal};

const INTRODUCTION: &str = "\
<!-- Made from the table in src/base/refusal.rs. To make it anew:
     UPDATE_DOCS=1 cargo test refusals -->

# Refusals

A refusal is any answer that Cloakroom gives instead of forwarding a request.
The reasons are a closed list, and their codes do not change: it is safe to
build alerts and clients on them. The code stands

- in the field `reason` of a JSON answer:
  `{\"error\":\"Not authenticated\",\"reason\":\"no_cookie\"}`,
- in `details` of the response field `Proxy-Status` (RFC 9209), beside the
  `error` that is listed below:
  `Proxy-Status: cloakroom; error=http_request_denied; details=\"no_cookie\"`,
- in the access log and in the metrics.

An answer with status 429 or 503 carries `Retry-After`: trying again may help. No
refusal ever sets or clears the session cookie.
";

#[test]
fn the_documented_refusals_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/refusals.md");
    let wanted = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found
        .lines()
        .zip(wanted.lines())
        .find(|(found, wanted)| found != wanted);
    assert!(
        found == wanted,
        "docs/refusals.md is not what the code says; run UPDATE_DOCS=1 cargo test refusals\n{differs:?}",
    );
}

fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n| code | status | `error` | log level | message |\n|---|---|---|---|---|\n");
    for refusal in Refusal::ALL {
        let level = match refusal.level() {
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
        };
        let (label, status) = (refusal.label(), refusal.status());
        let (error, message) = (refusal.proxy_error(), cell(refusal.message()));
        let anchor = format!("[`{label}`](#{label})");
        writeln!(
            text,
            "| {anchor} | {} | `{error}` | {level} | {message} |",
            status.as_u16()
        )
        .unwrap();
    }
    for refusal in Refusal::ALL {
        let explanation: Vec<_> = refusal.explanation().split_whitespace().collect();
        let (label, status) = (refusal.label(), refusal.status());
        write!(
            text,
            "\n## {label}\n\n{status}. {}\n",
            explanation.join(" ")
        )
        .unwrap();
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
