//! A permit and a request become the request that the application gets.
//!
//! The order is fixed, and it matters: first the fields pass that may travel (no
//! hop-by-hop field, no forwarding field, no spelling of an identity name, not our
//! cookie), then our own fields are written, identity last. So nothing a client
//! nominates in `Connection` can remove them, and nothing it sends can stand beside
//! them.

use std::borrow::Cow;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header};

use super::settings::{HostHeader, UpstreamSettings};
use crate::base::BoxFuture;
use crate::base::refusal::{Failure, Refusal};
use crate::policy::Permit;
use crate::wire::body::Body;
use crate::wire::client::{Client, ConnInfo, Trust, write_forwarding};
use crate::wire::cookie::{CookieSpec, joined_cookies};
use crate::wire::fields::{Lines, Sink};
use crate::wire::framing::plain_length;
use crate::wire::hop::{Hop, max_forwards};
use crate::wire::present::Present;
use crate::wire::reserved::{IdentityHeaders, must_stay};
use crate::wire::target::Target;
use crate::wire::upgrade::Handshake;

/// The name that Cloakroom uses in `Via` (RFC 9110 section 7.6.3).
pub const VIA_PSEUDONYM: &str = "cloakroom";

/// The field that carries the request id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the head of a forwarded request is made from.
pub struct Outbound<'a> {
    /// The decision to forward.
    pub permit: &'a Permit,
    /// Who asks.
    pub client: &'a Client,
    /// Over which connection.
    pub conn: &'a ConnInfo,
    /// For what.
    pub target: &'a Target,
    /// Whose forwarding fields count.
    pub trust: &'a Trust,
    /// The session cookie.
    pub cookie: &'a CookieSpec,
    /// Whether the application gets the session cookie.
    pub share_cookie: bool,
    /// The identity headers.
    pub identity: &'a IdentityHeaders,
    /// The request's id.
    pub request_id: &'a HeaderValue,
    /// Which fields stand in the head as it came.
    pub present: Present,
    /// What it says of a WebSocket, if it asks for one.
    pub handshake: Option<&'a Handshake>,
    /// Watches over its session, where the answer is long in coming.
    pub ending: Ending<'a>,
}

/// Gives what waits for the end of a request's session and says why; `None`: it has none.
pub type Ending<'a> = &'a (dyn Fn() -> Option<BoxFuture<'static, Refusal>> + Send + Sync);

impl Outbound<'_> {
    /// Writes the fields of the application's request, for HTTP/1.1: those of `request`
    /// that may travel, and our own. `Host` is that of `own_host`, if the application
    /// gets its own address. What frames the content is left to whoever sends it, and so
    /// is what asks for a WebSocket.
    ///
    /// # Errors
    ///
    /// [`Refusal::IdentityUnrepresentable`] if a value of the session cannot be
    /// sent in its header.
    pub fn write_fields(
        &self,
        request: &Request<Body>,
        upstream: &UpstreamSettings,
        own_host: Option<&HeaderValue>,
        head: &mut impl Sink,
    ) -> Result<(), Failure> {
        let headers = request.headers();
        let host = match own_host {
            Some(host) => Some(Cow::Borrowed(host)),
            None => self.host(upstream)?,
        };
        let hop = Hop::of(headers, self.present);
        let left = max_forwards(request.method(), headers);
        let (mut host, mut cookie, mut length) = (host.as_deref(), true, true);
        for (name, value) in headers {
            if must_stay(name, &hop, self.identity) {
                continue;
            }
            match name.as_str() {
                // In the place of the client's.
                "host" => put(head, name, host.take()),
                // Several lines become one.
                "cookie" => {
                    if std::mem::take(&mut cookie) {
                        put(head, name, self.cookies(headers).as_deref());
                    }
                }
                "content-length" => {
                    if std::mem::take(&mut length) {
                        put(head, name, plain_length(headers).as_deref());
                    }
                }
                // Answered by our own server when the content is first asked for.
                "expect" => {}
                // We write them.
                "x-request-id" => {}
                "max-forwards" if left.is_some() => {}
                _ => head.pass(name, value),
            }
        }
        put(head, &header::HOST, host);
        write_forwarding(head, self.client, self.conn, self.target, self.trust);
        head.pass(&header::VIA, via(request.version()));
        if let Some(left) = left {
            head.put(&header::MAX_FORWARDS, &left.saturating_sub(1).into());
        }
        head.put(&REQUEST_ID, self.request_id);
        if hop.trailers {
            head.put(&header::TE, &HeaderValue::from_static("trailers"));
            head.put(&header::CONNECTION, &HeaderValue::from_static("te"));
        }
        match self.permit.session() {
            Some(session) => session.write_identity(self.identity, head),
            None => Ok(()),
        }
    }

    /// Whether [`Outbound::write_fields`] can write them.
    ///
    /// # Errors
    ///
    /// Its errors.
    pub fn check(
        &self,
        request: &Request<Body>,
        upstream: &UpstreamSettings,
    ) -> Result<(), Failure> {
        let mut lines = Vec::new();
        self.write_fields(request, upstream, None, &mut Lines(&mut lines))
    }

    /// The application's request as a whole, whose content is taken out of `request`.
    /// `Host` is left out where it depends on the address.
    ///
    /// # Errors
    ///
    /// As for [`Outbound::write_fields`].
    pub fn prepared(
        &self,
        request: &mut Request<Body>,
        upstream: &UpstreamSettings,
    ) -> Result<Request<Body>, Failure> {
        let mut prepared = Request::new(Body::Empty);
        let headers = prepared.headers_mut();
        headers.reserve(request.headers().len().saturating_add(WRITTEN));
        self.write_fields(request, upstream, None, headers)?;
        if self.wants_own_host(upstream) {
            headers.remove(header::HOST);
        }
        prepared.method_mut().clone_from(request.method());
        *prepared.uri_mut() = Uri::from(self.path_and_query(request));
        *prepared.body_mut() = std::mem::take(request.body_mut());
        Ok(prepared)
    }

    /// The request-target that the application gets: without the host of an absolute form.
    pub fn path_and_query(&self, request: &Request<Body>) -> PathAndQuery {
        let uri = request.uri();
        let is_absolute = uri.authority().is_some() || uri.scheme().is_some();
        match uri.path_and_query().filter(|_| !is_absolute) {
            Some(target) => target.clone(),
            None => self.target.origin_form().clone(),
        }
    }

    /// The `Cookie` line that the application gets.
    fn cookies<'h>(&self, headers: &'h HeaderMap) -> Option<Cow<'h, HeaderValue>> {
        match self.share_cookie {
            true => joined_cookies(headers),
            false => self.cookie.others(headers),
        }
    }

    /// `Host`, unless it depends on the address that the request goes to.
    fn host(&self, upstream: &UpstreamSettings) -> Result<Option<Cow<'_, HeaderValue>>, Failure> {
        if self.wants_own_host(upstream) {
            return Ok(None);
        }
        match &upstream.host {
            HostHeader::Literal(host) => HeaderValue::from_str(host)
                .map(|host| Some(Cow::Owned(host)))
                .map_err(|_| Failure::from(Refusal::BadHost)),
            _ => Ok(Some(Cow::Borrowed(self.target.authority_value()))),
        }
    }

    /// Whether the application gets its own address as `Host`, which is
    /// written once it is known.
    pub fn wants_own_host(&self, upstream: &UpstreamSettings) -> bool {
        match upstream.host {
            HostHeader::Upstream => true,
            HostHeader::Literal(_) => false,
            // HTTP/1.0 may come without one.
            HostHeader::Preserve => self.target.authority_value().is_empty(),
        }
    }
}

/// Fields that are written beside those that pass, at most in general.
const WRITTEN: usize = 12;

fn put(head: &mut impl Sink, name: &HeaderName, value: Option<&HeaderValue>) {
    if let Some(value) = value {
        head.put(name, value);
    }
}

/// `Via` of requests that came in HTTP/2, HTTP/1.0 and HTTP/1.1. (The name in
/// them is [`VIA_PSEUDONYM`].)
static VIA: [HeaderValue; 3] = [
    HeaderValue::from_static("2.0 cloakroom"),
    HeaderValue::from_static("1.0 cloakroom"),
    HeaderValue::from_static("1.1 cloakroom"),
];

/// Says that the message came through here, and in which version.
fn via(version: Version) -> &'static HeaderValue {
    let [two, one, default] = &VIA;
    match version {
        Version::HTTP_2 => two,
        Version::HTTP_10 => one,
        _ => default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn via_names_us() {
        for value in &VIA {
            assert!(
                value
                    .to_str()
                    .unwrap()
                    .ends_with(&format!(" {VIA_PSEUDONYM}"))
            );
        }
    }
}
