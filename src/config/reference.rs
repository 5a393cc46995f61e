//! `docs/configuration.md`, generated from the key table.

use std::fmt::Write;

use super::compile::PLACEHOLDERS;
use super::keys::{Availability, DEFAULT_IDENTITY, KEYS, Key, SECTIONS};
use super::shape::bracketed;
use super::value::expected;

const INTRODUCTION: &str = r#"# Configuration

Cloakroom reads one TOML file: the one that `-c` names, else the one that
`$CLOAKROOM_CONFIG` names, else `./cloakroom.toml`, else
`/etc/cloakroom/cloakroom.toml`. `cloakroom check` prints every problem of it at
once, with line, column, reason and fix; `cloakroom schema` prints a JSON Schema
for editors. Annotated examples are in `config/`.

This page is generated from the table that the program itself uses.

## Values

- **Durations** are a whole number and a unit: `"500ms"`, `"30s"`, `"15m"`,
  `"24h"`, `"7d"`.
- **Sizes** are a whole number and a unit: `"100B"`, `"64KiB"` (1024), `"1MB"`
  (1000 × 1000), `"2GiB"`; `"none"` where there may be no limit.
- **Secrets** are a string, `{ env = "NAME" }`, or
  `{ file = "/run/secrets/name" }`, of which one trailing newline is dropped. A
  variable that is not set, a file that cannot be read, and an empty value are
  errors. `store.url` can be given in the same way.
- **Paths** of files are counted from the folder of the configuration file.
- Unknown keys are errors.
- Where a key or a value is documented as not available, this version refuses it;
  writing down its default is allowed.

## Environment

Any key can be overridden by a variable that is called `CLOAKROOM__SECTION__KEY`,
with two underscores between levels. Its value is written as in TOML; where the
key takes a string, the quotes can be left out. Lists and tables are replaced
whole. Names of upstreams are taken in lower case.

```sh
CLOAKROOM__SERVER__LISTEN='["0.0.0.0:8080"]'
CLOAKROOM__SESSION__IDLE_TIMEOUT=8h
CLOAKROOM__UPSTREAMS__APP__URLS='["http://app:3000"]'
CLOAKROOM__ROUTES='[{ path = "/", access = "login" }]'
```

A variable that names no key is an error. The command line's `--listen` and
`--upstream` count before the environment, and the environment before the file.

## Combinations

These are errors, since they cannot work:

- `session.cookie.same_site = "none"`, `partitioned = true` or a name that begins
  with `__Secure-` or `__Host-`, together with `secure = false`, or with a
  `server.public_url` that is plain http
- a name that begins with `__Host-`, together with a domain or another path than
  `/`
- `session.cookie.secure = true` on a plaintext listener without a trusted proxy
  and without an https `server.public_url`: the cookie would never be set
- a cookie domain that does not cover the host of `server.public_url`
- a secret under 32 bytes, one that stands in the list twice, or a placeholder
  (see below)
- a store that cannot be shared (`memory:`, `file:`) with
  `server.replicas_expected` over 1
- two routes that cover the same requests: same host and path, and a method in
  common
- an unknown upstream; a route without `upstream` where there are several; roles
  without `access = "login"`
- listeners that take the same port; `admin.listen` or `redirect_http` among the
  public ones
- `[server.tls]` without a certificate; `proxy_protocol` without any trusted proxy
- an upstream without a URL, with more than 64, or with one of them twice; a
  certificate without its key
- `store.layout = "express"` in a store that no application can reach, or with a user
  or roles path that express-session does not load; `session.share_with_app` without it
- `cors.origins = ["*"]` with credentials; origins of another site than
  `server.public_url`, unless the cookie has `same_site = "none"` or credentials
  are off
- identity headers with a meaning of their own (`Host`, `Cookie`,
  `Authorization`, …), or two that differ only in `-`, `_` or case

These are warnings, since they usually go wrong:

- `session.idle_timeout` over `session.absolute_timeout`
- `trust.proxies` that name everybody; `trust.host` without any proxy
- a plaintext listener that is reached from elsewhere, with neither a trusted
  proxy nor `server.public_url`
- `admin.listen` on an address that is reached from elsewhere
- routes that need a login where there is no login method, or a users file that
  is not there
- `session.share_with_app` without a `session.cookie.name`
- a cookie path that does not cover `endpoints.prefix`
- a route under one of Cloakroom's own endpoints; a path that ends with `/`
- `csrf.mode = "off"`
- `cors.origins` with credentials, without a `server.public_url` to compare with
- `[upstreams.NAME.tls]` where no URL is https
- a secret in a file that everybody may read

"#;

/// The whole page.
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    out.push_str("## Keys\n");
    for section in SECTIONS {
        let keys: Vec<&Key> = KEYS
            .iter()
            .filter(|key| key.split().0 == section.path)
            .collect();
        if keys.is_empty() {
            continue;
        }
        let later = if section.later {
            " Not available in this version."
        } else {
            ""
        };
        let _ = write!(
            out,
            "\n### `{}`\n\n{}{later}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n",
            bracketed(section.path),
            section.doc
        );
        for key in keys {
            out.push_str(&row(key, section.later));
        }
        if section.path == "identity.headers" {
            out.push_str("\nWithout this table:\n\n```toml\n[identity.headers]\n");
            for (name, path) in DEFAULT_IDENTITY {
                let _ = writeln!(out, "\"{name}\" = \"{path}\"");
            }
            out.push_str("```\n");
        }
    }
    out.push_str(
        "\n## Placeholders\n\nA session secret is refused if it is one of these, or one of these repeated,\nwhatever its case and however many blanks, dots, `-` and `_` are in between:\n\n",
    );
    for placeholder in PLACEHOLDERS {
        let _ = writeln!(out, "- `{placeholder}`");
    }
    out
}

fn row(key: &Key, section_is_later: bool) -> String {
    let (_, name) = key.split();
    let name = match name {
        "*" => "*any header*".to_string(),
        name => format!("`{name}`"),
    };
    let default = match key.default {
        Some(default) => format!("`{default}`"),
        None => "–".into(),
    };
    let more = match key.availability {
        Availability::Only(_) if !section_is_later => format!(" *{}*", availability(key)),
        _ => String::new(),
    };
    format!(
        "| {name} | {} | {default} | {}{more} |\n",
        cell(&expected(&key.kind)),
        cell(key.doc)
    )
}

/// What this version can do of a key, as a sentence; empty where it is all.
pub fn availability(key: &Key) -> String {
    match (key.availability, key.default) {
        (Availability::Now, _) => String::new(),
        (Availability::Only([]), None) => "Not available in this version.".into(),
        (Availability::Only([]), Some(_)) => {
            "Not available in this version, which takes the default only.".into()
        }
        (Availability::Only(values), _) => {
            format!("This version takes {} only.", values.join(" and "))
        }
    }
}

/// A bar would end the cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run with `UPDATE_DOCS=1` to write the page.
    #[test]
    fn the_committed_page_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let page = markdown();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == page,
            "docs/configuration.md is out of date: run the tests with UPDATE_DOCS=1"
        );
    }
}
