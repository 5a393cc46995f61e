//! The id under which everything about a request is logged, and which the
//! application and the client get.

use std::cell::RefCell;

use aws_lc_rs::rand;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::state::State;
use crate::upstream::request::REQUEST_ID;
use crate::wire::client::ConnInfo;

/// Of URLs (RFC 4648 section 5).
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// An id's characters, each of them six random bits.
const LENGTH: usize = 16;

/// How many ids are made of the bytes that are drawn at once: drawing costs
/// about the same for one id as for all of these.
const DRAWN: usize = 32;

thread_local! {
    /// Ids that nobody has yet, one behind the other. Each is a piece of these bytes: none
    /// has to be allocated.
    static POOL: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// The id that a trusted proxy gave the request, or a new one: 16 random
/// characters.
pub fn of(conn: &ConnInfo, state: &State, headers: &HeaderMap) -> HeaderValue {
    if state.trust.trusts_peer(conn)
        && let Some(given) = headers.get(&REQUEST_ID)
        && (1..=128).contains(&given.len())
        && given.as_bytes().iter().all(u8::is_ascii_graphic)
    {
        return given.clone();
    }
    new()
}

fn new() -> HeaderValue {
    let id = POOL.with_borrow_mut(|pool| {
        if pool.is_empty() {
            *pool = drawn();
        }
        pool.split_to(LENGTH.min(pool.len()))
    });
    HeaderValue::from_maybe_shared(id).unwrap_or(HeaderValue::from_static("none"))
}

fn drawn() -> Bytes {
    let mut bytes = [0; LENGTH * DRAWN];
    // Without randomness ids repeat, which is a nuisance and no danger.
    let _ = rand::fill(&mut bytes);
    for byte in &mut bytes {
        let letter = ALPHABET.get(usize::from(*byte & 63));
        *byte = letter.copied().unwrap_or(b'-');
    }
    Bytes::copy_from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_all_different_and_in_the_alphabet() {
        let ids: HashSet<_> = (0..10 * DRAWN).map(|_| new()).collect();
        assert_eq!(ids.len(), 10 * DRAWN);
        for id in ids {
            assert_eq!(id.len(), LENGTH);
            assert!(
                id.as_bytes().iter().all(|byte| ALPHABET.contains(byte)),
                "{id:?}"
            );
        }
    }
}
