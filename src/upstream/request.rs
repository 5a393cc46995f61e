//! A permit and a request become the request that the application gets.
//!
//! The order is fixed, and it matters: first everything goes that must not
//! travel (hop-by-hop fields, forwarding fields, every spelling of an identity
//! name, our cookie), then our own fields are written, identity last. So nothing
//! a client nominates in `Connection` can remove them, and nothing it sends can
//! stand beside them.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};

use super::settings::{HostHeader, UpstreamSettings};
use crate::base::BoxFuture;
use crate::base::refusal::{Failure, Refusal};
use crate::policy::Permit;
use crate::wire::body::Body;
use crate::wire::client::{Client, ConnInfo, Trust, write_forwarding};
use crate::wire::cookie::{CookieSpec, join_cookies};
use crate::wire::hop::max_forwards;
use crate::wire::hop::write_length_anew;
use crate::wire::present::{Field, Present};
use crate::wire::reserved::{IdentityHeaders, strip_request};
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
    /// Rewrites the head, for HTTP/1.1. `Host` is left out where it depends on
    /// the address, and so is what asks for a WebSocket. The body stays as it
    /// is.
    ///
    /// # Errors
    ///
    /// [`Refusal::IdentityUnrepresentable`] if a value of the session cannot be
    /// sent in its header.
    pub fn rewrite(
        &self,
        request: &mut Request<Body>,
        upstream: &UpstreamSettings,
    ) -> Result<(), Failure> {
        let (version, is_options) = (request.version(), request.method() == Method::OPTIONS);
        let has_unknown_length = has_unknown_length(request.body());
        let headers = request.headers_mut();
        let trailers = strip_request(headers, self.present, self.identity);
        match self.share_cookie {
            true => join_cookies(headers),
            false => self.cookie.strip(headers),
        }
        if self.present.has(Field::ContentLength) {
            write_length_anew(headers);
        }
        // Answered by our own server when the body is first asked for.
        if self.present.has(Field::Expect) {
            headers.remove(header::EXPECT);
        }

        match self.host(upstream)? {
            Some(host) => drop(headers.insert(header::HOST, host)),
            None => drop(headers.remove(header::HOST)),
        }
        write_forwarding(headers, self.client, self.conn, self.target, self.trust);
        append_via(headers, version);
        if is_options && let Some(left) = max_forwards(&Method::OPTIONS, headers) {
            headers.insert(header::MAX_FORWARDS, left.saturating_sub(1).into());
        }
        headers.insert(REQUEST_ID, self.request_id.clone());
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        if let Some(session) = self.permit.session() {
            session.write_identity(self.identity, headers)?;
        }
        // Left to itself, hyper would send a GET or HEAD without it: as a complete
        // request, even if the body never came to its end.
        if has_unknown_length && !headers.contains_key(header::CONTENT_LENGTH) {
            let chunked = HeaderValue::from_static("chunked");
            headers.insert(header::TRANSFER_ENCODING, chunked);
        }

        if request.uri().authority().is_some() || request.uri().scheme().is_some() {
            *request.uri_mut() = Uri::from(self.target.origin_form().clone());
        }
        *request.version_mut() = Version::HTTP_11;
        // What the connection carried between its own parts is not for the
        // next connection.
        request.extensions_mut().clear();
        Ok(())
    }

    /// `Host`, unless it depends on the address that the request goes to.
    fn host(&self, upstream: &UpstreamSettings) -> Result<Option<HeaderValue>, Failure> {
        if self.wants_own_host(upstream) {
            return Ok(None);
        }
        match &upstream.host {
            HostHeader::Literal(host) => HeaderValue::from_str(host)
                .map(Some)
                .map_err(|_| Failure::from(Refusal::BadHost)),
            _ => Ok(Some(self.target.authority_value().clone())),
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

/// Whether a body's length is told by nothing but its end.
fn has_unknown_length(body: &impl http_body::Body) -> bool {
    !body.is_end_stream() && body.size_hint().exact().is_none()
}

/// `Via` of requests that came in HTTP/2, HTTP/1.0 and HTTP/1.1. (The name in
/// them is [`VIA_PSEUDONYM`].)
static VIA: [HeaderValue; 3] = [
    HeaderValue::from_static("2.0 cloakroom"),
    HeaderValue::from_static("1.0 cloakroom"),
    HeaderValue::from_static("1.1 cloakroom"),
];

/// Says that the message came through here, and in which version.
fn append_via(headers: &mut HeaderMap, version: Version) {
    let [two, one, default] = &VIA;
    let value = match version {
        Version::HTTP_2 => two,
        Version::HTTP_10 => one,
        _ => default,
    };
    headers.append(header::VIA, value.clone());
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body::{Frame, SizeHint};

    use super::*;

    /// A body that goes on, of this length if it is known.
    struct Streaming(Option<u64>);

    impl http_body::Body for Streaming {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Pending
        }

        fn size_hint(&self) -> SizeHint {
            self.0.map_or_else(SizeHint::default, SizeHint::with_exact)
        }
    }

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

    #[test]
    fn s19_a_body_of_unknown_length_is_found() {
        assert!(has_unknown_length(&Streaming(None)));
        assert!(!has_unknown_length(&Streaming(Some(3))));
        assert!(!has_unknown_length(&Body::Empty));
        assert!(!has_unknown_length(&Body::Full(Bytes::new())));
    }
}
