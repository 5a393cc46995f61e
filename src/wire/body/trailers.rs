//! Fields after the content (RFC 9110 section 6.5): few may be there.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use crate::wire::client::is_forwarding_field;
use crate::wire::hop::{is_hop_by_hop, remove_where};
use crate::wire::reserved::IdentityHeaders;

/// What happens to the trailers of a body.
#[derive(Clone, Debug, Default)]
pub enum Trailers {
    /// They are dropped.
    #[default]
    Drop,
    /// They pass, without the fields that RFC 9110 section 6.5.1 forbids there
    /// and without forwarding fields. For responses.
    Pass,
    /// The same, and without any spelling of an identity field. For requests
    /// (S-18).
    PassExcept(Arc<IdentityHeaders>),
}

impl Trailers {
    /// What is left; `None` for nothing.
    pub(super) fn filter(&self, mut fields: HeaderMap) -> Option<HeaderMap> {
        match self {
            Self::Drop => return None,
            Self::Pass => remove_where(&mut fields, is_forbidden),
            Self::PassExcept(identity) => remove_where(&mut fields, |name| {
                is_forbidden(name) || identity.is_reserved(name)
            }),
        }
        (!fields.is_empty()).then_some(fields)
    }
}

/// Fields for framing, routing, authentication, request control, response
/// control and the understanding of the content: whoever reads the head has
/// acted already, and whoever merges trailers into it acts on them.
fn is_forbidden(name: &HeaderName) -> bool {
    let text = name.as_str();
    is_hop_by_hop(name.as_str())
        || is_forwarding_field(name)
        || text.starts_with("content-")
        || text.starts_with("if-")
        || text.starts_with("sec-")
        || text.starts_with("access-control-")
        || matches!(
            text,
            "accept-ranges"
                | "age"
                | "authorization"
                | "cache-control"
                | "cookie"
                | "date"
                | "expect"
                | "expires"
                | "host"
                | "location"
                | "max-forwards"
                | "origin"
                | "pragma"
                | "range"
                | "retry-after"
                | "set-cookie"
                | "strict-transport-security"
                | "trailer"
                | "vary"
                | "via"
                | "warning"
                | "www-authenticate"
        )
}
