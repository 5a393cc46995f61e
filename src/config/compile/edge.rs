//! The listening side: `[server]`, `[server.limits]`, `[trust]`, `[admin]`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::compiled::AdminSettings;
use crate::config::problem::Problem;
use crate::config::settings::{At, Defect, Network, Settings};
use crate::server::settings::ServerSettings;
use crate::wire::client::{ForwardingHeader, Trust};

/// `[server]` and `[trust]`, compiled.
pub struct Edge {
    /// `[server]`.
    pub server: ServerSettings,
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
    if !server.is_faulty("listen") && !trusts && !server.is_set("public_url") {
        warn_of_plaintext(settings, &listen, problems);
    }
    Ok(Edge {
        server: ServerSettings {
            listen,
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
        tunnel_idle_timeout: limits.get("tunnel_idle_timeout")?,
        trust,
        trusts,
    })
}

fn listen(settings: &Settings, problems: &mut Vec<Problem>) -> Result<Vec<SocketAddr>, Defect> {
    let server = settings.section("server", "server");
    let given: Vec<At<Option<SocketAddr>>> = server.get("listen")?;
    let mut addresses: Vec<SocketAddr> = Vec::with_capacity(given.len());
    for at in &given {
        let Some(address) = at.value else { continue };
        if let Some(other) = addresses.iter().find(|other| collide(**other, address)) {
            problems.push(
                Problem::error(
                    &at.place,
                    format!("{address} and {other} cannot both be listened on"),
                )
                .why("they take the same port of the same address")
                .help("remove one of the two, or give it another port"),
            );
        }
        addresses.push(address);
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

fn warn_of_plaintext(settings: &Settings, listen: &[SocketAddr], problems: &mut Vec<Problem>) {
    let Some(address) = listen.iter().find(|address| !address.ip().is_loopback()) else {
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

/// Compiles `[admin]`.
pub fn admin(
    settings: &Settings,
    public: &[SocketAddr],
    problems: &mut Vec<Problem>,
) -> Result<AdminSettings, Defect> {
    let admin = settings.section("admin", "admin");
    let listen: Option<SocketAddr> = admin.get("listen")?;
    if let Some(address) = listen {
        let place = admin.place("listen");
        if let Some(other) = public.iter().find(|other| collide(**other, address)) {
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
    })
}
