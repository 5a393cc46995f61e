//! Where requests go: `[[routes]]`.

use http::Method;

use crate::config::problem::{Place, Problem};
use crate::config::settings::{At, Defect, Section, Settings};
use crate::config::suggest;
use crate::policy::route::{Access, AmbiguousPaths, HostPattern, OnRefusal, Route};
use crate::upstream::settings::UpstreamSettings;

/// Compiles `[[routes]]`; where there is none, one for everything.
pub fn compile(
    settings: &Settings,
    upstreams: &[UpstreamSettings],
    problems: &mut Vec<Problem>,
    notes: &mut Vec<String>,
) -> Result<Vec<Route>, Defect> {
    let names = settings.names("routes");
    let limit: Option<u64> = settings
        .section("server.limits", "server.limits")
        .get("body_bytes")?;
    if names.is_empty() && !settings.has_section("routes") {
        // The section does not exist, so that every key takes its default.
        let section = settings.section("routes", "routes[]");
        notes.push(
            "there are no routes in the configuration, so one covers everything and needs a login"
                .into(),
        );
        return Ok(vec![route(&section, settings, upstreams, limit, problems)?]);
    }
    if names.is_empty() && !problems.iter().any(Problem::is_error) {
        let place = settings.section("routes", "routes[]").place;
        problems.push(
            Problem::error(&place, "the list of routes is empty, so that every answer would be 404")
                .help("add one, as in [[routes]] with path = \"/\", or leave out `routes` for one that covers everything and needs a login"),
        );
    }
    let mut routes: Vec<(Route, Place)> = Vec::with_capacity(names.len());
    for name in names {
        let section = settings.section(&format!("routes[{}]", name.value), "routes[]");
        let route = route(&section, settings, upstreams, limit, problems)?;
        let faulty = ["host", "path", "methods"]
            .iter()
            .any(|key| section.is_faulty(key));
        if !faulty && let Some((other, _)) = routes.iter().find(|(other, _)| equal(other, &route)) {
            problems.push(
                Problem::error(
                    &name.place,
                    format!(
                        "route `{}` covers the same requests as route `{}`",
                        route.label, other.label
                    ),
                )
                .why("neither is more specific, so it is undecided which rule holds")
                .help("remove one of the two, or give it another host, path or methods"),
            );
        }
        routes.push((route, name.place.clone()));
    }
    Ok(routes.into_iter().map(|(route, _)| route).collect())
}

fn route(
    section: &Section<'_>,
    settings: &Settings,
    upstreams: &[UpstreamSettings],
    limit: Option<u64>,
    problems: &mut Vec<Problem>,
) -> Result<Route, Defect> {
    let host = section
        .optional::<HostPattern>("host")?
        .unwrap_or(HostPattern::Any);
    let path: String = section.get("path")?;
    let exact: bool = section.get("exact")?;
    let methods: Vec<Method> = section
        .get::<Vec<At<Method>>>("methods")?
        .into_iter()
        .map(|at| at.value)
        .collect();
    if path.len() > 1 && path.ends_with('/') && !exact {
        let short = path.trim_end_matches('/');
        problems.push(
            Problem::warning(
                &section.place("path"),
                format!("{path} does not cover {short} itself"),
            )
            .help(format!("write \"{short}\", which covers both")),
        );
    }
    let access = access(section, problems)?;
    let upstream = upstream_of(section, settings, upstreams, &access, problems)?;
    let body_bytes = match section.optional::<Option<u64>>("body_bytes")? {
        Some(own) => own,
        None => limit,
    };
    Ok(Route {
        label: label(&host, &path, exact, &methods),
        host,
        path,
        exact,
        methods,
        access,
        upstream,
        on_refusal: match section.get::<String>("on_refusal")?.as_str() {
            "auto" => OnRefusal::Auto,
            "status" => OnRefusal::Status,
            "login" => OnRefusal::Login,
            other => return Err(Defect(format!("on_refusal {other}"))),
        },
        ambiguous_paths: match section.get::<String>("ambiguous_paths")?.as_str() {
            "same_rule" => AmbiguousPaths::SameRule,
            "reject" => AmbiguousPaths::Reject,
            "allow" => AmbiguousPaths::Allow,
            other => return Err(Defect(format!("ambiguous_paths {other}"))),
        },
        body_bytes,
    })
}

fn access(section: &Section<'_>, problems: &mut Vec<Problem>) -> Result<Access, Defect> {
    let word: String = section.get("access")?;
    let roles: Vec<String> = section
        .get::<Vec<At<String>>>("roles")?
        .into_iter()
        .map(|at| at.value)
        .collect();
    if !roles.is_empty() && word != "login" {
        problems.push(
            Problem::error(
                &section.place("roles"),
                format!("`roles` has no meaning with access = \"{word}\""),
            )
            .why("only somebody who is signed in has roles")
            .help("write access = \"login\", or remove `roles`"),
        );
    }
    Ok(match word.as_str() {
        "public" => Access::Public,
        "optional" => Access::Optional,
        "login" => Access::Login { roles },
        "deny" => Access::Deny,
        other => return Err(Defect(format!("access {other}"))),
    })
}

fn upstream_of(
    section: &Section<'_>,
    settings: &Settings,
    upstreams: &[UpstreamSettings],
    access: &Access,
    problems: &mut Vec<Problem>,
) -> Result<usize, Defect> {
    let names = || upstreams.iter().map(|upstream| upstream.name.as_str());
    if let Some(name) = section.optional::<String>("upstream")? {
        if let Some(index) = names().position(|other| other == name) {
            return Ok(index);
        }
        let problem = Problem::error(
            &section.place("upstream"),
            format!("there is no upstream `{name}`"),
        );
        problems.push(match suggest::closest(&name, names()) {
            Some(meant) => problem.help(format!("did you mean `{meant}`?")),
            None if upstreams.is_empty() => problem.help(format!(
                "add [upstreams.{name}] with urls = [\"http://127.0.0.1:3000\"]"
            )),
            None => problem.help(format!("write {}", suggest::one_of(names(), '"'))),
        });
        return Ok(0);
    }
    if section.is_faulty("upstream") || upstreams.len() == 1 || *access == Access::Deny {
        return Ok(0);
    }
    let place = &section.place;
    if !upstreams.is_empty() {
        problems.push(
            Problem::error(place, "this route does not say which upstream it goes to")
                .why("there are several upstreams, so none is the default")
                .help(format!("add upstream = {}", suggest::one_of(names(), '"'))),
        );
    } else if !settings.has_section("upstreams") {
        let already = problems.iter().any(|problem| problem.what == NO_UPSTREAM);
        if !already {
            problems.push(Problem::error(place, NO_UPSTREAM).help(
                "add [upstreams.app] with urls = [\"http://127.0.0.1:3000\"], the address of your application",
            ));
        }
    } else if !problems.iter().any(Problem::is_error) {
        problems.push(
            Problem::error(
                &settings.section("upstreams", "upstreams").place,
                NO_UPSTREAM,
            )
            .help(
                "name one, as in [upstreams.app], with urls = [\"http://127.0.0.1:3000\"] below it",
            ),
        );
    }
    Ok(0)
}

const NO_UPSTREAM: &str = "there is no upstream, so there is nothing to forward to";

/// Whether two routes cover a request alike: same host and path, and the same
/// method in both lists, or no list in either.
fn equal(a: &Route, b: &Route) -> bool {
    a.host == b.host
        && a.path == b.path
        && a.exact == b.exact
        && (a.methods.is_empty() && b.methods.is_empty()
            || a.methods.iter().any(|method| b.methods.contains(method)))
}

fn label(host: &HostPattern, path: &str, exact: bool, methods: &[Method]) -> String {
    let methods: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let gap = if methods.is_empty() { "" } else { " " };
    let host = match host {
        HostPattern::Any => String::new(),
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    };
    let exact = if exact { " (exact)" } else { "" };
    format!("{}{gap}{host}{path}{exact}", methods.join(","))
}

/// Warns of routes that Cloakroom's own endpoints hide.
pub fn warn_of_shadows(
    settings: &Settings,
    routes: &[Route],
    prefix: &str,
    problems: &mut Vec<Problem>,
) {
    const OWN: [&str; 7] = [
        "login",
        "logout",
        "logout-all",
        "session",
        "sessions",
        "verify",
        "debug",
    ];
    for (index, route) in routes.iter().enumerate() {
        let own = route
            .path
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix('/'));
        if own.is_some_and(|name| OWN.contains(&name)) {
            let section = settings.section(&format!("routes[{index}]"), "routes[]");
            problems.push(
                Problem::warning(
                    &section.place("path"),
                    format!(
                        "{} is answered by Cloakroom itself, so this route is never used for it",
                        route.path
                    ),
                )
                .help("remove the route, or choose another endpoints.prefix"),
            );
        }
    }
}
