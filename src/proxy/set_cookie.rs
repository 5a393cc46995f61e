//! What an application's response may set.

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};

use crate::wire::cookie::CookieSpec;

/// Removes what would set our cookie, and says so in the log: the application does
/// not set it.
pub fn drop_ours(cookie: &CookieSpec, headers: &mut HeaderMap, request_id: &HeaderValue) {
    if !headers
        .get_all(SET_COOKIE)
        .iter()
        .any(|value| cookie.is_ours_set_cookie(value))
    {
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
