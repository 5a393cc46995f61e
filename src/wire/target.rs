//! The request target (RFC 9112 section 3.2, RFC 9113 section 8.3.1): what is
//! matched against the routes, and what is forwarded, byte for byte.
//!
//! Nothing is rewritten. Where servers would read a path differently,
//! [`Target::readings`] lists what they may read, and policy asks for the same
//! rule for all of them.

use std::net::Ipv6Addr;

use bytes::Bytes;
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
        host_in(&self.authority, self.length)
    }

    /// The same as bytes, which are ASCII.
    pub fn as_bytes(&self) -> &[u8] {
        let bytes = self.authority.as_bytes();
        bytes.get(..self.length).unwrap_or_default()
    }

    /// The same in bytes of its own: the others are part of what was read with them.
    #[must_use]
    pub fn detached(&self) -> Self {
        let copy = HeaderValue::from_bytes(self.as_bytes());
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
        let (authority, host_len, port) = lower(authority.as_bytes(), Some(&value))?;
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
        host_in(&self.authority, self.host_len)
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

/// The host in an authority that was read. All of that is visible ASCII, which is found
/// out sooner as UTF-8 than byte for byte.
fn host_in(authority: &HeaderValue, length: usize) -> &str {
    let host = authority.as_bytes().get(..length).unwrap_or_default();
    std::str::from_utf8(host).unwrap_or_default()
}

/// Length of the host (without port and one trailing dot) and the port of an
/// authority without user information; `None` if it is not valid.
///
/// Names are letters, digits, `-`, `.`, `_` and `~`, without empty labels. The
/// other characters of RFC 3986 (escapes, sub-delimiters) name no host that a
/// browser can reach, but can be read as another one.
pub(super) fn split_authority(authority: &str) -> Option<(usize, Option<u16>)> {
    let read = Authority::read(authority.as_bytes())?;
    Some((read.host_len, read.port))
}

/// What one look at an authority tells.
struct Authority {
    host_len: usize,
    port: Option<u16>,
    /// It has letters in upper case.
    upper: bool,
}

impl Authority {
    /// As [`split_authority`], whose rules these are. All bytes of what is valid are ASCII.
    fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.first() == Some(&b'[') {
            return Self::with_address(bytes);
        }
        let mut upper = false;
        let mut last = b'.';
        let mut end = bytes.len();
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {}
                b'A'..=b'Z' => upper = true,
                // An empty label, or none before the first dot.
                b'.' if last == b'.' => return None,
                b'.' => {}
                b':' => {
                    end = at;
                    break;
                }
                _ => return None,
            }
            last = *byte;
        }
        // One dot may stand at the end; before the first one there is a label.
        let host_len = match last {
            b'.' => end.checked_sub(1).filter(|length| *length > 0)?,
            _ => end,
        };
        Some(Self {
            host_len,
            port: port(bytes.get(end..)?)?,
            upper,
        })
    }

    fn with_address(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b']')? + 1;
        let (host, rest) = bytes.split_at_checked(end)?;
        let address = host.strip_prefix(b"[")?.strip_suffix(b"]")?;
        std::str::from_utf8(address)
            .ok()?
            .parse::<Ipv6Addr>()
            .ok()?;
        Some(Self {
            host_len: end,
            port: port(rest)?,
            upper: host.iter().any(u8::is_ascii_uppercase),
        })
    }
}

/// What follows a host: nothing, or a colon and at most five digits. `None` if it is
/// not valid, `Some(None)` without a number.
fn port(rest: &[u8]) -> Option<Option<u16>> {
    let digits = match rest {
        [] | [b':'] => return Some(None),
        [b':', digits @ ..] if digits.len() <= 5 => digits,
        _ => return None,
    };
    let mut port = 0_u32;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        port = port * 10 + u32::from(digit - b'0');
    }
    u16::try_from(port).ok().map(Some)
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
        Some(line) => Some(lower(line.as_bytes(), Some(line))?),
        None => None,
    };
    let target = match uri.authority() {
        Some(authority) => Some(lower(authority.as_str().as_bytes(), None)?),
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
fn lower(text: &[u8], value: Option<&HeaderValue>) -> Result<Host, Refusal> {
    let read = Authority::read(text).ok_or(Refusal::BadHost)?;
    let trimmed = text.strip_suffix(b":").unwrap_or(text);
    let shared = match value {
        Some(value) if trimmed.len() == text.len() && !read.upper => value.clone(),
        _ => HeaderValue::from_maybe_shared(Bytes::from(trimmed.to_ascii_lowercase()))
            .map_err(|_| Refusal::BadHost)?,
    };
    Ok((shared, read.host_len, read.port))
}

#[cfg(test)]
mod tests;
