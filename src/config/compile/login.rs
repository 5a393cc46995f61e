//! Signing in and what the application is told: `[login]`,
//! `[identity.headers]`.

use std::path::{Path, PathBuf};

use http::HeaderName;

use crate::config::keys::DEFAULT_IDENTITY;
use crate::config::problem::{Place, Problem};
use crate::config::settings::{At, Defect, Settings};
use crate::config::value::secret::plain_reason;
use crate::login::settings::LoginSettings;
use crate::policy::route::{Access, OnRefusal, Route};
use crate::wire::reserved;

/// Compiles `[login]`.
pub fn compile(
    settings: &Settings,
    routes: &[Route],
    problems: &mut Vec<Problem>,
) -> Result<LoginSettings, Defect> {
    let login = settings.section("login", "login");
    let throttle = settings.section("login.throttle", "login.throttle");
    let users_files = users_files(settings, problems)?;
    let page: bool = login.get("page")?;
    let needs_login = routes
        .iter()
        .any(|route| matches!(route.access, Access::Login { .. }));
    if needs_login && !settings.has_section("login.methods") {
        problems.push(
            Problem::warning(&login.place, "there are routes that need a login, and no [[login.methods]]")
                .why("nobody can sign in, so those routes are closed to everybody")
                .help("add [[login.methods]] with kind = \"users_file\" and path = \"users.toml\", and make that file with `cloakroom user add NAME --file users.toml`"),
        );
    }
    if !page
        && routes
            .iter()
            .any(|route| route.on_refusal == OnRefusal::Login)
    {
        problems.push(
            Problem::warning(
                &login.place("page"),
                "routes send browsers to the login page, and `page = false` turns it off",
            )
            .help("remove `page = false`, or write on_refusal = \"status\" in those routes"),
        );
    }
    let redirect_hosts: Vec<At<String>> = login.get("redirect_hosts")?;
    Ok(LoginSettings {
        page,
        title: login.get("title")?,
        after_login: login.get("after_login")?,
        after_logout: login.get("after_logout")?,
        redirect_hosts: redirect_hosts.into_iter().map(|at| at.value).collect(),
        hash_concurrency: throttle.get("hash_concurrency")?,
        users_files,
    })
}

fn users_files(settings: &Settings, problems: &mut Vec<Problem>) -> Result<Vec<PathBuf>, Defect> {
    let mut files: Vec<PathBuf> = Vec::new();
    for name in settings.names("login.methods") {
        let method = settings.section(&format!("login.methods[{}]", name.value), "login.methods[]");
        if !method.is_set("kind") {
            problems.push(
                Problem::error(&name.place, "this login method does not say its `kind`")
                    .help("write kind = \"users_file\" and path = \"users.toml\""),
            );
            continue;
        }
        if method.is_faulty("kind") || method.is_faulty("path") {
            continue;
        }
        let Some(file) = method.optional::<Option<PathBuf>>("path")?.flatten() else {
            problems.push(
                Problem::error(&name.place, "this login method needs the `path` of its users file")
                    .help("write path = \"users.toml\", and make that file with `cloakroom user add NAME --file users.toml`"),
            );
            continue;
        };
        let place = method.place("path");
        if files.contains(&file) {
            problems.push(
                Problem::error(&place, "this users file is named twice")
                    .help("remove one of the two"),
            );
        }
        problems.extend(unreadable(&file, &place));
        files.push(file);
    }
    Ok(files)
}

/// The file is read again whenever it changes, so it may come later.
fn unreadable(file: &Path, place: &Place) -> Option<Problem> {
    let reason = match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_file() => plain_reason(&std::fs::File::open(file).err()?),
        Ok(_) => "it is not a regular file".to_string(),
        Err(error) => plain_reason(&error),
    };
    Some(
        Problem::warning(place, format!("the users file cannot be read: {reason}"))
            .why("nobody can sign in until it is there")
            .help(format!(
                "make it with `cloakroom user add NAME --file {}`, or check the path, which is counted from the folder of this configuration",
                file.display()
            )),
    )
}

/// Compiles `[identity.headers]`.
pub fn identity(
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Result<Vec<(HeaderName, String)>, Defect> {
    if !settings.has_section("identity.headers") {
        let session = settings.section("session", "session");
        return DEFAULT_IDENTITY
            .iter()
            .map(|(name, path)| {
                let name = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|error| Defect(format!("{name}: {error}")))?;
                // Where the user and the roles are, wherever that is.
                let own = match *path {
                    "userId" => session.get("user")?,
                    "roles" => session.get("roles")?,
                    other => other.to_owned(),
                };
                Ok((name, own))
            })
            .collect();
    }
    let section = settings.section("identity.headers", "identity.headers");
    let mut headers: Vec<(HeaderName, String)> = Vec::new();
    for at in settings.names("identity.headers") {
        let Ok(name) = HeaderName::from_bytes(at.value.as_bytes()) else {
            problems.push(
                Problem::error(&at.place, "this is not a name that a header can have")
                    .help("use letters, digits and `-`, as in \"X-User-Id\""),
            );
            continue;
        };
        if let Some(why) = reserved(name.as_str()) {
            problems.push(
                Problem::error(
                    &at.place,
                    format!("`{}` cannot carry an identity", at.value),
                )
                .why(why)
                .help("choose a name of your own, such as \"X-User-Id\""),
            );
            continue;
        }
        if let Some((other, _)) = headers
            .iter()
            .find(|(other, _)| fold(other.as_str()) == fold(name.as_str()))
        {
            problems.push(
                Problem::error(
                    &at.place,
                    format!("`{name}` and `{other}` are the same header to many servers"),
                )
                .why("they take `-` and `_`, and capitals and small letters, for the same")
                .help("remove one of the two"),
            );
            continue;
        }
        if let Some(path) = section.optional::<String>(&at.value)? {
            headers.push((name, path));
        }
    }
    Ok(headers)
}

/// As the names are folded that are removed from requests.
fn fold(name: &str) -> String {
    name.bytes()
        .map(|byte| char::from(reserved::fold(byte)))
        .collect()
}

/// Why a name has a meaning of its own, if it has one.
fn reserved(name: &str) -> Option<&'static str> {
    let name = fold(name);
    match name.as_str() {
        "connection"
        | "content-length"
        | "content-encoding"
        | "content-type"
        | "date"
        | "expect"
        | "host"
        | "keep-alive"
        | "max-forwards"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "proxy-connection"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade"
        | "via"
        | "range"
        | "accept"
        | "accept-encoding"
        | "http2-settings" => Some("it belongs to the HTTP message itself"),
        "cookie" | "set-cookie" | "authorization" | "origin" | "referer" => Some(
            "applications read the client's own value there, which would be removed from every request",
        ),
        "forwarded" | "x-real-ip" | "x-request-id" | "traceparent" | "tracestate" => {
            Some("Cloakroom or a proxy in front writes it")
        }
        _ if name.starts_with("x-forwarded-") => Some("Cloakroom or a proxy in front writes it"),
        _ if name.starts_with("sec-") => Some("browsers alone write names that begin with `Sec-`"),
        _ => None,
    }
}
