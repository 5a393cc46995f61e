use super::*;
use crate::policy::route::{Access, OnRefusal};
use http::{HeaderMap, HeaderValue, Uri, Version, header};
use proptest::prelude::*;

fn route(host: &str, path: &str) -> Route {
    let host = match host.strip_prefix('*') {
        Some(suffix) => HostPattern::Suffix(suffix.into()),
        None if host.is_empty() => HostPattern::Any,
        None => HostPattern::Exact(host.into()),
    };
    Route {
        label: format!("{host:?}{path}"),
        host,
        path: path.into(),
        exact: false,
        methods: Vec::new(),
        access: Access::Public,
        upstream: 0,
        on_refusal: OnRefusal::Auto,
        ambiguous_paths: AmbiguousPaths::SameRule,
        body_bytes: None,
    }
}

fn target(host: &str, path: &str) -> Target {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
    let uri: Uri = path.parse().unwrap();
    Target::parse(&Method::GET, &uri, &headers, Version::HTTP_11).unwrap()
}

fn resolve(table: &Table, host: &str, path: &str) -> Result<String, Refusal> {
    table
        .resolve(&target(host, path), &Method::GET)
        .map(|(_, route)| route.path.clone())
}

#[test]
fn prefixes_end_on_segment_boundaries() {
    let all: Vec<_> = prefixes(b"/a/b", 9).collect();
    assert_eq!(all, [b"/a/b".as_slice(), b"/a/", b"/a", b"/"]);
    let short: Vec<_> = prefixes(b"/a/b", 2).collect();
    assert_eq!(short, [b"/a".as_slice(), b"/"]);
    let table = Table::new(vec![route("", "/"), route("", "/admin")]);
    for (path, expected) in [
        ("/admin", "/admin"),
        ("/admin/", "/admin"),
        ("/admin/x", "/admin"),
        ("/administrator", "/"),
        ("/", "/"),
        ("/x?/admin", "/"),
    ] {
        assert_eq!(
            resolve(&table, "h", path).as_deref(),
            Ok(expected),
            "{path}"
        );
    }
}

#[test]
fn an_exact_host_comes_before_a_suffix_and_that_before_any() {
    let table = Table::new(vec![
        route("", "/"),
        route("*.example.com", "/s"),
        route("*.b.example.com", "/s/b"),
        route("a.example.com", "/e"),
    ]);
    assert_eq!(resolve(&table, "a.example.com", "/e").as_deref(), Ok("/e"));
    assert_eq!(resolve(&table, "a.example.com", "/s").as_deref(), Ok("/s"));
    assert_eq!(
        resolve(&table, "x.b.example.com", "/s/b").as_deref(),
        Ok("/s/b")
    );
    assert_eq!(resolve(&table, "example.com", "/s").as_deref(), Ok("/"));
    assert_eq!(resolve(&table, "A.Example.COM.", "/e").as_deref(), Ok("/e"));
}

#[test]
fn methods_decide_between_routes_of_one_path() {
    let mut reads = route("", "/a");
    reads.methods = vec![Method::GET];
    let table = Table::new(vec![reads, route("", "/a")]);
    let methods = |method: Method| {
        let (index, _) = table.resolve(&target("h", "/a"), &method).unwrap();
        index
    };
    assert_eq!(
        (
            methods(Method::GET),
            methods(Method::HEAD),
            methods(Method::POST)
        ),
        (0, 0, 1)
    );
}

/// A route for HEAD means it more than one for GET, which includes it.
#[test]
fn head_beside_get_has_its_own_route() {
    let (mut get, mut head) = (route("", "/a"), route("", "/a"));
    get.methods = vec![Method::GET];
    head.methods = vec![Method::HEAD];
    for routes in [[get.clone(), head.clone()], [head, get]] {
        let table = Table::new(routes.to_vec());
        let (_, found) = table.resolve(&target("h", "/a"), &Method::HEAD).unwrap();
        assert_eq!(found.methods, [Method::HEAD]);
    }
}

#[test]
fn exact_routes_cover_nothing_below() {
    let mut only = route("", "/a");
    only.exact = true;
    let table = Table::new(vec![only]);
    assert_eq!(resolve(&table, "h", "/a").as_deref(), Ok("/a"));
    assert_eq!(resolve(&table, "h", "/a/"), Err(Refusal::NoRoute));
    assert_eq!(resolve(&table, "h", "/a/b"), Err(Refusal::NoRoute));
}

#[test]
fn a_target_that_servers_read_differently_is_refused_only_where_it_matters() {
    let table = Table::new(vec![
        route("", "/"),
        route("", "/admin"),
        route("", "/files"),
    ]);
    for path in [
        "/x/../admin",
        "/%61dmin",
        "/%2561dmin",
        "//admin",
        "/x/%2e%2e/admin",
        "/ADMIN",
        "/files/..%2fadmin",
        "/x/..;/admin",
        "/admin;a=b",
        "/files/%5c..%5cadmin",
        "/.//admin",
    ] {
        assert_eq!(
            resolve(&table, "h", path),
            Err(Refusal::BadRequestTarget),
            "{path}"
        );
    }
    for path in [
        "/files/a%2Fb",
        "/files/a;b",
        "/files//c",
        "/files/./d",
        "/files/%C3%BC",
        "/X",
    ] {
        assert!(resolve(&table, "h", path).is_ok(), "{path}");
    }
    let single = Table::new(vec![route("", "/")]);
    for path in ["/x/../admin", "//admin", "/..;/x", "/%252e%252e/"] {
        assert_eq!(resolve(&single, "h", path).as_deref(), Ok("/"), "{path}");
    }
}

/// Looked up byte by byte and prefix by prefix, this would take minutes.
#[test]
fn a_path_full_of_slashes_costs_no_more_than_its_length() {
    let table = Table::new(vec![route("", "/"), route("", "/pub")]);
    let long = format!("/pub{}", "/A".repeat(30_000));
    assert_eq!(resolve(&table, "h", &long).as_deref(), Ok("/pub"));
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        let _ = table.find("h", long.as_bytes(), &Method::GET, Case::Folded);
    }
    // A linear look-up takes a tenth of this in a debug build; a quadratic one
    // a thousand times as long.
    assert!(begun.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn case_counts_for_servers_that_ignore_it() {
    let table = Table::new(vec![route("", "/"), route("", "/Admin")]);
    assert_eq!(resolve(&table, "h", "/Admin").as_deref(), Ok("/Admin"));
    assert_eq!(
        resolve(&table, "h", "/admin"),
        Err(Refusal::BadRequestTarget)
    );
}

#[test]
fn reject_and_allow_override_the_comparison() {
    let mut reject = route("", "/");
    reject.ambiguous_paths = AmbiguousPaths::Reject;
    let table = Table::new(vec![reject]);
    assert_eq!(
        resolve(&table, "h", "/a//b"),
        Err(Refusal::BadRequestTarget)
    );
    let mut allow = route("", "/");
    allow.ambiguous_paths = AmbiguousPaths::Allow;
    let table = Table::new(vec![allow, route("", "/admin")]);
    assert_eq!(resolve(&table, "h", "/x/../admin").as_deref(), Ok("/"));
}

proptest! {
    /// One rule, two rules or a thousand: what a path meets does not depend on
    /// how many routes stand beside it.
    #[test]
    fn more_routes_change_nothing(segments in proptest::collection::vec("[a-c]{1,2}", 0..4)) {
        let path = format!("/{}", segments.join("/"));
        let mut routes = vec![route("", "/"), route("", "/a"), route("", "/a/b")];
        let few = resolve(&Table::new(routes.clone()), "h", &path);
        routes.extend((0..1000).map(|n| route("", &format!("/other{n}/x"))));
        prop_assert_eq!(few, resolve(&Table::new(routes), "h", &path));
    }
}
