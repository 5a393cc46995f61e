//! Names of HTTP: hosts, paths, methods, fields, cookies.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderName, Method};

use super::net::host_and_port;
use super::{Fault, quoted};
use crate::policy::route::HostPattern;

/// Whether this is a host name or an IPv4 address: letters, digits, `-`, `_`
/// and single dots.
pub fn is_host_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

/// Reads `routes.host`.
///
/// # Errors
///
/// It has a scheme, port or path, or is no host.
pub fn host_pattern(text: &str) -> Result<HostPattern, Fault> {
    let example = "write a host such as \"app.example.com\" or \"*.example.com\"";
    if text == "*" {
        return Err(Fault::new(
            "\"*\" is not a host",
            "leave out `host` to cover any host",
        ));
    }
    if text.contains("://") || text.contains('/') {
        return Err(Fault::new(
            format!("{} is not a host alone", quoted(text)),
            "leave out scheme and path, as in \"app.example.com\"",
        ));
    }
    if !text.is_ascii() {
        return Err(Fault::new(
            format!("{} is not ASCII", quoted(text)),
            "write the host as it is sent, in its `xn--` form",
        ));
    }
    let lower = text.to_ascii_lowercase();
    if let Some(suffix) = lower.strip_prefix("*.").filter(|rest| is_host_name(rest)) {
        return Ok(HostPattern::Suffix(format!(".{suffix}")));
    }
    match host_and_port(&lower) {
        Some((_, Some(_))) => Err(Fault::new(
            format!("{} has a port", quoted(text)),
            "leave it out: routes match the host on every port",
        )),
        Some((host, None)) if host.parse::<Ipv6Addr>().is_ok() => {
            Ok(HostPattern::Exact(format!("[{host}]")))
        }
        Some((host, None)) => Ok(HostPattern::Exact(host)),
        None => Err(Fault::new(
            format!("{} is not a host", quoted(text)),
            example,
        )),
    }
}

/// Reads the path of a route.
///
/// # Errors
///
/// No request can have it, or it looks like a pattern of another product.
pub fn route_path(text: &str) -> Result<String, Fault> {
    path(text)?;
    if let Some(start) = text.strip_suffix("/*").or_else(|| text.strip_suffix("/**")) {
        let plain = if start.is_empty() { "/" } else { start };
        return Err(Fault::new(
            format!(
                "{} is not a pattern: a path is a prefix already",
                quoted(text)
            ),
            format!("write \"{plain}\""),
        ));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) || text.contains("//") {
        return Err(Fault::new(
            format!("{} has empty or dot segments", quoted(text)),
            "write the path as it is meant, such as \"/admin\"",
        ));
    }
    Ok(text.to_string())
}

fn path(text: &str) -> Result<(), Fault> {
    if !text.starts_with('/') {
        return Err(Fault::new(
            format!("{} does not begin with \"/\"", quoted(text)),
            match text.contains("://") || text.is_empty() {
                true => "write the path alone, such as \"/admin\"".to_string(),
                false => format!("write \"/{text}\""),
            },
        ));
    }
    let odd = |b: &u8| {
        !b.is_ascii_graphic()
            || matches!(
                b,
                b'?' | b'#' | b'"' | b'<' | b'>' | b'\\' | b'`' | b'{' | b'}' | b'^' | b'|'
            )
    };
    if text.as_bytes().iter().any(odd) {
        return Err(Fault::new(
            format!("{} holds characters that no path has", quoted(text)),
            "leave out query and fragment, and write other characters percent-encoded, such as \"/caf%C3%A9\"",
        ));
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        let valid = after
            .get(..2)
            .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        if !valid {
            return Err(Fault::new(
                format!("{} has a `%` without two hexadecimal digits", quoted(text)),
                "write a percent sign as `%25`",
            ));
        }
        rest = after;
    }
    Ok(())
}

/// Reads `endpoints.prefix`.
///
/// # Errors
///
/// It is `/`, ends with `/`, or needs escapes.
pub fn prefix(text: &str) -> Result<String, Fault> {
    let example = "write a path such as \"/auth\"";
    if text == "/" {
        return Err(Fault::new("the prefix must not be \"/\"", example)
            .why("it would take paths like /login and /session from the application"));
    }
    route_path(text)?;
    if let Some(start) = text.strip_suffix('/') {
        return Err(Fault::new(
            "the prefix must not end with \"/\"",
            format!("write \"{start}\""),
        ));
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b))
    {
        return Err(Fault::new(
            "the prefix may hold letters, digits, `-`, `.`, `_` and `~` only",
            example,
        ));
    }
    Ok(text.to_string())
}

/// Reads the path of the session cookie.
///
/// # Errors
///
/// It is no path, or cannot stand in a cookie.
pub fn cookie_path(text: &str) -> Result<String, Fault> {
    path(text)?;
    if text.contains([';', ',']) {
        return Err(Fault::new(
            "a cookie's path holds no `;` or `,`",
            "write a path such as \"/\"",
        ));
    }
    Ok(text.to_string())
}

/// Reads the name of the session cookie (RFC 6265 section 4.1.1).
///
/// # Errors
///
/// It is no token.
pub fn cookie_name(text: &str) -> Result<String, Fault> {
    if is_token(text) {
        return Ok(text.to_string());
    }
    Err(Fault::new(
        format!("{} is not a name that a cookie can have", quoted(text)),
        "use letters, digits and `.`, `_`, `-`, as in \"cloakroom.sid\"",
    ))
}

/// Reads the domain of the session cookie.
///
/// # Errors
///
/// It is no domain.
pub fn cookie_domain(text: &str) -> Result<Option<String>, Fault> {
    if text == "none" {
        return Ok(None);
    }
    let lower = text.to_ascii_lowercase();
    if let Some(rest) = lower.strip_prefix('.').filter(|rest| is_host_name(rest)) {
        return Err(Fault::new(
            "a cookie's domain has no dot in front",
            format!("write \"{rest}\": it covers the hosts below it as well"),
        ));
    }
    if text.parse::<IpAddr>().is_ok() || !is_host_name(&lower) {
        return Err(Fault::new(
            format!("{} is not a domain", quoted(text)),
            "write a domain such as \"example.com\", without scheme and port, or \"none\"",
        ));
    }
    if !lower.contains('.') && lower != "localhost" {
        return Err(Fault::new(
            format!("browsers refuse cookies for all of {}", quoted(text)),
            "write a domain such as \"example.com\", or \"none\"",
        ));
    }
    Ok(Some(lower))
}

/// Reads where a browser is sent: a path, or a whole http(s) URL.
///
/// # Errors
///
/// It is neither, or could lead to another host by its spelling.
pub fn location(text: &str) -> Result<String, Fault> {
    let lower = text.to_ascii_lowercase();
    let url = lower
        .strip_prefix("https://")
        .or_else(|| lower.strip_prefix("http://"));
    let authority = url.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let fine = match authority {
        Some(authority) => host_and_port(authority).is_some(),
        None => text.starts_with('/') && !text.starts_with("//"),
    };
    if fine && text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Ok(text.to_string());
    }
    Err(Fault::new(
        format!("{} is not a place to send a browser to", quoted(text)),
        "write a path that begins with one \"/\", such as \"/welcome\", or a whole URL",
    ))
}

/// Reads `host[:port]`.
///
/// # Errors
///
/// It has a scheme or path, or is no host.
pub fn host(text: &str) -> Result<String, Fault> {
    if host_and_port(text).is_some() {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Fault::new(
        format!("{} is not a host", quoted(text)),
        "write the host alone, such as \"www.example.com\", without scheme and path",
    ))
}

/// Reads a method. Methods are case-sensitive (RFC 9110 section 9.1).
///
/// # Errors
///
/// It is no token, or not in capitals.
pub fn method(text: &str) -> Result<Method, Fault> {
    let upper = text.to_ascii_uppercase();
    match Method::from_bytes(upper.as_bytes()) {
        Ok(method) if upper == text => Ok(method),
        Ok(method) => Err(Fault::new(
            format!("{} is not written in capitals", quoted(text)),
            format!("write \"{method}\""),
        )
        .why("methods are case-sensitive, so this one would match no request")),
        Err(_) => Err(Fault::new(
            format!("{} is not a method", quoted(text)),
            "write a method such as \"GET\"",
        )),
    }
}

/// Reads a field name.
///
/// # Errors
///
/// It is no token.
pub fn header(text: &str) -> Result<HeaderName, Fault> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        Fault::new(
            format!("{} is not a header's name", quoted(text)),
            "use letters, digits and `-`, as in \"X-User-Id\"",
        )
    })
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!(
            host_pattern("App.example.com").unwrap(),
            HostPattern::Exact("app.example.com".into())
        );
        assert_eq!(
            host_pattern("*.Example.com").unwrap(),
            HostPattern::Suffix(".example.com".into())
        );
        for text in [
            "*",
            "",
            "http://a",
            "a:80",
            "a/b",
            "*a.b",
            "a..b",
            "münchen.de",
        ] {
            assert!(host_pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths() {
        for text in ["/", "/a", "/a/", "/a%20b", "/a.b"] {
            assert!(route_path(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "a",
            "/a/*",
            "/a//b",
            "/a/../b",
            "/a?b",
            "/a#b",
            "/%zz",
            "/%2",
            "/a b",
            "/é",
            "http://a/b",
        ] {
            assert!(route_path(text).is_err(), "{text}");
        }
        for text in ["/", "/auth/", "auth", "/a%20"] {
            assert!(prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn locations_lead_nowhere_by_accident() {
        for text in ["/", "/a?b=c", "https://example.com", "http://a:81/x"] {
            assert!(location(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "//evil",
            "/\\evil",
            "javascript:x",
            "https://",
            "https:///a",
            "/a b",
            "/a\n",
        ] {
            assert!(location(text).is_err(), "{text}");
        }
    }

    #[test]
    fn methods_are_in_capitals() {
        assert_eq!(method("GET").unwrap(), Method::GET);
        assert!(method("get").is_err());
        assert!(method("G T").is_err());
    }
}
