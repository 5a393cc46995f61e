//! The request target (RFC 9112 section 3.2, RFC 9113 section 8.3.1): what is
//! matched against the routes, and what is forwarded, byte for byte.
//!
//! Nothing is rewritten. Where servers would read a path differently,
//! [`Target::readings`] lists what they may read, and policy asks for the same
//! rule for all of them.

use std::net::Ipv6Addr;

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use crate::base::refusal::Refusal;

mod readings;

pub use readings::Readings;

/// Host and path of a request, checked. Cloning copies references.
#[derive(Clone, Debug)]
pub struct Target {
    /// In lower case, with the port if it came with one; empty without a host.
    authority: HeaderValue,
    host_len: usize,
    port: Option<u16>,
    path_and_query: PathAndQuery,
    traits: PathTraits,
}

/// The host of a [`Target`]. Cloning copies a reference.
#[derive(Clone, Debug)]
pub struct HostName {
    authority: HeaderValue,
    length: usize,
}

impl HostName {
    /// As [`Target::host`].
    pub fn as_str(&self) -> &str {
        let authority = self.authority.to_str().unwrap_or_default();
        authority.get(..self.length).unwrap_or_default()
    }

    /// The same in bytes of its own: the others are part of what was read with them.
    #[must_use]
    pub fn detached(&self) -> Self {
        let copy = HeaderValue::from_bytes(self.as_str().as_bytes());
        Self {
            authority: copy.unwrap_or(HeaderValue::from_static("")),
            length: self.length,
        }
    }
}

/// What one look at the path's bytes tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PathTraits {
    /// Nothing in it that servers read differently, but for case.
    plain: bool,
    /// It has letters in upper case.
    upper: bool,
}

impl Target {
    /// Reads the target of a request and its host.
    ///
    /// * HTTP/1.1 has exactly one valid `Host`; the authority of an
    ///   absolute-form target replaces it (RFC 9112 section 3.2.2).
    /// * HTTP/1.0 may have none: the host is then empty.
    /// * HTTP/2 has `:authority`, or else one `Host`; if both, they agree.
    ///
    /// # Errors
    /// * [`Refusal::MethodNotAllowed`]: `CONNECT` (the only method with an
    ///   authority-form target) and `TRACE`. A caller that takes extended
    ///   CONNECT (RFC 8441) passes `GET`, which is what it stands for.
    /// * [`Refusal::BadRequestTarget`]: the target does not begin with `/`
    ///   (nor is `*` with `OPTIONS`), another scheme than http and https, a
    ///   byte that is not visible ASCII, `#`; in the path also `%00`, plain or
    ///   encoded twice, and `%` without two hexadecimal digits. A query may
    ///   hold any `%`: no rule depends on it.
    /// * [`Refusal::BadHost`]: everything that is wrong with the host, user
    ///   information included.
    pub fn parse(
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        version: Version,
    ) -> Result<Self, Refusal> {
        if *method == Method::CONNECT || *method == Method::TRACE {
            return Err(Refusal::MethodNotAllowed);
        }
        let path_and_query = forwarded(method, uri, version)?;
        let traits = check(&path_and_query)?;
        let (authority, host_len, port) = host_of(uri, headers, version)?;
        Ok(Self {
            authority,
            host_len,
            port,
            path_and_query,
            traits,
        })
    }

    /// The target that somebody else received, named by its parts: an
    /// authority, and a path with its query as they stood in the request line.
    ///
    /// # Errors
    /// As for [`Target::parse`]. Here a `#` is seen and refused as well.
    pub fn from_parts(authority: &str, path_and_query: &str) -> Result<Self, Refusal> {
        if path_and_query.contains('#') || !path_and_query.starts_with('/') {
            return Err(Refusal::BadRequestTarget);
        }
        let path_and_query =
            PathAndQuery::try_from(path_and_query).map_err(|_| Refusal::BadRequestTarget)?;
        let traits = check(&path_and_query)?;
        let value = HeaderValue::from_str(authority).map_err(|_| Refusal::BadHost)?;
        let (authority, host_len, port) = lower(authority, Some(&value))?;
        Ok(Self {
            authority,
            host_len,
            port,
            path_and_query,
            traits,
        })
    }

    /// The host in lower case, without port and without one trailing dot. An
    /// IPv6 address keeps its brackets. Empty for HTTP/1.0 without `Host`.
    pub fn host(&self) -> &str {
        self.authority().get(..self.host_len).unwrap_or_default()
    }

    /// [`Target::host`], to be kept: no bytes are copied.
    pub fn host_name(&self) -> HostName {
        HostName {
            authority: self.authority.clone(),
            length: self.host_len,
        }
    }

    /// The port, if one was given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Host and port as they arrived, in lower case.
    pub fn authority(&self) -> &str {
        self.authority.to_str().unwrap_or_default()
    }

    /// [`Target::authority`] as the value of a field: no bytes are copied.
    pub fn authority_value(&self) -> &HeaderValue {
        &self.authority
    }

    /// The path as it arrived; `*` for the asterisk-form.
    pub fn path(&self) -> &str {
        self.path_and_query.path()
    }

    /// What follows the first `?`.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query.query()
    }

    /// Path and query, to be forwarded unchanged.
    pub fn path_and_query(&self) -> &str {
        self.path_and_query.as_str()
    }

    /// [`Target::path_and_query`] as the target of an outbound request: no
    /// bytes are copied.
    pub fn origin_form(&self) -> &PathAndQuery {
        &self.path_and_query
    }

    /// Whether the path as it arrived has letters in upper case, so that a
    /// lookup that ignores case may find something else. Readings may have
    /// some where the path has none (`%41`).
    pub fn has_upper(&self) -> bool {
        self.traits.upper
    }

    /// What servers may take the path for; see [`Readings`]. Costs nothing for
    /// a plain path.
    pub fn readings(&self) -> Readings {
        match self.traits.plain {
            true => Readings::One,
            false => readings::of(self.path()),
        }
    }
}

/// Length of the host (without port and one trailing dot) and the port of an
/// authority without user information; `None` if it is not valid.
///
/// Names are letters, digits, `-`, `.`, `_` and `~`, without empty labels. The
/// other characters of RFC 3986 (escapes, sub-delimiters) name no host that a
/// browser can reach, but can be read as another one.
pub(super) fn split_authority(authority: &str) -> Option<(usize, Option<u16>)> {
    let bytes = authority.as_bytes();
    let end = match bytes.first()? {
        b'[' => bytes.iter().position(|byte| *byte == b']')? + 1,
        _ => bytes
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(bytes.len()),
    };
    let (host, rest) = authority.split_at_checked(end)?;
    let port = match rest.strip_prefix(':') {
        Some("") => None,
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        Some(_) => return None,
        None if rest.is_empty() => None,
        None => return None,
    };
    if let Some(address) = host.strip_prefix('[') {
        address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
        return Some((host.len(), port));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let mut last = b'.';
    for byte in name.bytes() {
        let valid = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if !valid || (byte == b'.' && last == b'.') {
            return None;
        }
        last = byte;
    }
    (last != b'.').then_some((name.len(), port))
}

/// The bytes that go to the upstream.
fn forwarded(method: &Method, uri: &Uri, version: Version) -> Result<PathAndQuery, Refusal> {
    if uri
        .scheme()
        .is_some_and(|scheme| !matches!(scheme.as_str(), "http" | "https"))
    {
        return Err(Refusal::BadRequestTarget);
    }
    let Some(found) = uri.path_and_query() else {
        // Authority-form without CONNECT.
        return Err(Refusal::BadRequestTarget);
    };
    let text = found.as_str();
    if text == "*" {
        return match *method == Method::OPTIONS {
            true => Ok(found.clone()),
            false => Err(Refusal::BadRequestTarget),
        };
    }
    if text.starts_with('/') {
        return Ok(found.clone());
    }
    // `http://host?query`: the empty path is `/` (RFC 9110 section 4.2.3). In
    // HTTP/2 the client has to write it (RFC 9113 section 8.3.1).
    let absolute = uri.scheme().is_some() && uri.authority().is_some();
    if text.starts_with('?') && absolute && version < Version::HTTP_2 {
        return PathAndQuery::try_from(format!("/{text}")).map_err(|_| Refusal::BadRequestTarget);
    }
    Err(Refusal::BadRequestTarget)
}

/// One look at every byte.
fn check(target: &PathAndQuery) -> Result<PathTraits, Refusal> {
    let visible = |byte: u8| matches!(byte, 0x21..=0x7e) && byte != b'#';
    let mut traits = PathTraits {
        plain: true,
        upper: false,
    };
    let path = target.path().as_bytes();
    let mut before_last = 0;
    let mut last = 0;
    let mut escapes = false;
    for byte in path {
        if !visible(*byte) {
            return Err(Refusal::BadRequestTarget);
        }
        match byte {
            b'A'..=b'Z' => traits.upper = true,
            b'%' => escapes = true,
            b';' | b'\\' => traits.plain = false,
            b'/' if last == b'/' => traits.plain = false,
            // The end of `/./` and, with any `..` taken for one, of `/../`.
            b'/' if last == b'.' && matches!(before_last, b'/' | b'.') => traits.plain = false,
            _ => {}
        }
        before_last = last;
        last = *byte;
    }
    if last == b'.' && matches!(before_last, b'/' | b'.') {
        traits.plain = false;
    }
    if escapes {
        traits.plain = false;
        check_escapes(path)?;
    }
    match target.query() {
        Some(query) if !query.bytes().all(visible) => Err(Refusal::BadRequestTarget),
        _ => Ok(traits),
    }
}

/// Every `%` is followed by two digits, and none of them is a NUL, which ends
/// a string for some servers and not for others.
fn check_escapes(path: &[u8]) -> Result<(), Refusal> {
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        match path.get(at + 1..at + 3) {
            Some(b"00") => return Err(Refusal::BadRequestTarget),
            Some(b"25") if path.get(at + 3..at + 5) == Some(b"00") => {
                return Err(Refusal::BadRequestTarget);
            }
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {}
            _ => return Err(Refusal::BadRequestTarget),
        }
    }
    Ok(())
}

type Host = (HeaderValue, usize, Option<u16>);

fn host_of(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<Host, Refusal> {
    let mut lines = headers.get_all(HOST).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(Refusal::BadHost);
    }
    let field = match line {
        Some(line) => {
            let text = line.to_str().map_err(|_| Refusal::BadHost)?;
            Some(lower(text, Some(line))?)
        }
        None => None,
    };
    let target = match uri.authority() {
        Some(authority) => Some(lower(authority.as_str(), None)?),
        None => None,
    };
    match (target, field) {
        (Some(target), Some(field)) if version >= Version::HTTP_2 => {
            let named = |host: &Host| {
                let text = host.0.to_str().unwrap_or_default();
                (text.get(..host.1).map(str::to_owned), host.2)
            };
            match target.0 == field.0 || named(&target) == named(&field) {
                true => Ok(target),
                false => Err(Refusal::BadHost),
            }
        }
        (Some(_), None) if version == Version::HTTP_11 => Err(Refusal::BadHost),
        (Some(target), _) => Ok(target),
        (None, Some(field)) => Ok(field),
        (None, None) if version <= Version::HTTP_10 => Ok((HeaderValue::from_static(""), 0, None)),
        (None, None) => Err(Refusal::BadHost),
    }
}

/// A valid authority in lower case; `value` is the field that it stands in, if
/// it does, and is shared where it can be.
fn lower(text: &str, value: Option<&HeaderValue>) -> Result<Host, Refusal> {
    let (host_len, port) = split_authority(text).ok_or(Refusal::BadHost)?;
    let trimmed = text.strip_suffix(':').unwrap_or(text);
    let shared = match value {
        Some(value)
            if trimmed.len() == text.len() && !text.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            value.clone()
        }
        _ => HeaderValue::from_str(&trimmed.to_ascii_lowercase()).map_err(|_| Refusal::BadHost)?,
    };
    Ok((shared, host_len, port))
}

#[cfg(test)]
mod tests;
