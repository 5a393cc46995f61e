//! Sessions: `[session]`, `[session.cookie]`, `[store]`.

use std::time::Duration;

use super::edge::Edge;
use super::{Surroundings, secrets};
use crate::config::problem::Problem;
use crate::config::settings::{Defect, PublicUrl, Section, Settings, StoreUrl};
use crate::config::value::quantity::show;
use crate::session::settings::{
    CacheSettings, LayoutKind, SessionSettings, StoreLocation, StoreSettings,
};
use crate::wire::cookie::{CookieSpec, SameSite, Secure};

/// Compiles `[session]`.
pub fn compile(
    settings: &Settings,
    surroundings: &Surroundings<'_>,
    problems: &mut Vec<Problem>,
) -> Result<SessionSettings, Defect> {
    let session = settings.section("session", "session");
    let idle: Duration = session.get("idle_timeout")?;
    let absolute: Duration = session.get("absolute_timeout")?;
    let faulty = session.is_faulty("idle_timeout") || session.is_faulty("absolute_timeout");
    if idle > absolute && !faulty {
        let key = match session.is_set("idle_timeout") {
            true => "idle_timeout",
            false => "absolute_timeout",
        };
        problems.push(
            Problem::warning(
                &session.place(key),
                format!("idle_timeout ({}) is longer than absolute_timeout ({}), so it never has an effect", show(idle), show(absolute)),
            )
            .help("make idle_timeout the shorter one, or both equal"),
        );
    }
    let touch: Duration = session.get("touch_interval")?;
    Ok(SessionSettings {
        secrets: secrets::compile(settings, surroundings, problems)?,
        idle_timeout: idle,
        absolute_timeout: absolute,
        touch_interval: touch.min(idle / 10),
        max_per_user: session.get("max_per_user")?,
        user: session.get("user")?,
        roles: session.get("roles")?,
    })
}

/// Compiles `[session.cookie]`.
pub fn cookie(
    settings: &Settings,
    public: Option<&PublicUrl>,
    edge: &Edge,
    problems: &mut Vec<Problem>,
) -> Result<CookieSpec, Defect> {
    let section = settings.section("session.cookie", "session.cookie");
    let spec = CookieSpec {
        name: section.get("name")?,
        path: section.get("path")?,
        domain: section.get("domain")?,
        same_site: match section.get::<String>("same_site")?.as_str() {
            "strict" => SameSite::Strict,
            "lax" => SameSite::Lax,
            "none" => SameSite::None,
            other => return Err(Defect(format!("same_site {other}"))),
        },
        secure: match section.get::<Option<bool>>("secure")? {
            None => Secure::Auto,
            Some(true) => Secure::Always,
            Some(false) => Secure::Never,
        },
        persistent: section.get("persistent")?,
        partitioned: section.get("partitioned")?,
    };
    check_prefix(&spec, &section, problems);
    check_security(&spec, &section, public, edge, problems);
    check_domain(&spec, &section, public, problems);
    check_age(&spec, settings, problems)?;
    Ok(spec)
}

/// The rules that browsers tie to names (RFC 6265bis section 4.1.3).
fn check_prefix(spec: &CookieSpec, section: &Section<'_>, problems: &mut Vec<Problem>) {
    let name = spec.name.to_ascii_lowercase();
    if !name.starts_with("__host-") {
        return;
    }
    if let Some(domain) = &spec.domain {
        problems.push(
            Problem::error(&section.place("domain"), format!("a cookie named `{}` must not have a domain", spec.name))
                .why(format!("`__Host-` promises the browser that only one host sets it, so it refuses the cookie with domain = \"{domain}\""))
                .help("remove `domain`, or choose a name without `__Host-`"),
        );
    }
    if spec.path != "/" {
        problems.push(
            Problem::error(
                &section.place("path"),
                format!("a cookie named `{}` must have path = \"/\"", spec.name),
            )
            .why("the browser refuses a `__Host-` cookie with another path")
            .help("remove `path`, or choose a name without `__Host-`"),
        );
    }
}

/// What needs `Secure`, and whether `Secure` can ever be.
fn check_security(
    spec: &CookieSpec,
    section: &Section<'_>,
    public: Option<&PublicUrl>,
    edge: &Edge,
    problems: &mut Vec<Problem>,
) {
    let name = spec.name.to_ascii_lowercase();
    let needs = if name.starts_with("__host-") || name.starts_with("__secure-") {
        Some(("name", format!("a cookie named `{}`", spec.name)))
    } else if spec.same_site == SameSite::None {
        Some((
            "same_site",
            "a cookie with same_site = \"none\"".to_string(),
        ))
    } else if spec.partitioned {
        Some((
            "partitioned",
            "a cookie with partitioned = true".to_string(),
        ))
    } else {
        None
    };
    let never = "write secure = \"auto\" and serve it over https";
    match (spec.secure, needs) {
        (Secure::Never, Some((_, what))) => problems.push(
            Problem::error(
                &section.place("secure"),
                format!("{what} needs `Secure`, and secure = false forbids it"),
            )
            .why("browsers refuse such a cookie, so nobody could stay signed in")
            .help("remove `secure = false`"),
        ),
        (Secure::Auto, None) => {}
        (Secure::Auto, Some((key, what))) => {
            if public.is_some_and(|public| !public.https) {
                problems.push(
                    Problem::error(&section.place(key), format!("{what} needs `Secure`, and server.public_url is plain http"))
                        .why("browsers refuse such a cookie, so nobody could stay signed in")
                        .help("write the https address in server.public_url, if that is what browsers use; otherwise change the cookie"),
                );
            }
        }
        (Secure::Always, _) => {
            let place = section.place("secure");
            match public {
                Some(public) if public.https => {}
                Some(_) => problems.push(
                    Problem::error(&place, "secure = true, and server.public_url is plain http")
                        .why("browsers drop a `Secure` cookie that comes over http, so nobody could stay signed in")
                        .help("write the https address in server.public_url, if that is what browsers use; otherwise write secure = \"auto\""),
                ),
                None if !edge.trusts && edge.server.tls.is_none() => problems.push(
                    Problem::error(&place, "secure = true, and no connection can be known to be secure")
                        .why("the listeners are plain http and no proxy is trusted, so the cookie would never be set")
                        .help("name the proxy that ends TLS in trust.proxies, such as [\"private\"], or set server.public_url to the https address in the browser"),
                ),
                None => {}
            }
        }
        (Secure::Never, None) => {
            if public.is_some_and(|public| public.https) {
                problems.push(
                    Problem::warning(&section.place("secure"), "secure = false, and server.public_url is https")
                        .why("the browser would also send the session cookie over plain http, where anybody on the way can read it")
                        .help(never),
                );
            }
        }
    }
}

fn check_domain(
    spec: &CookieSpec,
    section: &Section<'_>,
    public: Option<&PublicUrl>,
    problems: &mut Vec<Problem>,
) {
    let (Some(domain), Some(public)) = (&spec.domain, public) else {
        return;
    };
    let covers = public.host == *domain
        || public
            .host
            .strip_suffix(domain.as_str())
            .is_some_and(|rest| rest.ends_with('.'));
    if !covers {
        problems.push(
            Problem::error(
                &section.place("domain"),
                format!(
                    "the cookie's domain {domain} does not cover {}, the host of server.public_url",
                    public.host
                ),
            )
            .why("browsers refuse a cookie for another domain than that of the page")
            .help("remove `domain`, or write the part of the host that all your hosts share"),
        );
    }
}

/// Browsers keep no cookie for longer than 400 days (RFC 6265bis section 5.5).
fn check_age(
    spec: &CookieSpec,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Result<(), Defect> {
    let session = settings.section("session", "session");
    let absolute: Duration = session.get("absolute_timeout")?;
    if spec.persistent && absolute > Duration::from_secs(400 * 86_400) {
        problems.push(
            Problem::warning(
                &session.place("absolute_timeout"),
                format!(
                    "browsers forget the cookie after 400 days, not after {}",
                    show(absolute)
                ),
            )
            .help("write \"400d\" or less"),
        );
    }
    Ok(())
}

/// Warns where the browser does not send the cookie to our own endpoints.
pub fn warn_of_unseen_cookie(
    settings: &Settings,
    spec: &CookieSpec,
    prefix: &str,
    problems: &mut Vec<Problem>,
) {
    let path = spec.path.trim_end_matches('/');
    let seen = prefix
        .strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !seen {
        problems.push(
            Problem::warning(
                &settings
                    .section("session.cookie", "session.cookie")
                    .place("path"),
                format!(
                    "browsers do not send the session cookie to {prefix}, which is not below {}",
                    spec.path
                ),
            )
            .why("signing out and asking for the session would not work")
            .help(format!(
                "write path = \"/\", or endpoints.prefix = \"{path}{prefix}\""
            )),
        );
    }
}

/// Compiles `[store]`; also says what the store is, in words.
pub fn store(
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Result<(StoreSettings, String), Defect> {
    let store = settings.section("store", "store");
    let url: StoreUrl = store.get("url")?;
    let server = settings.section("server", "server");
    let replicas: usize = server.get("replicas_expected")?;
    if replicas > 1 && !url.location.can_be_shared() && !store.is_faulty("url") {
        let place = match store.is_set("url") {
            true => store.place("url"),
            false => server.place("replicas_expected"),
        };
        problems.push(
            Problem::error(&place, format!("{replicas} replicas are expected, and {} cannot be shared by them", url.shown))
                .why("a session would be known to one replica only, and visitors be signed out at random")
                .help("write url = \"redis://HOST:6379\" in [store], or server.replicas_expected = 1"),
        );
    }
    if let StoreLocation::Postgres(postgres) = &url.location
        && postgres.is_unverified()
    {
        problems.push(
            Problem::warning(
                &store.place("url"),
                "sslmode=require encrypts, and nobody checks who answers",
            )
            .why("whoever can get between could read and change all sessions")
            .help("write sslmode=verify-full, with sslrootcert=FILE for an authority of your own"),
        );
    }
    let cache = settings.section("store.cache", "store.cache");
    let settings = StoreSettings {
        location: url.location,
        layout: match store.get::<String>("layout")?.as_str() {
            "sealed" => LayoutKind::Sealed,
            "express" => LayoutKind::Express {
                user: settings.section("session", "session").get("user")?,
            },
            other => return Err(Defect(format!("layout {other}"))),
        },
        prefix: store.get("prefix")?,
        timeout: store.get("timeout")?,
        cache: CacheSettings {
            entries: cache.get("entries")?,
            staleness: cache.get("staleness")?,
            serve_stale_for: cache.get("serve_stale_for")?,
        },
    };
    Ok((settings, url.shown))
}
