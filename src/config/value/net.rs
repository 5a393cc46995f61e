//! Addresses, networks and URLs.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::http::is_host_name;
use super::{Fault, quoted};
use crate::config::settings::{Network, PublicUrl};
use crate::server::settings::ListenAddress;
use crate::upstream::settings::{HostHeader, Place, Scheme, UpstreamAddress};
use crate::wire::client::Origin;

/// What `sockaddr_un` has room for, with its NUL.
const LONGEST_SOCKET: usize = 107;

/// Reads where to listen: an address with a port, or a Unix socket.
///
/// # Errors
///
/// It is neither.
pub fn listen(text: &str) -> Result<ListenAddress, Fault> {
    let Some(path) = text.strip_prefix("unix:") else {
        return address(text).map(ListenAddress::Tcp);
    };
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err(Fault::new(
            format!("{} is not a socket to listen on", quoted(text)),
            "write the whole path of the socket, such as \"unix:/run/cloakroom/http.sock\"",
        ));
    }
    if path.len() > LONGEST_SOCKET {
        return Err(Fault::new(
            format!("the path of a socket has {LONGEST_SOCKET} bytes at most"),
            "choose a shorter one",
        ));
    }
    Ok(ListenAddress::Unix(path.into()))
}

/// Reads an IP address with a port.
///
/// # Errors
///
/// It is none.
pub fn address(text: &str) -> Result<SocketAddr, Fault> {
    if text.starts_with("unix:") {
        return Err(Fault::new(
            "a Unix socket cannot stand here",
            "write an address and a port, such as \"127.0.0.1:8080\"",
        ));
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port = port.parse::<u16>().ok();
    let help = match (host, port) {
        ("" | "*", Some(port)) => format!("write \"0.0.0.0:{port}\" to listen on every address"),
        ("localhost", Some(port)) => format!("write \"127.0.0.1:{port}\", or \"[::1]:{port}\""),
        (host, Some(port)) if host.parse::<Ipv6Addr>().is_ok() => {
            format!("put brackets around the IPv6 address: \"[{host}]:{port}\"")
        }
        (host, None) if host.parse::<IpAddr>().is_ok() => {
            "add a port, as in \"127.0.0.1:8080\"".into()
        }
        (host, None) if host.parse::<u16>().is_ok() => {
            format!("write \"127.0.0.1:{host}\", or \"0.0.0.0:{host}\" to listen on every address")
        }
        _ => "write an IP address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"".into(),
    };
    Err(Fault::new(
        format!("{} is not an address to listen on", quoted(text)),
        help,
    ))
}

/// Reads an entry of `trust.proxies`.
///
/// # Errors
///
/// It is no network, or has bits set beyond its mask.
pub fn network(text: &str) -> Result<Network, Fault> {
    let words: &[&str] = match text {
        "unix" => return Ok(Network::Unix),
        "loopback" => &["127.0.0.0/8", "::1/128"],
        "private" => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
        _ => return cidr(text).map(|net| Network::Nets(vec![net])),
    };
    Ok(Network::Nets(
        words.iter().filter_map(|word| word.parse().ok()).collect(),
    ))
}

fn cidr(text: &str) -> Result<IpNet, Fault> {
    let net = match text.parse::<IpNet>() {
        Ok(net) => net,
        Err(_) => match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => {
                return Err(Fault::new(
                    format!("{} is not a network", quoted(text)),
                    "write a CIDR such as \"10.0.0.0/8\", an address, or \"loopback\", \"private\" or \"unix\"",
                ));
            }
        },
    };
    if net.trunc() != net {
        return Err(Fault::new(
            format!("{} has bits set beyond its mask", quoted(text)),
            format!(
                "write \"{}\" for the network, or \"{}\" for the one address",
                net.trunc(),
                net.addr()
            ),
        ));
    }
    if let IpAddr::V6(address) = net.addr()
        && address.to_ipv4_mapped().is_some()
    {
        return Err(Fault::new(
            format!("{} is an IPv4 network in an IPv6 spelling", quoted(text)),
            "write it as IPv4, such as \"10.0.0.0/8\"",
        )
        .why("IPv4 peers are compared as IPv4, so this would match nobody"));
    }
    Ok(net)
}

/// Reads an origin: scheme, host, and port where it is not the scheme's own.
///
/// # Errors
///
/// It is something else, or has more (a path, a query, a user).
pub fn origin(text: &str) -> Result<PublicUrl, Fault> {
    let help = "write scheme and host as the browser's address bar shows them, such as \"https://app.example.com\"";
    let lower = text.to_ascii_lowercase();
    let https = lower.starts_with("https://");
    let rest = lower
        .strip_prefix("https://")
        .or_else(|| lower.strip_prefix("http://"))
        .ok_or_else(|| Fault::new("this is not an http or https URL", help))?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err(Fault::new(
            "only scheme, host and port may stand here",
            "leave out path, query and user, as in \"https://app.example.com\"",
        ));
    }
    let whole = lower.strip_suffix('/').unwrap_or(&lower);
    let (host, _) = host_and_port(authority)
        .ok_or_else(|| Fault::new(format!("{} has no valid host", quoted(text)), help))?;
    let origin = Origin::parse(whole)
        .ok_or_else(|| Fault::new(format!("{} is not an origin", quoted(text)), help))?;
    Ok(PublicUrl {
        origin,
        https,
        host,
        text: whole.to_string(),
    })
}

/// Reads the URL of an upstream. User information is never repeated.
///
/// # Errors
///
/// It is no URL, or has a path.
pub fn upstream(text: &str) -> Result<UpstreamAddress, Fault> {
    let example = "write a URL such as \"http://127.0.0.1:3000\"";
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path);
    }
    let scheme_of = |scheme: &str| match scheme.to_ascii_lowercase().as_str() {
        "http" => Some(Scheme::Http),
        "https" => Some(Scheme::Https),
        "h2c" => Some(Scheme::H2c),
        _ => None,
    };
    let parts = text
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme_of(scheme)?, rest)));
    let Some((scheme, rest)) = parts else {
        let help = match host_and_port(text) {
            Some(_) => format!("put the scheme in front: \"http://{text}\""),
            None => format!("{example}; https, h2c and unix:/path are possible too"),
        };
        return Err(Fault::new("this is not an http URL", help));
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('@') {
        return Err(Fault::new(
            "an upstream's URL takes no user or password",
            "leave out everything before the `@`",
        ));
    }
    if authority.contains(['/', '?', '#']) {
        return Err(Fault::new(
            "an upstream's URL takes no path",
            "leave it out, as in \"http://127.0.0.1:3000\"",
        )
        .why("the path of each request is forwarded untouched"));
    }
    let (host, port) = host_and_port(authority).ok_or_else(|| {
        Fault::new(
            format!("{} has no valid host and port", quoted(text)),
            example,
        )
    })?;
    let port = port.unwrap_or(scheme.default_port());
    Ok(UpstreamAddress::tcp(scheme, host, port))
}

/// The longest path of a Unix socket on Linux (unix(7)), without the byte
/// that ends it.
const LONGEST_SOCKET_PATH: usize = 107;

fn unix(path: &str) -> Result<UpstreamAddress, Fault> {
    let help = "write the whole path, such as \"unix:/run/app.sock\"";
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(Fault::new(
            "this is not the absolute path of a Unix socket",
            help,
        ));
    }
    if path.len() > LONGEST_SOCKET_PATH {
        return Err(Fault::new(
            format!("the path of a Unix socket has at most {LONGEST_SOCKET_PATH} bytes"),
            "choose a shorter path",
        ));
    }
    Ok(UpstreamAddress {
        scheme: Scheme::Http,
        place: Place::Unix(path.into()),
    })
}

/// Reads `upstreams.NAME.host`.
///
/// # Errors
///
/// It is neither of the words nor a host.
pub fn upstream_host(text: &str) -> Result<HostHeader, Fault> {
    match text {
        "preserve" => Ok(HostHeader::Preserve),
        "upstream" => Ok(HostHeader::Upstream),
        _ if host_and_port(text).is_some() => Ok(HostHeader::Literal(text.to_string())),
        _ => Err(Fault::new(
            format!("{} is not a host", quoted(text)),
            "write \"preserve\", \"upstream\" or a host such as \"app.example.com\"",
        )),
    }
}

/// Splits `host[:port]`; the host comes in lower case and without brackets.
pub fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        address.parse::<Ipv6Addr>().ok()?;
        let port = match rest {
            "" => None,
            _ => Some(port(rest.strip_prefix(':')?)?),
        };
        return Some((address.to_ascii_lowercase(), port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, digits)) => (host, Some(port(digits)?)),
        None => (text, None),
    };
    is_host_name(host).then(|| (host.to_ascii_lowercase(), port))
}

fn port(digits: &str) -> Option<u16> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_addresses() {
        for text in ["127.0.0.1:8080", "[::1]:0", "0.0.0.0:80", "unix:/a"] {
            assert!(listen(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "8080",
            ":8080",
            "*:8080",
            "localhost:8080",
            "::1:8080",
            "127.0.0.1",
            "unix:a",
            "unix:/a/",
            "unix:",
            "1.2.3.4:99999",
        ] {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks() {
        assert_eq!(
            network("10.0.0.0/8").unwrap(),
            Network::Nets(vec!["10.0.0.0/8".parse().unwrap()])
        );
        assert_eq!(
            network("::1").unwrap(),
            Network::Nets(vec!["::1/128".parse().unwrap()])
        );
        assert!(matches!(network("loopback"), Ok(Network::Nets(nets)) if nets.len() == 2));
        assert!(matches!(network("private"), Ok(Network::Nets(nets)) if nets.len() == 4));
        assert_eq!(network("unix").unwrap(), Network::Unix);
        for text in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "::ffff:10.0.0.0/104",
            "localhost",
            "",
        ] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn upstreams() {
        let read = |text| upstream(text).ok().map(|a| a.to_string());
        for (text, meant) in [
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("HTTP://App/", "http://app"),
            ("http://[::1]:1", "http://[::1]:1"),
            ("https://a:443", "https://a"),
            ("https://a:80", "https://a:80"),
            ("h2c://a:80", "h2c://a"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(read(text).as_deref(), Some(meant), "{text}");
        }
        for text in [
            "ftp://a",
            "unix:a",
            "unix:/a/",
            "http://a/b",
            "http://u@a",
            "http://a:0",
            "http://a:x",
            "a:80",
            "http://",
            "é",
            "http:/é",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(upstream(&format!("unix:/{}", "a".repeat(107))).is_err());
    }

    #[test]
    fn origins() {
        let url = origin("https://App.Example.com/").unwrap();
        assert_eq!((url.https, url.host.as_str()), (true, "app.example.com"));
        for text in [
            "app.example.com",
            "https://a/b",
            "ftp://a",
            "https://",
            "https://u@a",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
