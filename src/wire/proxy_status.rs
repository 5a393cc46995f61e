//! `Proxy-Status` (RFC 9209): why an answer comes from us and not from the
//! application.

use std::sync::LazyLock;

use http::{HeaderName, HeaderValue};

use crate::base::refusal::Refusal;

/// The field's name.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// One value per refusal, in the order of the table.
static VALUES: LazyLock<Vec<HeaderValue>> =
    LazyLock::new(|| Refusal::ALL.iter().map(|refusal| build(*refusal)).collect());

/// `cloakroom; error=http_request_denied; details="no_cookie"`, prebuilt: the
/// call copies a reference.
pub fn value(refusal: Refusal) -> HeaderValue {
    match VALUES.get(refusal as usize) {
        Some(value) => value.clone(),
        None => build(refusal),
    }
}

/// A list of one item with two parameters: a token and a string (RFC 8941
/// sections 3.3.3 and 3.3.4). Labels hold nothing that a string must escape.
fn build(refusal: Refusal) -> HeaderValue {
    let text = format!(
        "cloakroom; error={}; details=\"{}\"",
        refusal.proxy_error(),
        refusal.label()
    );
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("cloakroom"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s39_every_refusal_has_its_own_value() {
        for refusal in Refusal::ALL {
            let expected = format!(
                "cloakroom; error={}; details=\"{}\"",
                refusal.proxy_error(),
                refusal.label()
            );
            assert_eq!(value(*refusal), expected);
        }
    }

    /// RFC 8941: the error is a token, the details are a string that needs no
    /// escapes.
    #[test]
    fn s39_the_parts_are_a_token_and_a_string() {
        for refusal in Refusal::ALL {
            let error = refusal.proxy_error();
            assert!(error.starts_with(|c: char| c.is_ascii_alphabetic()));
            assert!(
                error
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            );
            assert!(
                refusal
                    .label()
                    .bytes()
                    .all(|b| matches!(b, 0x20..=0x7e) && b != b'"' && b != b'\\')
            );
        }
    }

    /// The registered errors of RFC 9209 section 2.3 that we use.
    #[test]
    fn s39_errors_are_registered() {
        let registered = [
            "dns_timeout",
            "dns_error",
            "destination_not_found",
            "destination_unavailable",
            "destination_ip_prohibited",
            "destination_ip_unroutable",
            "connection_refused",
            "connection_terminated",
            "connection_timeout",
            "connection_read_timeout",
            "connection_write_timeout",
            "connection_limit_reached",
            "tls_protocol_error",
            "tls_certificate_error",
            "tls_alert_received",
            "http_request_error",
            "http_request_denied",
            "http_response_incomplete",
            "http_response_header_section_size",
            "http_response_header_size",
            "http_response_body_size",
            "http_response_trailer_section_size",
            "http_response_trailer_size",
            "http_response_transfer_coding",
            "http_response_content_coding",
            "http_response_timeout",
            "http_upgrade_failed",
            "http_protocol_error",
            "proxy_internal_response",
            "proxy_internal_error",
            "proxy_configuration_error",
            "proxy_loop_detected",
        ];
        for refusal in Refusal::ALL {
            assert!(
                registered.contains(&refusal.proxy_error()),
                "{}",
                refusal.label()
            );
        }
    }
}
