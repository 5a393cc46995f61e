//! The listening side: `[server]`, `[server.limits]`, `[trust]`, `[admin]`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::base::rate::Rate;
use crate::config::compiled::AdminSettings;
use crate::config::problem::Problem;
use crate::config::settings::{At, Defect, Network, PublicUrl, Settings};
use crate::server::settings::{
    CertificateFiles, ListenAddress, ServerSettings, TlsSettings, TlsVersion,
};
use crate::wire::client::{ForwardingHeader, Trust};

/// `[server]` and `[trust]`, compiled.
pub struct Edge {
    /// `[server]`.
    pub server: ServerSettings,
    /// `server.limits.requests_per_ip`.
    pub requests_per_ip: Option<Rate>,
    /// `server.limits.tunnel_idle_timeout`.
    pub tunnel_idle_timeout: Duration,
    /// `[trust]`.
    pub trust: Trust,
    /// Whether anybody is trusted, or was meant to be.
    pub trusts: bool,
}

/// Compiles the listening side.
pub fn compile(settings: &Settings, problems: &mut Vec<Problem>) -> Result<Edge, Defect> {
    let server = settings.section("server", "server");
    let limits = settings.section("server.limits", "server.limits");
    let listen = listen(settings, problems)?;
    let (trust, trusts) = trust(settings, problems)?;
    let tls = tls(settings, &listen, problems)?;
    let proxy_protocol: bool = server.get("proxy_protocol")?;
    if proxy_protocol && !trusts {
        problems.push(
            Problem::error(
                &server.place("proxy_protocol"),
                "`proxy_protocol = true` has no effect",
            )
            .why("PROXY headers are taken from trusted proxies only, and there are none")
            .help("name them in trust.proxies, as in proxies = [\"10.0.0.0/8\"]"),
        );
    }
    let wants_tls = settings.has_section("server.tls");
    if !server.is_faulty("listen") && !trusts && !wants_tls && !server.is_set("public_url") {
        warn_of_plaintext(settings, &listen, problems);
    }
    Ok(Edge {
        server: ServerSettings {
            listen,
            tls,
            proxy_protocol,
            workers: server.get("workers")?,
            http2: server.get("http2")?,
            drain_delay: server.get("drain_delay")?,
            drain_timeout: server.get("drain_timeout")?,
            header_timeout: limits.get("header_timeout")?,
            idle_timeout: limits.get("idle_timeout")?,
            body_idle_timeout: limits.get("body_idle_timeout")?,
            header_bytes: limits.get("header_bytes")?,
            header_count: limits.get("header_count")?,
            connections: limits.get("connections")?,
        },
        requests_per_ip: limits.get("requests_per_ip")?,
        tunnel_idle_timeout: limits.get("tunnel_idle_timeout")?,
        trust,
        trusts,
    })
}

/// `[server.tls]`; `None` where it is absent, or has no certificate, which is
/// reported.
fn tls(
    settings: &Settings,
    listen: &[ListenAddress],
    problems: &mut Vec<Problem>,
) -> Result<Option<TlsSettings>, Defect> {
    if !settings.has_section("server.tls") {
        return Ok(None);
    }
    let tls = settings.section("server.tls", "server.tls");
    let list = "server.tls.certificates";
    let mut certificates = Vec::new();
    for number in settings.names(list) {
        let pattern = "server.tls.certificates[]";
        let one = settings.section(&format!("{list}[{}]", number.value), pattern);
        let file = |name| one.optional::<Option<PathBuf>>(name).map(Option::flatten);
        let (cert, key) = (file("cert")?, file("key")?);
        for (name, file) in [("cert", &cert), ("key", &key)] {
            if file.is_none() && !one.is_faulty(name) {
                problems.push(
                    Problem::error(&one.place, format!("this certificate has no `{name}`"))
                        .help("write { cert = \"tls/fullchain.pem\", key = \"tls/privkey.pem\" }"),
                );
            }
        }
        if let (Some(cert), Some(key)) = (cert, key) {
            certificates.push(CertificateFiles { cert, key });
        }
    }
    if settings.names(list).is_empty() && !settings.has_section(list) {
        problems.push(
            Problem::error(&tls.place, "[server.tls] has no certificate").help(
                "write certificates = [ { cert = \"tls/fullchain.pem\", key = \"tls/privkey.pem\" } ]",
            ),
        );
    } else if settings.names(list).is_empty() {
        problems.push(
            Problem::error(&settings.section(list, "server.tls").place, "there is no certificate")
                .help("write certificates = [ { cert = \"tls/fullchain.pem\", key = \"tls/privkey.pem\" } ]"),
        );
    }
    let redirect_http = tls
        .optional::<Option<SocketAddr>>("redirect_http")?
        .flatten();
    if let Some(address) = redirect_http
        && let Some(other) = listen
            .iter()
            .filter_map(ListenAddress::tcp)
            .find(|other| collide(*other, address))
    {
        problems.push(
            Problem::error(
                &tls.place("redirect_http"),
                format!("redirect_http {address} collides with the listener {other}"),
            )
            .why("the one speaks plaintext and the other TLS")
            .help(
                "give one of the two another port, such as \"0.0.0.0:80\" beside \"0.0.0.0:443\"",
            ),
        );
    }
    let server = settings.section("server", "server");
    let public: Option<PublicUrl> = server.optional("public_url")?;
    let public_port = public
        .as_ref()
        .filter(|public| public.https)
        .map(|public| public.origin.port.unwrap_or(443));
    let min_version = match tls.get::<String>("min_version")?.as_str() {
        "1.2" => TlsVersion::Tls12,
        "1.3" => TlsVersion::Tls13,
        other => return Err(Defect(format!("server.tls.min_version {other}"))),
    };
    Ok((!certificates.is_empty()).then_some(TlsSettings {
        certificates,
        min_version,
        http2: server.get("http2")?,
        client_ca: tls.optional::<Option<PathBuf>>("client_ca")?.flatten(),
        redirect_http,
        public_port,
        hsts: tls.get("hsts")?,
    }))
}

fn listen(settings: &Settings, problems: &mut Vec<Problem>) -> Result<Vec<ListenAddress>, Defect> {
    let server = settings.section("server", "server");
    let given: Vec<At<ListenAddress>> = server.get("listen")?;
    let mut addresses: Vec<ListenAddress> = Vec::with_capacity(given.len());
    for at in given {
        let other = addresses.iter().find(|other| match (other, &at.value) {
            (ListenAddress::Tcp(other), ListenAddress::Tcp(address)) => collide(*other, *address),
            (other, address) => *other == address,
        });
        if let Some(other) = other {
            let problem = Problem::error(
                &at.place,
                format!("{} and {other} cannot both be listened on", at.value),
            );
            problems.push(match other {
                ListenAddress::Tcp(_) => problem
                    .why("they take the same port of the same address")
                    .help("remove one of the two, or give it another port"),
                ListenAddress::Unix(_) => problem.help("remove one of the two"),
            });
        }
        addresses.push(at.value);
    }
    if addresses.is_empty() && !server.is_faulty("listen") {
        problems.push(
            Problem::error(&server.place("listen"), "there is no address to listen on")
                .help("write listen = [\"127.0.0.1:8080\"]"),
        );
    }
    Ok(addresses)
}

/// Whether the second of two listeners could not be bound.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |x: IpAddr, y: IpAddr| x.is_unspecified() && (x.is_ipv4() == y.is_ipv4());
    a.port() != 0
        && a.port() == b.port()
        && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

fn trust(settings: &Settings, problems: &mut Vec<Problem>) -> Result<(Trust, bool), Defect> {
    let trust = settings.section("trust", "trust");
    let given: Vec<At<Network>> = trust.get("proxies")?;
    let mut proxies = Vec::new();
    let mut unix = false;
    for at in given {
        match at.value {
            Network::Unix => unix = true,
            Network::Nets(nets) => {
                for net in nets {
                    if net.prefix_len() == 0 {
                        problems.push(
                            Problem::warning(&at.place, format!("{net} trusts everybody"))
                                .why("any client can then choose the address and scheme that Cloakroom believes")
                                .help("name the networks of your proxies only, such as \"private\""),
                        );
                    }
                    proxies.push(net);
                }
            }
        }
    }
    let trusts = !proxies.is_empty() || unix || trust.is_faulty("proxies");
    let host: bool = trust.get("host")?;
    if host && !trusts {
        problems.push(
            Problem::warning(&trust.place("host"), "`host = true` has no effect")
                .why("X-Forwarded-Host is believed from trusted proxies only, and there are none")
                .help("name them, as in proxies = [\"private\"]"),
        );
    }
    let header = match trust.get::<String>("header")?.as_str() {
        "x-forwarded-for" => ForwardingHeader::XForwardedFor,
        "forwarded" => ForwardingHeader::Forwarded,
        other => return Err(Defect(format!("trust.header {other}"))),
    };
    let trust = Trust {
        proxies,
        unix,
        header,
        host,
    };
    Ok((trust, trusts))
}

fn warn_of_plaintext(settings: &Settings, listen: &[ListenAddress], problems: &mut Vec<Problem>) {
    let mut addresses = listen.iter().filter_map(ListenAddress::tcp);
    let Some(address) = addresses.find(|address| !address.ip().is_loopback()) else {
        return;
    };
    problems.push(
        Problem::warning(
            &settings.section("server", "server").place("listen"),
            format!("{address} is reached from elsewhere over plain http, and nothing says that browsers use https"),
        )
        .why("session cookies are then set without `Secure`, and a proxy in front is not believed")
        .help("name the proxy that ends TLS in trust.proxies, such as [\"private\"], or set server.public_url to the address in the browser"),
    );
}

/// The addresses that the public listeners take.
fn taken(server: &ServerSettings) -> impl Iterator<Item = SocketAddr> {
    let redirect = server.tls.as_ref().and_then(|tls| tls.redirect_http);
    server
        .listen
        .iter()
        .filter_map(ListenAddress::tcp)
        .chain(redirect)
}

/// Compiles `[admin]`.
pub fn admin(
    settings: &Settings,
    public: &ServerSettings,
    problems: &mut Vec<Problem>,
) -> Result<AdminSettings, Defect> {
    let admin = settings.section("admin", "admin");
    let listen: Option<SocketAddr> = admin.get("listen")?;
    if let Some(address) = listen {
        let place = admin.place("listen");
        if let Some(other) = taken(public).find(|other| collide(*other, address)) {
            problems.push(
                Problem::error(
                    &place,
                    format!("admin.listen {address} collides with the public listener {other}"),
                )
                .why("health and metrics are never served in public")
                .help("give one of the two another port"),
            );
        } else if !address.ip().is_loopback() {
            problems.push(
                Problem::warning(&place, format!("health and metrics on {address} can be reached from elsewhere, without a login"))
                    .help("listen on 127.0.0.1, or make sure that a firewall or network policy guards this port"),
            );
        }
    }
    let needs: Vec<At<String>> = admin.get("ready_requires")?;
    let needs = |word: &str| needs.iter().any(|at| at.value == word);
    Ok(AdminSettings {
        listen,
        ready_requires_store: needs("store"),
        ready_requires_upstream: needs("upstream"),
        control: super::control::compile(settings, &admin.get::<String>("control")?)?,
    })
}
