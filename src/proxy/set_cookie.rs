//! What an application's response may set.

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::wire::cookie::CookieSpec;

/// Whether a response sets our cookie.
pub fn is_ours_set(cookie: &CookieSpec, headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(SET_COOKIE).iter();
    lines.any(|line| cookie.is_ours_set_cookie(line))
}

/// Removes what would set our cookie, and says so in the log: the application does
/// not set it.
pub fn drop_ours(cookie: &CookieSpec, headers: &mut HeaderMap, request_id: &HeaderValue) {
    if !is_ours_set(cookie, headers) {
        return;
    }
    let request_id = request_id.to_str().unwrap_or_default();
    tracing::warn!(
        request_id,
        cookie = cookie.name,
        "dropped the application's Set-Cookie of the session cookie's name"
    );
    let kept: Vec<HeaderValue> = headers
        .get_all(SET_COOKIE)
        .iter()
        .filter(|value| !cookie.is_ours_set_cookie(value))
        .cloned()
        .collect();
    headers.remove(SET_COOKIE);
    for value in kept {
        headers.append(SET_COOKIE, value);
    }
}
