//! Who asks, and how: address, scheme and origin as the browser sees them.
//!
//! What a request says of its own way (`X-Forwarded-*`, `Forwarded`) counts
//! only from a trusted peer. From anyone else it is removed unread, and the
//! fields that go to the upstream are written anew.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use crate::base::address::write_address;
use crate::base::refusal::Refusal;
use crate::wire::target::{Target, split_authority};

mod chain;
mod fields;

pub(super) use fields::is_forwarding_name;
pub use fields::{is_forwarding_field, remove_forwarding, write_forwarding};

/// The scheme that the browser uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plaintext.
    Http,
    /// TLS, here or at a trusted proxy.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A web origin (RFC 6454). Two are equal if their scheme, host and port are,
/// where no port means the scheme's default.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its scheme.
    pub scheme: Scheme,
    /// Host in lower case; an IPv6 address with brackets.
    pub host: String,
    /// The port, if one was written.
    pub port: Option<u16>,
}

impl Origin {
    /// Reads an origin as browsers send it: `https://app.example.com:8443`, in
    /// lower case, with nothing behind the port. Anything else, `null`
    /// included, is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, host, port) = split_origin(text)?;
        Some(Self {
            scheme,
            host: host.to_owned(),
            port,
        })
    }

    /// Whether a text (an `Origin` field) is this origin. Allocates nothing.
    pub fn is(&self, text: &str) -> bool {
        split_origin(text).is_some_and(|(scheme, host, port)| {
            scheme == self.scheme
                && host == self.host
                && port.unwrap_or(scheme.default_port()) == self.effective_port()
        })
    }

    fn effective_port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }
}

impl PartialEq for Origin {
    fn eq(&self, other: &Self) -> bool {
        self.scheme == other.scheme
            && self.host == other.host
            && self.effective_port() == other.effective_port()
    }
}

impl Eq for Origin {}

impl fmt::Display for Origin {
    /// As browsers write it: the scheme's default port is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        match self.port {
            Some(port) if port != self.scheme.default_port() => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

/// `trust.header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardingHeader {
    /// `X-Forwarded-For`, with `-Proto` and `-Host`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// `[trust]`: whose word counts.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Networks of trusted proxies; empty: nobody.
    pub proxies: Vec<IpNet>,
    /// Whether peers on a Unix socket are trusted.
    pub unix: bool,
    /// Which family of fields they send.
    pub header: ForwardingHeader,
    /// Whether their word on the host is believed, for our own origin.
    pub host: bool,
}

impl Trust {
    /// Whether an address is a trusted proxy's. An IPv4 address in IPv6
    /// clothes is one all the same.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Whether a connection's peer is a trusted proxy.
    pub fn trusts_peer(&self, conn: &ConnInfo) -> bool {
        match conn.unix {
            true => self.unix,
            false => self.trusts(conn.peer.ip()),
        }
    }
}

/// The longest text of an IPv4 address.
const IPV4_TEXT: usize = 15;

/// What is known of a connection before its first request.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// The other side: the socket's, or the source that a PROXY header names.
    pub peer: SocketAddr,
    /// Our side.
    pub local: SocketAddr,
    /// Whether TLS ends here.
    pub tls: bool,
    /// Whether the peer came over a Unix socket, so that `peer` says nothing.
    pub unix: bool,
    /// The peer's address as a field value, written once per connection.
    peer_value: HeaderValue,
}

impl ConnInfo {
    /// A connection over TCP.
    pub fn new(peer: SocketAddr, local: SocketAddr, tls: bool) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // An address has nothing in it that a field value cannot hold.
        let mut text = Vec::with_capacity(IPV4_TEXT);
        write_address(&mut text, peer.ip());
        let peer_value =
            HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("unknown"));
        Self {
            peer,
            local,
            tls,
            unix: false,
            peer_value,
        }
    }

    /// A connection over a Unix socket; `peer` and `local` stand for it where
    /// an address is asked for.
    pub fn over_unix(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            unix: true,
            ..Self::new(peer, local, false)
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The client's address: the peer's, or the nearest one in the chain that
    /// is not a trusted proxy's. Never IPv4 in IPv6 clothes.
    pub ip: IpAddr,
    /// The scheme between the client and the first trusted proxy, or us.
    pub scheme: Scheme,
    /// The walked part of the chain, from the client to the proxy before the
    /// peer, as `X-Forwarded-For` writes it; `None`: the peer is the client.
    pub forwarded_for: Option<String>,
    /// The host that the browser asked for, if a trusted peer said so and
    /// `trust.host` is set.
    pub forwarded_host: Option<HeaderValue>,
    /// Whether TLS ends here.
    tls: bool,
}

impl Client {
    /// Finds out who asks. An untrusted peer is the client, and its forwarding
    /// fields are not read. The chain of a trusted one is walked from the
    /// right, past trusted addresses; the first other address is the client
    /// (the leftmost, if all are trusted), and the scheme comes from the same
    /// hop. A `Forwarded` element that hides its address (`unknown`, `_x`) ends
    /// the walk at the address before it.
    ///
    /// # Errors
    /// [`Refusal::BadForwardingHeader`] if something that is walked, or the
    /// scheme or host of the hop, cannot be read.
    pub fn resolve(conn: &ConnInfo, headers: &HeaderMap, trust: &Trust) -> Result<Self, Refusal> {
        let scheme = match conn.tls {
            true => Scheme::Https,
            false => Scheme::Http,
        };
        let direct = Self {
            ip: conn.peer.ip(),
            scheme,
            forwarded_for: None,
            forwarded_host: None,
            tls: conn.tls,
        };
        if !trust.trusts_peer(conn) {
            return Ok(direct);
        }
        let found = chain::walk(headers, trust).ok_or(Refusal::BadForwardingHeader)?;
        Ok(Self {
            ip: found.hops.first().copied().unwrap_or(direct.ip),
            scheme: found.scheme.unwrap_or(scheme),
            forwarded_for: chain::join(&found.hops),
            forwarded_host: found.host,
            tls: conn.tls,
        })
    }

    /// Whether the browser's connection is secure: TLS here, or a trusted peer
    /// said https, or our public URL is https.
    pub fn secure(&self, public: Option<&Origin>) -> bool {
        self.tls
            || self.scheme == Scheme::Https
            || public.is_some_and(|public| public.scheme == Scheme::Https)
    }

    /// Our own origin as the browser sees it: the public URL if there is one,
    /// else the host that a trusted peer named, else the one that was asked
    /// for, with the client's scheme. `None` only without any host (HTTP/1.0).
    pub fn own_origin(&self, target: &Target, public: Option<&Origin>) -> Option<Origin> {
        if let Some(public) = public {
            return Some(public.clone());
        }
        let (host, port) = match &self.forwarded_host {
            Some(value) => {
                let text = value.to_str().ok()?;
                let (length, port) = split_authority(text)?;
                (text.get(..length)?, port)
            }
            None => (target.host(), target.port()),
        };
        if host.is_empty() {
            return None;
        }
        Some(Origin {
            scheme: self.scheme,
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

fn split_origin(text: &str) -> Option<(Scheme, &str, Option<u16>)> {
    let (scheme, authority) = match text.strip_prefix("https://") {
        Some(authority) => (Scheme::Https, authority),
        None => (Scheme::Http, text.strip_prefix("http://")?),
    };
    if authority.ends_with(':') || authority.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    let (length, port) = split_authority(authority)?;
    Some((scheme, authority.get(..length)?, port))
}

#[cfg(test)]
mod tests;
