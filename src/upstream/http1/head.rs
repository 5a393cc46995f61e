//! The head of an answer (RFC 9112 section 4).

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use super::connection::Error;
use super::content::Framing;

/// The most fields of a head.
const FIELDS: usize = 100;

/// The largest head, in bytes.
pub(super) const HEAD_BYTES: usize = 256 * 1024;

/// Where a field's name and value stand in a head.
pub(super) type Place = [usize; 4];

/// An answer's head.
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) framing: Framing,
    /// Whether another request may follow.
    pub(super) keep_alive: bool,
}

/// Takes the next head, if all of it is there. `places`: room that is used again.
///
/// # Errors
///
/// What is no head of HTTP/1, or says in two ways where its content ends.
pub(super) fn take(
    input: &mut BytesMut,
    method: &Method,
    places: &mut Vec<Place>,
) -> Result<Option<Head>, Error> {
    places.clear();
    let (length, status, version, reason) = {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let status = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut parsed, input, &mut fields)
            .map_err(Error::Head)?;
        let length = match status {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial if input.len() > HEAD_BYTES => return Err(Error::TooLarge),
            httparse::Status::Partial => return Ok(None),
        };
        if length > HEAD_BYTES {
            return Err(Error::TooLarge);
        }
        let begin = input.as_ptr().addr();
        let within = |text: &[u8]| {
            let at = text.as_ptr().addr().saturating_sub(begin);
            (at, at.saturating_add(text.len()))
        };
        places.extend(parsed.headers.iter().map(|field| {
            let (name, value) = (within(field.name.as_bytes()), within(field.value));
            [name.0, name.1, value.0, value.1]
        }));
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or(Error::Head(httparse::Error::Status))?;
        let reason = parsed.reason.unwrap_or_default();
        // What is said of a status otherwise than usual is passed on.
        let reason = match status.canonical_reason() == Some(reason) {
            true => None,
            false => ReasonPhrase::try_from(reason.as_bytes()).ok(),
        };
        let version = match parsed.version {
            Some(0) => Version::HTTP_10,
            _ => Version::HTTP_11,
        };
        (length, status, version, reason)
    };
    let bytes = input.split_to(length).freeze();
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    if let Some(reason) = reason {
        response.extensions_mut().insert(reason);
    }
    let read = read_fields(&bytes, places, version, response.headers_mut())?;
    let framing = Framing::of(&mut response, read.is_framed, method)?;
    let keep_alive = read.keep_alive;
    Ok(Some(Head {
        response,
        framing,
        keep_alive,
    }))
}

/// What the fields say of the connection.
struct Read {
    /// Whether another request may follow.
    keep_alive: bool,
    /// Whether one of them says where the content ends.
    is_framed: bool,
}

fn read_fields(
    bytes: &Bytes,
    places: &[Place],
    version: Version,
    headers: &mut HeaderMap,
) -> Result<Read, Error> {
    // Some are written beside them.
    headers.reserve(places.len().saturating_add(4));
    let mut keep_alive = version == Version::HTTP_11;
    let (mut closes, mut is_framed) = (false, false);
    for &[name, name_end, value, value_end] in places {
        let name = bytes.get(name..name_end).unwrap_or_default();
        let name =
            HeaderName::from_bytes(name).map_err(|_| Error::Head(httparse::Error::HeaderName))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice(value..value_end))
            .map_err(|_| Error::Head(httparse::Error::HeaderValue))?;
        is_framed |= name == CONTENT_LENGTH || name == TRANSFER_ENCODING;
        if name == CONNECTION {
            closes |= has_option(&value, b"close");
            keep_alive |= has_option(&value, b"keep-alive");
        }
        headers.append(name, value);
    }
    Ok(Read {
        keep_alive: keep_alive && !closes,
        is_framed,
    })
}

fn has_option(value: &HeaderValue, option: &[u8]) -> bool {
    let mut options = value.as_bytes().split(|byte| *byte == b',');
    options.any(|found| found.trim_ascii().eq_ignore_ascii_case(option))
}
