//! Request targets and routes: whoever may read a target that is let through
//! meets the same route.
//!
//! ```text
//! *.example.com/admin GET,POST     a route: [=][host]path [methods] [!reject|!allow]
//! =/exact
//!                                  an empty line
//! GET /admin/../x                  method, target
//! example.com                      Host
//! ```

use cloakroom::config::value::http::route_path;
use cloakroom::policy::route::{Access, AmbiguousPaths, HostPattern, OnRefusal, Route};
use cloakroom::policy::table::Table;
use cloakroom::wire::target::{Readings, Target};
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use crate::{line, readings};

/// More would only be slower.
const MOST_ROUTES: usize = 8;

pub fn run(input: &[u8]) {
    let mut rest = input;
    let mut routes: Vec<Route> = Vec::new();
    loop {
        let (first, after) = line(rest);
        rest = after;
        if first.is_empty() {
            break;
        }
        let Some(route) = std::str::from_utf8(first).ok().and_then(route) else {
            return;
        };
        // As the configuration refuses.
        if routes.len() == MOST_ROUTES || routes.iter().any(|other| equal(other, &route)) {
            return;
        }
        routes.push(route);
    }
    let (request, rest) = line(rest);
    let (host, _) = line(rest);
    let mut words = request.splitn(2, |byte| *byte == b' ');
    let (Some(method), Some(text)) = (words.next(), words.next()) else {
        return;
    };
    let (Ok(method), Ok(uri), Ok(host)) = (
        Method::from_bytes(method),
        Uri::try_from(text),
        HeaderValue::from_bytes(host),
    ) else {
        return;
    };
    let headers = HeaderMap::from_iter([(HOST, host)]);
    let Ok(target) = Target::parse(&method, &uri, &headers, Version::HTTP_11) else {
        return;
    };
    well_formed(&target, text, &method);

    let table = Table::new(routes);
    let Ok((number, route)) = table.resolve(&target, &method) else {
        return;
    };
    let routes = table.routes();
    let meets = |path: &[u8], ignores_case| {
        readings::meets(routes, target.host(), path, &method, ignores_case)
    };
    let path = target.path().as_bytes();
    assert_eq!(meets(path, false), [number], "as it stands");
    match route.ambiguous_paths {
        AmbiguousPaths::Allow => {}
        AmbiguousPaths::Reject => {
            assert_eq!(target.readings(), Readings::One, "odd, and let through");
            same_route(&target, number, &meets);
        }
        AmbiguousPaths::SameRule => same_route(&target, number, &meets),
    }
}

/// Every reading of the target meets this route.
fn same_route(target: &Target, number: usize, meets: &dyn Fn(&[u8], bool) -> Vec<usize>) {
    let path = target.path();
    let Some(all) = readings::all(path.as_bytes()) else {
        panic!("{path:?} has too many readings, and is let through");
    };
    for reading in all {
        for ignores_case in [false, true] {
            let met = meets(&reading, ignores_case);
            assert_eq!(
                met,
                [number],
                "{path:?} read as {:?} (ignoring case: {ignores_case})",
                String::from_utf8_lossy(&reading),
            );
        }
    }
}

/// What is promised of every target that is taken.
fn well_formed(target: &Target, text: &[u8], method: &Method) {
    let sent = target.path_and_query();
    if text.starts_with(b"/") {
        // A fragment is never seen, and so neither matched nor forwarded.
        let text = text.split(|byte| *byte == b'#').next();
        assert_eq!(Some(sent.as_bytes()), text, "not the bytes that came");
    }
    assert!(sent.starts_with('/') || (sent == "*" && *method == Method::OPTIONS));
    assert!(
        sent.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    );
    assert!(*method != Method::CONNECT && *method != Method::TRACE);
    let host = target.host();
    assert!(!host.is_empty() && !host.ends_with('.'));
    assert!(!host.bytes().any(|b| b.is_ascii_uppercase() || b == b'@'));
    assert!(target.authority().starts_with(host));
    if sent.starts_with('/') {
        let again = Target::from_parts(target.authority(), sent).expect("refused when taken apart");
        assert_eq!(again.path_and_query(), sent);
        assert_eq!((again.host(), again.port()), (target.host(), target.port()));
    }
}

fn route(text: &str) -> Option<Route> {
    let mut words = text.split(' ');
    let pattern = words.next()?;
    let (exact, pattern) = match pattern.strip_prefix('=') {
        Some(pattern) => (true, pattern),
        None => (false, pattern),
    };
    let (host, path) = pattern.split_at(pattern.find('/')?);
    let host = match host {
        "" => HostPattern::Any,
        host if host.bytes().any(|b| b.is_ascii_uppercase()) => return None,
        host => match host.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') => HostPattern::Suffix(suffix.into()),
            Some(_) => return None,
            None => HostPattern::Exact(host.into()),
        },
    };
    let mut route = Route {
        host,
        path: route_path(path).ok()?,
        exact,
        methods: Vec::new(),
        access: Access::Public,
        upstream: 0,
        on_refusal: OnRefusal::Auto,
        ambiguous_paths: AmbiguousPaths::SameRule,
        body_bytes: None,
        label: String::new(),
    };
    for word in words {
        match word {
            "!reject" => route.ambiguous_paths = AmbiguousPaths::Reject,
            "!allow" => route.ambiguous_paths = AmbiguousPaths::Allow,
            methods => {
                for name in methods.split(',') {
                    route
                        .methods
                        .push(Method::from_bytes(name.as_bytes()).ok()?);
                }
            }
        }
    }
    Some(route)
}

/// Whether two routes are for the same requests, and neither is more specific.
fn equal(a: &Route, b: &Route) -> bool {
    let shared = a.methods.iter().any(|m| b.methods.contains(m))
        || a.methods.is_empty() && b.methods.is_empty();
    (&a.host, &a.path, a.exact) == (&b.host, &b.path, b.exact) && shared
}
