//! `[cors]`: pages of other origins.

use http::{HeaderName, HeaderValue, Method};

use crate::config::problem::Problem;
use crate::config::settings::{At, CorsOrigin, Defect, PublicUrl, Settings};
use crate::wire::cookie::{CookieSpec, SameSite};
use crate::wire::cors::Cors;

/// Compiles the section, and checks that a cookie would come along where it is
/// meant to.
pub fn compile(
    settings: &Settings,
    cookie: &CookieSpec,
    public: Option<&PublicUrl>,
    problems: &mut Vec<Problem>,
) -> Result<Cors, Defect> {
    let cors = settings.section("cors", "cors");
    let origins: Vec<At<CorsOrigin>> = cors.get("origins")?;
    let credentials: bool = cors.get("credentials")?;
    let any = origins
        .iter()
        .find(|at| matches!(at.value, CorsOrigin::Any));
    if let Some(any) = any.filter(|_| credentials) {
        problems.push(
            Problem::error(&any.place, "every origin, with credentials")
                .why("any web page could then act and read with the session of a visitor who opens it; browsers refuse it")
                .help("list the origins, or write `credentials = false`"),
        );
    }
    if credentials && cookie.same_site != SameSite::None {
        for at in &origins {
            if let CorsOrigin::One(origin) = &at.value {
                check_site(origin, &at.place, public, problems);
            }
        }
    }
    let methods: Vec<At<Method>> = cors.get("methods")?;
    let headers: Vec<At<HeaderName>> = cors.get("headers")?;
    let expose: Vec<At<HeaderName>> = cors.get("expose")?;
    Ok(Cors {
        any: any.is_some(),
        origins: origins
            .into_iter()
            .filter_map(|at| match at.value {
                CorsOrigin::One(url) => Some(url.origin),
                CorsOrigin::Any => None,
            })
            .collect(),
        credentials,
        methods: list(methods.iter().map(|at| at.value.as_str())),
        headers: list(headers.iter().map(|at| at.value.as_str())),
        expose: list(expose.iter().map(|at| at.value.as_str())),
        max_age: cors.get("max_age")?,
        forward: cors.get::<String>("preflight")? == "forward",
    })
}

/// A cookie with `SameSite=Lax` or `Strict` does not come along with requests
/// that scripts of another site make.
fn check_site(
    origin: &PublicUrl,
    place: &crate::config::problem::Place,
    public: Option<&PublicUrl>,
    problems: &mut Vec<Problem>,
) {
    let why = "browsers do not send the session cookie with such requests unless it has SameSite=None, so every one of them would be anonymous";
    let help = "set session.cookie.same_site = \"none\" (with secure), or serve both from one site";
    match public {
        Some(public) if !same_site(origin, public) => problems.push(
            Problem::error(
                place,
                format!("{} is another site than {}", origin.text, public.text),
            )
            .why(why)
            .help(help),
        ),
        Some(_) => {}
        None => problems.push(
            Problem::warning(
                place,
                format!("{} may be another site than ours", origin.text),
            )
            .why(why)
            .help("set server.public_url, so that this can be checked"),
        ),
    }
}

/// Same scheme and same registrable domain ("schemeful same-site"). Hosts
/// without one, such as `localhost`, are sites of their own.
fn same_site(a: &PublicUrl, b: &PublicUrl) -> bool {
    let site = |url: &PublicUrl| {
        let known = psl::domain(url.host.as_bytes())
            .filter(|domain| domain.suffix().is_known())
            .map(|domain| domain.as_bytes().to_vec());
        known.unwrap_or_else(|| url.host.clone().into_bytes())
    };
    a.https == b.https && site(a) == site(b)
}

/// One field value of all of them. Methods and field names are tokens, which
/// every value can hold.
fn list<'a>(items: impl Iterator<Item = &'a str>) -> HeaderValue {
    let joined = items.collect::<Vec<_>>().join(", ");
    HeaderValue::from_str(&joined).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::net;

    #[test]
    fn sites_are_registrable_domains_with_a_scheme() {
        let same = |a, b| same_site(&net::origin(a).unwrap(), &net::origin(b).unwrap());
        assert!(same(
            "https://app.example.com",
            "https://api.example.com:8443"
        ));
        assert!(same("http://localhost:5173", "http://localhost:8080"));
        assert!(!same("https://a.example.co.uk", "https://b.other.co.uk"));
        assert!(!same("https://a.github.io", "https://b.github.io"));
        assert!(!same("http://app.example.com", "https://app.example.com"));
    }
}
