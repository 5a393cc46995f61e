//! The id under which everything about a request is logged, and which the
//! application and the client get.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};

use super::state::State;
use crate::upstream::request::REQUEST_ID;
use crate::wire::client::ConnInfo;

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
    let mut bytes = [0; 12];
    // Without randomness ids repeat, which is a nuisance and no danger.
    let _ = rand::fill(&mut bytes);
    HeaderValue::from_str(&URL_SAFE_NO_PAD.encode(bytes))
        .unwrap_or(HeaderValue::from_static("none"))
}
