//! The refusal table: every answer that Cloakroom gives instead of forwarding.
//!
//! One row drives the status, the `Proxy-Status` error (RFC 9209), the log
//! field and its level, the metric label, and the documentation. Labels are a
//! closed and stable list: people write alerts against them.

use std::fmt;

use http::StatusCode;

/// How loudly a refusal is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// What happens all day: an anonymous request.
    Info,
    /// Somebody's mistake, or an attack.
    Warn,
    /// A part of the installation has failed.
    Error,
}

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $name:ident => $label:literal, $status:ident, $proxy:literal, $level:ident, $message:literal;)+) => {
        /// Why a request was not forwarded. See the [module](self).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Refusal {
            /// Every refusal, in the order of the table.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$name,)+];

            /// The stable reason code.
            pub const fn label(self) -> &'static str {
                match self { $(Refusal::$name => $label,)+ }
            }

            /// The status of the answer (RFC 9110 section 15).
            pub const fn status(self) -> StatusCode {
                match self { $(Refusal::$name => StatusCode::$status,)+ }
            }

            /// The `error` parameter of `Proxy-Status` (RFC 9209 section 2.3).
            pub const fn proxy_error(self) -> &'static str {
                match self { $(Refusal::$name => $proxy,)+ }
            }

            /// How loudly it is logged.
            pub const fn level(self) -> Level {
                match self { $(Refusal::$name => Level::$level,)+ }
            }

            /// What the client is told; never more than this.
            pub const fn message(self) -> &'static str {
                match self { $(Refusal::$name => $message,)+ }
            }

            /// What it means, for the documentation.
            pub const fn explanation(self) -> &'static str {
                match self { $(Refusal::$name => concat!($($doc, " "),+),)+ }
            }
        }
    };
}

refusals! {
    /// The request carries no session cookie.
    NoCookie => "no_cookie", UNAUTHORIZED, "http_request_denied", Info, "Not authenticated";
    /// The session cookie is not of the form `s:` token `.` signature.
    MalformedCookie => "malformed_cookie", UNAUTHORIZED, "http_request_denied", Info, "Not authenticated";
    /// No configured secret verifies the session cookie: it was forged, or its secret was removed.
    BadSignature => "bad_signature", UNAUTHORIZED, "http_request_denied", Warn, "Not authenticated";
    /// The cookie is genuine, but the store has no such session (ended, expired and swept, or lost).
    UnknownSession => "unknown_session", UNAUTHORIZED, "http_request_denied", Info, "Not authenticated";
    /// Several session cookies arrived that belong to live sessions of different users.
    AmbiguousCookie => "ambiguous_cookie", UNAUTHORIZED, "http_request_denied", Warn, "Not authenticated";
    /// The session was not used for `session.idle_timeout`.
    IdleExpired => "idle_expired", UNAUTHORIZED, "http_request_denied", Info, "Not authenticated";
    /// The session is older than `session.absolute_timeout`.
    AbsoluteExpired => "absolute_expired", UNAUTHORIZED, "http_request_denied", Info, "Not authenticated";
    /// The session was ended by "sign out everywhere", also while its login was still running, or newer logins filled `session.max_per_user` while its own was running.
    SessionEnded => "session_ended", UNAUTHORIZED, "http_request_denied", Info, "Not authenticated";
    /// The session is live but has no user id at `session.user`.
    NoUser => "no_user", UNAUTHORIZED, "http_request_denied", Info, "Not authenticated";
    /// The user has none of the roles that the route asks for.
    MissingRole => "missing_role", FORBIDDEN, "http_request_denied", Info, "Forbidden";
    /// The route has `access = "deny"`.
    RouteDenied => "route_denied", FORBIDDEN, "http_request_denied", Info, "Forbidden";
    /// No route matches the host, path and method.
    NoRoute => "no_route", NOT_FOUND, "destination_not_found", Info, "Not found";
    /// The user has no session of this handle; whether somebody else has is never said.
    NoSuchSession => "no_such_session", NOT_FOUND, "http_request_denied", Info, "No such session";
    /// An unsafe request came from another site.
    CrossSiteRequest => "cross_site_request", FORBIDDEN, "http_request_denied", Warn, "Cross-site request refused";
    /// User name or password is wrong; which of the two is never said.
    InvalidCredentials => "invalid_credentials", UNAUTHORIZED, "http_request_denied", Warn, "Invalid credentials";
    /// More sign-ins wait for a password check than can be served in time.
    LoginBusy => "login_busy", SERVICE_UNAVAILABLE, "connection_limit_reached", Warn, "Too many sign-ins at the moment, please try again";
    /// The users could not be read, so nobody can be told right from wrong.
    LoginUnavailable => "login_unavailable", SERVICE_UNAVAILABLE, "proxy_internal_error", Error, "Signing in is not possible at the moment";
    /// The session cookie needs `Secure`, and this connection is not secure as the browser would see it.
    InsecureConnection => "insecure_connection", BAD_REQUEST, "http_request_denied", Error, "This connection is not secure, so the browser would drop the session cookie";
    /// A browser came back from signing in without the session cookie, three times in a row.
    CookieNotKept => "cookie_not_kept", BAD_REQUEST, "http_request_denied", Error, "The browser does not keep the session cookie";
    /// The session store gave no answer. Says nothing about the user: the session may well be alive.
    StoreUnavailable => "store_unavailable", SERVICE_UNAVAILABLE, "proxy_internal_error", Error, "The session store is not available, please try again";
    /// The stored session cannot be read: it was changed or damaged. Signing in again makes a new one.
    SessionUnreadable => "session_unreadable", INTERNAL_SERVER_ERROR, "proxy_internal_error", Error, "The session cannot be read, please sign in again";
    /// A value of the session cannot be sent in its identity header (a control character, or a comma in a list).
    IdentityUnrepresentable => "identity_unrepresentable", INTERNAL_SERVER_ERROR, "proxy_internal_error", Error, "The identity cannot be forwarded";
    /// No connection to the application could be made.
    UpstreamConnectFailed => "upstream_connect_failed", BAD_GATEWAY, "connection_refused", Error, "The application cannot be reached";
    /// No secure connection to the application could be made: it spoke no TLS, or none that both sides know.
    UpstreamTlsFailed => "upstream_tls_failed", BAD_GATEWAY, "tls_protocol_error", Error, "The application cannot be reached";
    /// The application's certificate was not accepted: unknown authority, wrong name, or out of date.
    UpstreamCertificateInvalid => "upstream_certificate_invalid", BAD_GATEWAY, "tls_certificate_error", Error, "The application cannot be reached";
    /// The application did not accept the connection, or did not answer, in time.
    UpstreamTimeout => "upstream_timeout", GATEWAY_TIMEOUT, "http_response_timeout", Error, "The application did not answer in time";
    /// The application's answer broke off or was not HTTP.
    UpstreamProtocolError => "upstream_protocol_error", BAD_GATEWAY, "http_protocol_error", Error, "The application gave no valid answer";
    /// The request target is malformed, or different servers would read it as different routes.
    BadRequestTarget => "bad_request_target", BAD_REQUEST, "http_request_error", Warn, "Bad request target";
    /// `Host` is missing, repeated, malformed, or contradicts the request target.
    BadHost => "bad_host", BAD_REQUEST, "http_request_error", Warn, "Bad Host";
    /// The request has come through more than ten proxies of this kind: their routes lead in a circle.
    LoopDetected => "loop_detected", LOOP_DETECTED, "proxy_loop_detected", Error, "Proxy loop detected";
    /// The message framing is ambiguous (RFC 9112 section 6).
    BadFraming => "bad_framing", BAD_REQUEST, "http_request_error", Warn, "Bad message framing";
    /// A trusted proxy sent a forwarding header that cannot be read.
    BadForwardingHeader => "bad_forwarding_header", BAD_REQUEST, "http_request_error", Warn, "Bad forwarding header";
    /// A client that is no trusted proxy sent a PROXY header.
    UntrustedProxyHeader => "untrusted_proxy_header", BAD_REQUEST, "http_request_error", Warn, "PROXY header refused";
    /// A trusted proxy sent no PROXY header, or one that cannot be read, though `server.proxy_protocol` is set.
    BadProxyHeader => "bad_proxy_header", BAD_REQUEST, "http_request_error", Error, "Bad PROXY header";
    /// A request that could change something came over plain http to the listener that only redirects to https.
    HttpsRequired => "https_required", FORBIDDEN, "http_request_denied", Info, "Use https";
    /// The client's address made more requests than `server.limits.requests_per_ip` allows; `Retry-After` says when to try again.
    RateLimited => "rate_limited", TOO_MANY_REQUESTS, "http_request_denied", Warn, "Too many requests";
    /// The request head is larger than `server.limits` allows.
    RequestHeaderTooLarge => "request_header_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "http_request_error", Warn, "Request header too large";
    /// The request body is larger than `body_bytes` allows.
    BodyTooLarge => "body_too_large", PAYLOAD_TOO_LARGE, "http_request_error", Warn, "Request body too large";
    /// The client stopped sending its request body.
    BodyTimeout => "body_timeout", REQUEST_TIMEOUT, "http_request_error", Info, "The request body did not arrive in time";
    /// The request body broke off or was malformed.
    BadRequestBody => "bad_request_body", BAD_REQUEST, "http_request_error", Info, "Bad request body";
    /// The endpoint takes a form or JSON.
    UnsupportedMediaType => "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "http_request_error", Info, "Unsupported media type";
    /// The method is not allowed here; `Allow` names those that are.
    MethodNotAllowed => "method_not_allowed", METHOD_NOT_ALLOWED, "http_request_denied", Info, "Method not allowed";
    /// `Expect` asks for something other than `100-continue`.
    ExpectationFailed => "expectation_failed", EXPECTATION_FAILED, "http_request_error", Info, "Expectation failed";
    /// Cloakroom itself failed; the log has the details under the request id.
    InternalError => "internal_error", INTERNAL_SERVER_ERROR, "proxy_internal_error", Error, "Internal error";
}

impl Refusal {
    /// Whether trying again later may help, so that the answer carries
    /// `Retry-After`.
    pub const fn is_temporary(self) -> bool {
        matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE)
    }
}

/// A refusal with its cause. The cause is logged and never sent.
#[derive(Debug)]
pub struct Failure {
    /// What the client is told.
    pub refusal: Refusal,
    /// What the operator reads; empty where the refusal says it all.
    pub cause: Option<String>,
}

impl Failure {
    /// A refusal with the detail that an operator needs.
    pub fn new(refusal: Refusal, cause: impl fmt::Display) -> Self {
        Self {
            refusal,
            cause: Some(cause.to_string()),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            cause: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.refusal.label())?;
        match &self.cause {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn labels_are_unique_and_plain() {
        let labels: HashSet<_> = Refusal::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
        for label in labels {
            assert!(
                label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{label}"
            );
        }
    }

    #[test]
    fn every_status_is_an_error() {
        for refusal in Refusal::ALL {
            assert!(refusal.status().is_client_error() || refusal.status().is_server_error());
        }
    }
}
