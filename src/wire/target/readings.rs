//! What servers may take a path for.
//!
//! Servers differ in which of these steps they take, in which order, and how
//! often: dot segments are resolved, escapes decoded (all, or all but the
//! separators, or only those of letters and digits; by a careless chain of
//! servers twice), slashes merged, `;parameters` dropped, backslashes taken for
//! slashes. The closure over all orders holds every reading of them: `..;/`,
//! `%2e%2e`, `%252e`, `..%5c` need no rules of their own.

use std::collections::HashSet;

use crate::wire::cookie::hex;

/// Most readings of one path; a path with more was made to have them.
const MOST: usize = 64;

/// Bytes that all steps together may look at: well under a millisecond, so
/// that a long odd path is no way to keep a worker busy.
const BUDGET: usize = 512 * 1024;

/// Decodings one after the other. A third would be a third server in a row
/// that decodes.
const DECODINGS: u8 = 2;

/// The readings of a path, apart from case: every reading of
/// [`Readings::Many`] is to be looked up with case kept and, where case may
/// matter, folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readings {
    /// Every server reads the path as it stands.
    One,
    /// These, as it stands among them (and first). Bytes, because a decoded
    /// path need not be UTF-8. At most 64.
    Many(Vec<Box<[u8]>>),
    /// Too many to look at, too much work, or one with a NUL, where some
    /// servers stop reading: nothing can be said about the path.
    TooMany,
}

/// Every reading of `path`.
pub(super) fn of(path: &str) -> Readings {
    let mut budget = BUDGET;
    let raw: Box<[u8]> = path.as_bytes().into();
    // A reading with fewer decodings left is another state.
    let mut seen: HashSet<(Box<[u8]>, u8)> = HashSet::from([(raw.clone(), DECODINGS)]);
    let mut readings: Vec<Box<[u8]>> = vec![raw.clone()];
    let mut open = vec![(raw, DECODINGS)];
    while let Some((path, decodings)) = open.pop() {
        match budget.checked_sub(path.len() * STEPS.len()) {
            Some(left) => budget = left,
            None => return Readings::TooMany,
        }
        for (step, cost) in STEPS {
            let Some(left) = decodings.checked_sub(*cost) else {
                continue;
            };
            let Some(next) = step(&path).map(Vec::into_boxed_slice) else {
                continue;
            };
            if next.contains(&0) {
                return Readings::TooMany;
            }
            if !readings.contains(&next) {
                if readings.len() == MOST {
                    return Readings::TooMany;
                }
                readings.push(next.clone());
            }
            let state = (next, left);
            if seen.insert(state.clone()) {
                open.push(state);
            }
        }
    }
    Readings::Many(readings)
}

/// A step gives the path that it makes, or `None` if it changes nothing. The
/// number is how many decodings it uses up.
type Step = fn(&[u8]) -> Option<Vec<u8>>;

const STEPS: &[(Step, u8)] = &[
    (resolve_dots, 0),
    (merge_slashes, 0),
    (drop_parameters, 0),
    (turn_backslashes, 0),
    (decode_overlong, 0),
    (decode_all, 1),
    (decode_within_segments, 1),
    (decode_unreserved, 1),
];

/// RFC 3986 section 5.2.4.
pub(super) fn resolve_dots(path: &[u8]) -> Option<Vec<u8>> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut dotted = false;
    let mut ends_open = false;
    for segment in path.strip_prefix(b"/")?.split(|byte| *byte == b'/') {
        ends_open = matches!(segment, b"." | b"..");
        dotted |= ends_open;
        match segment {
            b"." => {}
            b".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    if !dotted {
        return None;
    }
    let mut resolved = Vec::with_capacity(path.len());
    for segment in &kept {
        resolved.push(b'/');
        resolved.extend_from_slice(segment);
    }
    if ends_open || resolved.is_empty() {
        resolved.push(b'/');
    }
    Some(resolved)
}

pub(super) fn merge_slashes(path: &[u8]) -> Option<Vec<u8>> {
    let mut merged = path.to_vec();
    merged.dedup_by(|a, b| *a == b'/' && *b == b'/');
    changed(path, merged)
}

pub(super) fn drop_parameters(path: &[u8]) -> Option<Vec<u8>> {
    let mut inside = false;
    let kept = path.iter().copied().filter(|byte| {
        match byte {
            b'/' => inside = false,
            b';' => inside = true,
            _ => {}
        }
        !inside
    });
    let kept = kept.collect();
    changed(path, kept)
}

pub(super) fn turn_backslashes(path: &[u8]) -> Option<Vec<u8>> {
    let turned = path.iter().map(|byte| match byte {
        b'\\' => b'/',
        other => *other,
    });
    let turned = turned.collect();
    changed(path, turned)
}

/// ASCII in two bytes of invalid UTF-8, as lenient decoders take it
/// (CVE-2008-2938: `%c0%ae` for a dot).
pub(super) fn decode_overlong(path: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, tail)) = rest.split_first() {
        match (byte, tail) {
            (0xc0 | 0xc1, [next @ 0x80..=0xbf, after @ ..]) => {
                decoded.push((byte & 1) << 6 | (next & 0x3f));
                rest = after;
            }
            _ => {
                decoded.push(*byte);
                rest = tail;
            }
        }
    }
    changed(path, decoded)
}

fn decode_all(path: &[u8]) -> Option<Vec<u8>> {
    decode(path, |_| true)
}

/// As servers do that split the path at its slashes first.
fn decode_within_segments(path: &[u8]) -> Option<Vec<u8>> {
    decode(path, |byte| !matches!(byte, b'/' | b'\\'))
}

/// RFC 3986 section 6.2.2.2: the escapes that never matter.
fn decode_unreserved(path: &[u8]) -> Option<Vec<u8>> {
    decode(path, |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
    })
}

/// Decodes the escapes of the bytes that are asked for; a `%` that begins none
/// stays.
fn decode(path: &[u8], wanted: impl Fn(u8) -> bool) -> Option<Vec<u8>> {
    if !path.contains(&b'%') {
        return None;
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, tail)) = rest.split_first() {
        let escaped = match rest {
            [b'%', high, low, after @ ..] => hex(*high)
                .zip(hex(*low))
                .map(|(high, low)| (high << 4 | low, after))
                .filter(|(byte, _)| wanted(*byte)),
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((*byte, tail));
        decoded.push(byte);
        rest = after;
    }
    changed(path, decoded)
}

fn changed(before: &[u8], after: Vec<u8>) -> Option<Vec<u8>> {
    (before != after.as_slice()).then_some(after)
}
