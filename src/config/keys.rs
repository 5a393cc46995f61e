//! The table of every key: its place, type, default, meaning and availability.
//!
//! One row drives the detection of unknown keys, the check of types and
//! values, the environment's overrides, the JSON Schema and the reference in
//! `docs/configuration.md`.

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// An integer from … to ….
    Integer(i64, i64),
    /// Any string; control characters are refused.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// `"auto"`, `true` or `false`.
    Secure,
    /// `"30s"`, `"500ms"`, `"24h"`, `"7d"`; the least is given in milliseconds.
    Duration(u64),
    /// `"64KiB"`, `"1MB"`; whether `"none"` is allowed.
    Size(bool),
    /// `"host:port"` or `"unix:/path"`.
    Listen,
    /// `"host:port"`.
    Address,
    /// `"host:port"` or `"off"`.
    ListenOrOff,
    /// `"none"`, `"100/s"`, `"1000/m"`.
    Rate,
    /// A CIDR, an address, or `"loopback"`, `"private"`, `"unix"`.
    Network,
    /// `"https://app.example.com"`.
    Origin,
    /// The same, or `*`.
    OriginOrAny,
    /// `"http://host:port"`, also `https`, `h2c`, `unix:`.
    Upstream,
    /// `"preserve"`, `"upstream"` or a literal host.
    UpstreamHost,
    /// `"app.example.com"` or `"*.example.com"`.
    HostPattern,
    /// The path of a route.
    RoutePath,
    /// `endpoints.prefix`.
    Prefix,
    /// The path of the session cookie.
    CookiePath,
    /// The name of the session cookie.
    CookieName,
    /// `"none"` or a domain.
    CookieDomain,
    /// A path beginning with `/`, or an http(s) URL.
    Location,
    /// A host, with a port where it is not the scheme's own.
    Host,
    /// A method (RFC 9110 section 9).
    Method,
    /// A field name (RFC 9110 section 5.1).
    Header,
    /// A dotted path in the session record.
    RecordPath,
    /// A file or folder, relative to the folder of the configuration.
    File,
    /// A secret: a string, `{ env = … }` or `{ file = … }`.
    Secret,
    /// The store's URL, which may be given as a secret is.
    Store,
    /// The beginning of the names of session keys.
    StorePrefix,
    /// A list of these.
    List(&'static Kind),
}

/// Whether this version can do what the key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// All of it.
    Now,
    /// Only these values, written as in TOML, and the default. An empty list:
    /// the key is there for later versions.
    Only(&'static [&'static str]),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it stands: sections separated by dots; `*` is any name, `[]`
    /// marks an array of tables.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds without it, written as in TOML; `None`: nothing does.
    pub default: Option<&'static str>,
    /// What it means, in one sentence or two.
    pub doc: &'static str,
    /// Whether this version has it.
    pub availability: Availability,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        default: Some(default),
        doc,
        availability: Availability::Now,
    }
}

impl Key {
    const fn only(mut self, values: &'static [&'static str]) -> Self {
        self.availability = Availability::Only(values);
        self
    }

    const fn later(self) -> Self {
        self.only(&[])
    }

    const fn no_default(mut self) -> Self {
        self.default = None;
        self
    }

    /// The section's path and the key's own name.
    pub fn split(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}

/// A section of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Where it stands, as in [`Key::path`].
    pub path: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Whether its mere presence asks for something that this version lacks.
    pub later: bool,
}

const fn section(path: &'static str, doc: &'static str) -> Section {
    Section {
        path,
        doc,
        later: false,
    }
}

impl Section {
    const fn later(mut self) -> Self {
        self.later = true;
        self
    }
}

/// Every section, in the order in which it is documented.
#[rustfmt::skip]
pub const SECTIONS: &[Section] = &[
    section("server", "The listening side."),
    section("server.tls", "TLS on the listeners that have a port; Unix sockets stay plaintext. Absent: plaintext."),
    section("server.tls.certificates[]", "A certificate and its key; the name that the client asks for (SNI) picks one, and the first is for all other names. Read again when the files change."),
    section("server.limits", "Limits of connections and requests."),
    section("trust", "Whose forwarding headers are believed."),
    section("upstreams", "The applications, by name. The only one is the default of every route."),
    section("upstreams.*", "One application."),
    section("upstreams.*.health", "Active health checks. Absent: none."),
    section("upstreams.*.tls", "For `https` upstreams."),
    section("upstreams.*.tls.client", "The certificate that is shown to the upstream."),
    section("routes[]", "Which requests are covered, who may pass, where they go. The most specific wins: exact host before any host, longest path, then methods. Where no route matches the answer is 404. A file without any route gets one for everything, with `access = \"login\"`."),
    section("session", "Sessions and when they end."),
    section("session.cookie", "The session cookie."),
    section("store", "Where sessions are kept."),
    section("store.cache", "The local cache in front of the store."),
    section("endpoints", "The paths that Cloakroom answers itself."),
    section("login", "Signing in."),
    section("login.throttle", "Limits for failed sign-ins."),
    section("login.methods[]", "Who says whether a password is right. Asked in this order."),
    section("identity", "What the application is told of the visitor."),
    section("identity.headers", "Header = path in the session record. These names are always removed from requests first, in every spelling. A table here replaces the default one whole."),
    section("identity.assertion", "A signed statement (JWT) of the identity. Absent: none.").later(),
    section("cors", "Cross-origin requests."),
    section("csrf", "Requests that other sites make with a visitor's cookie."),
    section("admin", "Health and metrics, on a listener of their own."),
    section("log", "The log and the access log, on standard output."),
    section("telemetry", "Traces."),
];

/// What `identity.headers` is where the table is absent.
pub const DEFAULT_IDENTITY: &[(&str, &str)] = &[
    ("X-User-Id", "userId"),
    ("X-User-Email", "email"),
    ("X-User-Roles", "roles"),
];

const ACCESS: &[&str] = &["public", "optional", "login", "deny"];
const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];
const METHOD_KINDS: &[&str] = &["users_file", "endpoint", "app_response"];

/// The table, in the order in which it is documented.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("server.listen", Kind::List(&Kind::Listen), r#"["127.0.0.1:8080"]"#,
        "Where to listen: `\"address:port\"`, or `\"unix:/path\"` (mode 0660); several allowed. Port 0 takes a free port."),
    key("server.workers", Kind::Integer(0, 1024), "0", "Worker threads. 0: one per CPU."),
    key("server.http2", Kind::Boolean, "true", "HTTP/2: by ALPN on TLS, with prior knowledge on plaintext."),
    key("server.proxy_protocol", Kind::Boolean, "false", "Requires the PROXY protocol (v1 or v2) from trusted proxies and refuses it from anyone else."),
    key("server.drain_delay", Kind::Duration(0), r#""0s""#, "After SIGTERM readiness fails for this long while requests are still served."),
    key("server.drain_timeout", Kind::Duration(0), r#""30s""#, "Then requests and connections have this long to finish."),
    key("server.replicas_expected", Kind::Integer(1, 10_000), "1", "How many replicas share the sessions. More than one: a store that cannot be shared is an error."),
    key("server.public_url", Kind::Origin, "", "The scheme and host as browsers see them, such as `\"https://app.example.com\"`. Absent: learnt from each request.").no_default(),

    key("server.tls.certificates[].cert", Kind::File, "", "The certificate chain (PEM).").no_default(),
    key("server.tls.certificates[].key", Kind::File, "", "Its private key (PEM).").no_default(),
    key("server.tls.min_version", Kind::Word(&["1.2", "1.3"]), r#""1.2""#, "The oldest TLS version."),
    key("server.tls.client_ca", Kind::File, "", "Clients must show a certificate of this authority (PEM).").no_default(),
    key("server.tls.redirect_http", Kind::Address, "", "A plaintext listener that sends GET and HEAD to https and refuses the rest.").no_default(),
    key("server.tls.hsts", Kind::Duration(0), r#""0s""#, "`Strict-Transport-Security` on secure responses; `\"0s\"`: not sent."),

    key("server.limits.header_timeout", Kind::Duration(1), r#""10s""#, "The longest that a whole request head may take."),
    key("server.limits.idle_timeout", Kind::Duration(1), r#""75s""#, "How long a connection may wait for its next request."),
    key("server.limits.body_idle_timeout", Kind::Duration(1), r#""30s""#, "The longest pause in a body, in either direction. Not for upgraded connections."),
    key("server.limits.tunnel_idle_timeout", Kind::Duration(1), r#""1h""#, "The longest silence on a WebSocket or another upgraded connection."),
    key("server.limits.header_bytes", Kind::Size(false), r#""64KiB""#, "The largest request head."),
    key("server.limits.header_count", Kind::Integer(1, 10_000), "100", "The most fields in a request head."),
    key("server.limits.body_bytes", Kind::Size(true), r#""none""#, "The largest request body; over it the answer is 413. Can be set per route."),
    key("server.limits.connections", Kind::Integer(1, 1_000_000), "10000", "Connections at once."),
    key("server.limits.requests_per_ip", Kind::Rate, r#""none""#, "Requests of one client address (IPv6: of one /64 network) in a time, such as `\"100/s\"` or `\"1000/m\"`; over it the answer is 429."),

    key("trust.proxies", Kind::List(&Kind::Network), "[]", "The proxies whose forwarding headers are believed: CIDRs, addresses, or the words `\"loopback\"`, `\"private\"` (RFC 1918 and RFC 4193), `\"unix\"`. Nobody is trusted until named."),
    key("trust.header", Kind::Word(&["x-forwarded-for", "forwarded"]), r#""x-forwarded-for""#, "Which header they write: `\"x-forwarded-for\"` or `\"forwarded\"` (RFC 7239)."),
    key("trust.host", Kind::Boolean, "false", "Whether `X-Forwarded-Host` is believed for our own origin. Never used for routing."),

    key("upstreams.*.urls", Kind::List(&Kind::Upstream), "", "Where the application is, such as `[\"http://127.0.0.1:3000\"]`; several are shared out. `http://`, `https://` (HTTP/2 or HTTP/1.1, as the application chooses; its certificate is always verified), `h2c://` (HTTP/2 in the clear) or `unix:/path` (HTTP/1.1).").no_default(),
    key("upstreams.*.balance", Kind::Word(&["least_requests", "round_robin"]), r#""least_requests""#, "How requests are spread over several URLs: `\"least_requests\"` (where the fewest are in flight) or `\"round_robin\"`. One that accepts no connection or keeps failing is left out for a while, 1 s at first and 60 s at most."),
    key("upstreams.*.host", Kind::UpstreamHost, r#""preserve""#, "The `Host` that the application gets: `\"preserve\"` (what the client asked for), `\"upstream\"` (the upstream's own address) or a literal."),
    key("upstreams.*.connect_timeout", Kind::Duration(1), r#""2s""#, "The longest that making a connection may take."),
    key("upstreams.*.response_timeout", Kind::Duration(1), r#""60s""#, "The longest wait for the head of the response."),
    key("upstreams.*.retries", Kind::Integer(0, 10), "1", "How often a request is sent again, elsewhere or on a fresh connection, if it cannot have been acted on; or if it is a GET, HEAD, OPTIONS, PUT or DELETE without a body, and a kept connection ended before any answer."),
    key("upstreams.*.pool_idle", Kind::Integer(0, 100_000), "64", "Idle connections kept per address and worker."),
    key("upstreams.*.pool_idle_timeout", Kind::Duration(0), r#""4s""#, "How long an idle connection is kept. Must be below the application's own keep-alive (5 s in Node.js)."),
    key("upstreams.*.health.path", Kind::RoutePath, r#""/healthz""#, "The path that is asked. 2xx and 3xx are healthy; two failures in a row are not."),
    key("upstreams.*.health.interval", Kind::Duration(100), r#""5s""#, "How often each address is asked. An answer has to come within this time, and within 5 s."),
    key("upstreams.*.tls.ca", Kind::File, "", "The authorities that may sign the upstream's certificate (PEM). Absent: those that the system trusts.").no_default(),
    key("upstreams.*.tls.server_name", Kind::Text, "", "The name that its certificate must hold. Absent: the host of the URL.").no_default(),
    key("upstreams.*.tls.client.cert", Kind::File, "", "The certificate chain (PEM).").no_default(),
    key("upstreams.*.tls.client.key", Kind::File, "", "Its private key (PEM).").no_default(),

    key("routes[].host", Kind::HostPattern, "", "The host, such as `\"app.example.com\"` or `\"*.example.com\"`, without a port. Absent: any.").no_default(),
    key("routes[].path", Kind::RoutePath, r#""/""#, "The path as a prefix on segment boundaries: `/admin` covers `/admin` and `/admin/x`, not `/administrator`."),
    key("routes[].exact", Kind::Boolean, "false", "Whether the path must match whole."),
    key("routes[].methods", Kind::List(&Kind::Method), "[]", "The methods, in capitals. Empty: all."),
    key("routes[].access", Kind::Word(ACCESS), r#""login""#, "Who may pass: `\"public\"` (everybody, no identity is sent), `\"optional\"` (everybody, with the identity where there is one), `\"login\"` or `\"deny\"`."),
    key("routes[].roles", Kind::List(&Kind::Text), "[]", "Any of these is needed beside the login. Needs `access = \"login\"`."),
    key("routes[].upstream", Kind::Text, "", "The name of an upstream. Absent: the only one.").no_default(),
    key("routes[].on_refusal", Kind::Word(&["auto", "status", "login"]), r#""auto""#, "What those who are not signed in get: `\"auto\"` (browsers that navigate are sent to the login page, everything else gets the status), `\"status\"` or `\"login\"`."),
    key("routes[].ambiguous_paths", Kind::Word(&["same_rule", "reject", "allow"]), r#""same_rule""#, "Targets that servers may read differently: forwarded untouched if every reading meets the same rule, always refused, or always forwarded."),
    key("routes[].body_bytes", Kind::Size(true), "", "The largest request body. Absent: `server.limits.body_bytes`.").no_default(),

    key("session.secrets", Kind::List(&Kind::Secret), "", "The first signs, all verify; at least 32 bytes each. To change it without signing anybody out: add the new one at the end, everywhere; then put it first; after `absolute_timeout` remove the old one.").no_default(),
    key("session.idle_timeout", Kind::Duration(1000), r#""24h""#, "A session that is not used for this long ends."),
    key("session.absolute_timeout", Kind::Duration(1000), r#""7d""#, "A session ends this long after its login, however much it is used."),
    key("session.touch_interval", Kind::Duration(0), r#""60s""#, "At most one store write per session in this time; never more than a tenth of `idle_timeout`, whatever stands here."),
    key("session.max_per_user", Kind::Integer(0, 10_000), "0", "Sessions of one user at once; at a login the oldest are ended. 0: no limit."),
    key("session.user", Kind::RecordPath, r#""userId""#, "Where the user id is in the session record; a dotted path, such as `\"passport.user\"`."),
    key("session.roles", Kind::RecordPath, r#""roles""#, "Where the roles are in the session record; a dotted path."),
    key("session.share_with_app", Kind::Boolean, "false", "Whether the application reads and writes the same record and cookie. Needs `store.layout = \"express\"`."),

    key("session.cookie.name", Kind::CookieName, r#""cloakroom.sid""#, "Its name. With `__Host-` in front, browsers refuse copies that other hosts plant."),
    key("session.cookie.path", Kind::CookiePath, r#""/""#, "Its path."),
    key("session.cookie.domain", Kind::CookieDomain, r#""none""#, "Its domain. `\"none\"`: only the host that set it gets it back."),
    key("session.cookie.same_site", Kind::Word(&["strict", "lax", "none"]), r#""lax""#, "`SameSite`."),
    key("session.cookie.secure", Kind::Secure, r#""auto""#, "`Secure`: `\"auto\"` as the browser's connection is, `true` or `false`."),
    key("session.cookie.persistent", Kind::Boolean, "true", "Whether the cookie outlives the browser, until the session's absolute end."),
    key("session.cookie.partitioned", Kind::Boolean, "false", "`Partitioned`: one cookie per embedding site."),

    key("store.url", Kind::Store, r#""file:./cloakroom-data""#, "`\"file:FOLDER\"` (embedded, survives restarts), `\"memory:\"` (gone with the process), Redis or PostgreSQL: `\"redis://[user:password@]host[:port][/database]\"`, `\"redis+unix:///PATH\"`, `\"redis+sentinel://[user:password@]host[:port],host[:port]…[/database]?master=NAME\"` (with `sentinel_user` and `sentinel_password`, if the Sentinels ask for them), `\"redis+cluster://[user:password@]host[:port],host[:port]…\"`; with `rediss` for `redis` over TLS, where `?ca=FILE` names authorities other than the system's, `cert=FILE&key=FILE` the certificate to show, and `server_name=NAME` what the servers' certificates hold instead of their hosts. PostgreSQL: `\"postgres://[user:password@]host[:port]/database[?sslmode=…]\"`, where `schema=NAME` says where the tables are, and `table=NAME` which one the application has (`\"session\"`), if `layout = \"express\"`. A URL with a password can be given as a secret is: `{ env = \"NAME\" }`."),
    key("store.layout", Kind::Word(&["sealed", "express"]), r#""sealed""#, "How a record is written: `\"sealed\"` (encrypted; the store never learns the token) or `\"express\"` (as express-session does with connect-redis or connect-pg-simple; needs Redis or PostgreSQL)."),
    key("store.prefix", Kind::StorePrefix, r#""sess:""#, "What the names of session keys begin with. A table of connect-pg-simple has none."),
    key("store.timeout", Kind::Duration(1), r#""500ms""#, "The longest that one operation may take before it counts as an outage."),
    key("store.cache.entries", Kind::Integer(0, 100_000_000), "100000", "Sessions in the local cache; 0 turns it off."),
    key("store.cache.staleness", Kind::Duration(0), r#""1s""#, "How long cached sessions are believed after the store's channel that tells of changes was last proven alive. A channel that is closed ends it at once."),
    key("store.cache.serve_stale_for", Kind::Duration(0), r#""0s""#, "While the store is down, sessions that were found alive within this time keep working; what ended meanwhile ends when it is back."),

    key("endpoints.prefix", Kind::Prefix, r#""/auth""#, "What the paths begin with that Cloakroom answers itself."),
    key("endpoints.verify_headers", Kind::Word(&["x-forwarded", "x-original"]), r#""x-forwarded""#, "Which headers name the original request at the verify endpoint.").later(),
    key("endpoints.debug", Kind::List(&Kind::Network), "[]", "Who may ask the debug endpoint. Empty: nobody.").later(),

    key("login.page", Kind::Boolean, "true", "Whether the built-in login page is served."),
    key("login.title", Kind::Text, r#""Sign in""#, "Its title."),
    key("login.templates", Kind::File, r#""none""#, "A folder with templates of your own.").later(),
    key("login.after_login", Kind::Location, r#""/""#, "Where to after signing in, where the request does not say."),
    key("login.after_logout", Kind::Location, r#""/""#, "Where to after signing out."),
    key("login.redirect_hosts", Kind::List(&Kind::Host), "[]", "Hosts that a login may return to besides our own origin, with a port where it is not the scheme's own."),
    key("login.throttle.attempts", Kind::Integer(1, 10_000), "5", "Failures per account and network before delays start.").later(),
    key("login.throttle.window", Kind::Duration(1000), r#""15m""#, "The time in which they are counted.").later(),
    key("login.throttle.hash_concurrency", Kind::Integer(1, 1024), "2", "Password hashes computed at once."),

    key("login.methods[].kind", Kind::Word(METHOD_KINDS), "", "`\"users_file\"`: a TOML or htpasswd file, read again when it changes.").no_default().only(&[r#""users_file""#]),
    key("login.methods[].path", Kind::File, "", "The users file.").no_default(),
    key("login.methods[].url", Kind::Text, "", "For `\"endpoint\"`: where the application verifies credentials.").no_default().later(),
    key("login.methods[].timeout", Kind::Duration(1), r#""5s""#, "For `\"endpoint\"`: the longest wait for the answer.").later(),
    key("login.methods[].header", Kind::Header, r#""X-Session-User""#, "For `\"app_response\"`: the response header that starts a session.").later(),

    key("identity.headers.*", Kind::RecordPath, "", "A header and the dotted path of its value in the session record; arrays are joined with `,`.").no_default(),
    key("identity.assertion.header", Kind::Header, r#""X-User-Assertion""#, "The header that carries it.").later(),
    key("identity.assertion.key", Kind::Secret, "", "The private key that signs it (Ed25519 or ES256, PEM).").no_default().later(),
    key("identity.assertion.audience", Kind::Text, "", "Its `aud` claim.").no_default().later(),
    key("identity.assertion.ttl", Kind::Duration(1000), r#""60s""#, "How long it is valid.").later(),

    key("cors.origins", Kind::List(&Kind::OriginOrAny), "[]", "Exact origins whose pages may make requests; `\"*\"` for any, without credentials."),
    key("cors.credentials", Kind::Boolean, "true", "Whether they may send the cookie."),
    key("cors.methods", Kind::List(&Kind::Method), r#"["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]"#, "The methods they may use."),
    key("cors.headers", Kind::List(&Kind::Header), r#"["content-type", "authorization", "x-requested-with"]"#, "The request headers they may send."),
    key("cors.expose", Kind::List(&Kind::Header), "[]", "The response headers they may read."),
    key("cors.max_age", Kind::Duration(0), r#""10m""#, "How long a browser may remember the answer to a preflight."),
    key("cors.preflight", Kind::Word(&["answer", "forward"]), r#""answer""#, "Whether preflights are answered, or forwarded to an application that does its own CORS."),

    key("csrf.mode", Kind::Word(&["origin", "off"]), r#""origin""#, "`\"origin\"` checks `Sec-Fetch-Site` and `Origin`; `\"off\"` is only for tests."),
    key("csrf.allow_same_site", Kind::Boolean, "false", "Whether requests from other hosts of the same site pass."),

    key("admin.listen", Kind::ListenOrOff, r#""127.0.0.1:9180""#, "The listener of `/healthz`, `/readyz` and `/metrics`; `\"off\"`: none. They are never on the public listener."),
    key("admin.ready_requires", Kind::List(&Kind::Word(&["store", "upstream"])), "[]", "What `/readyz` needs beside being started and not draining: `\"store\"`, `\"upstream\"`."),
    key("admin.control", Kind::Text, r#""auto""#, "The Unix socket (mode 0600) by which `cloakroom sessions` reaches a running proxy whose store is embedded: a path, `\"off\"`, or `\"auto\"`: `control.sock` in the folder of the store; with `memory:` a name of its own in `$RUNTIME_DIRECTORY` or `$XDG_RUNTIME_DIR`."),

    key("log.format", Kind::Word(&["auto", "text", "json"]), r#""auto""#, "`\"text\"`, `\"json\"`, or `\"auto\"`: text on a terminal, else JSON."),
    key("log.level", Kind::Word(LEVELS), r#""info""#, "The least important messages that are logged."),
    key("log.access", Kind::Boolean, "true", "Whether each request is logged."),
    key("telemetry.otlp", Kind::Text, r#""none""#, "The OTLP endpoint for traces.").later(),
];

/// The row of a path in the table's own form (`upstreams.*.urls`).
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// The row of a section's path in the table's own form.
pub fn find_section(path: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.path == path)
}

/// The names that may stand directly in a section, given in the table's form;
/// `""` is the whole file. `*` stands for any name.
pub fn names_in(section: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for key in KEYS {
        let rest = match section {
            "" => Some(key.path),
            _ => key
                .path
                .strip_prefix(section)
                .and_then(|rest| rest.strip_prefix('.')),
        };
        let Some(rest) = rest else { continue };
        let name = rest.split('.').next().unwrap_or(rest);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_path_stands_once_and_each_section_is_described() {
        let paths: HashSet<_> = KEYS.iter().map(|key| key.path).collect();
        assert_eq!(paths.len(), KEYS.len());
        for key in KEYS {
            let (section, _) = key.split();
            assert!(SECTIONS.iter().any(|row| row.path == section), "{section}");
            assert!(key.doc.ends_with('.'), "{}: {}", key.path, key.doc);
        }
    }

    #[test]
    fn names_are_those_of_one_level() {
        assert!(names_in("").contains(&"routes[]"));
        assert_eq!(names_in("upstreams"), ["*"]);
        assert_eq!(
            names_in("store.cache"),
            ["entries", "staleness", "serve_stale_for"]
        );
    }
}
