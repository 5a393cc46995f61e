//! Fuzz targets: each takes bytes, and panics if Cloakroom breaks a promise.
//!
//! Inputs are text with lines wherever that is possible, so that a seed can be
//! read and written by hand. What a target expects is worked out here a second
//! time, as plainly as possible and with nothing of Cloakroom's own code: an
//! error would have to be made twice to go unnoticed.

pub mod answer;
pub mod config;
pub mod cookie;
pub mod express_record;
pub mod forwarded;
pub mod http1;
pub mod proxy_header;
pub mod readings;
pub mod record;
pub mod return_to;
pub mod smuggle;
pub mod target;
pub mod users_file;

/// The line at the front, without its end, and what follows it.
pub(crate) fn line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[]),
    }
}

/// The same for text.
pub(crate) fn text_line(input: &str) -> (&str, &str) {
    input.split_once('\n').unwrap_or((input, ""))
}

/// Every `from` in `text` replaced by `to`.
pub(crate) fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + to.len());
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Whether `part` stands somewhere in `text`.
pub(crate) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
