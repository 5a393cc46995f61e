//! What kind of answer a client can use: a page, JSON, or a redirect.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::wire::present::{Field, Present};

// A name that is parsed at each look-up would cost more than the look-up.
static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
static SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
static X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// Whether the request loads a page: `Sec-Fetch-Mode: navigate`, or, from a
/// client without fetch metadata, an `Accept` that prefers HTML.
pub fn navigates(headers: &HeaderMap) -> bool {
    if is_scripted(headers) {
        return false;
    }
    match headers.get(&SEC_FETCH_MODE) {
        Some(mode) => mode == "navigate",
        None => !headers.contains_key(&SEC_FETCH_DEST) && prefers_html(headers),
    }
}

/// Whether a request loads a page, to be found out when somebody wants to know:
/// hardly ever, and reading `Accept` is the dearest part of it.
#[derive(Clone, Debug)]
pub enum Navigation {
    /// It was found out.
    Known(bool),
    /// This one line of `Accept` says it.
    Accept(HeaderValue),
}

impl Navigation {
    /// Of a request with this head, in which these fields stand.
    pub fn of(headers: &HeaderMap, present: Present) -> Self {
        if present.any(Field::SecFetch, Field::XRequestedWith) {
            return Self::Known(navigates(headers));
        }
        let mut lines = headers.get_all(header::ACCEPT).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Self::Known(false),
            (Some(line), None) => Self::Accept(line.clone()),
            (Some(_), Some(_)) => Self::Known(navigates(headers)),
        }
    }

    /// The same as [`navigates`].
    pub fn is_one(&self) -> bool {
        match self {
            Self::Known(known) => *known,
            Self::Accept(line) => is_html(weights([line])),
        }
    }
}

/// Whether a redirect loses nothing: a safe method (RFC 9110 section 9.2.1),
/// no upgrade, and not a script, which would take the login page for its data.
pub fn can_follow(method: &Method, headers: &HeaderMap) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        && !headers.contains_key(header::UPGRADE)
        && !is_scripted(headers)
}

/// Whether a script asks: by the modes of `fetch` and `XMLHttpRequest` (Fetch
/// section 2.2.5), or by the field that libraries set where browsers tell
/// nothing.
fn is_scripted(headers: &HeaderMap) -> bool {
    let mode = headers.get(&SEC_FETCH_MODE).map(HeaderValue::as_bytes);
    matches!(mode, Some(b"cors" | b"same-origin" | b"websocket"))
        || headers
            .get(&X_REQUESTED_WITH)
            .is_some_and(|by| by.as_bytes().eq_ignore_ascii_case(b"XMLHttpRequest"))
}

/// Whether `Accept` names `text/html` and ranks it above JSON. `*/*` alone is
/// what scripts send.
pub fn prefers_html(headers: &HeaderMap) -> bool {
    is_html(weights(headers.get_all(header::ACCEPT)))
}

fn is_html((html, json): (u32, u32)) -> bool {
    html > 0 && html >= json
}

/// Whether `Accept` names JSON and ranks it above `text/html`.
pub fn prefers_json(headers: &HeaderMap) -> bool {
    let (html, json) = weights(headers.get_all(header::ACCEPT));
    json > html
}

/// The highest weights that `Accept` gives HTML and JSON by name.
fn weights<'h>(lines: impl IntoIterator<Item = &'h HeaderValue>) -> (u32, u32) {
    let (mut html, mut json) = (0, 0);
    for line in lines {
        for range in line.as_bytes().split(|byte| *byte == b',') {
            let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let kind = parts.next().unwrap_or_default();
            let named = match kind.len() {
                9 if kind.eq_ignore_ascii_case(b"text/html") => &mut html,
                21 if kind.eq_ignore_ascii_case(b"application/xhtml+xml") => &mut html,
                16 if kind.eq_ignore_ascii_case(b"application/json") => &mut json,
                _ => continue,
            };
            let weight = parts
                .find_map(|part| part.strip_prefix(b"q="))
                .map_or(1000, weight);
            *named = weight.max(*named);
        }
    }
    (html, json)
}

/// A weight in thousandths (RFC 9110 section 12.4.2); nonsense is zero.
fn weight(text: &[u8]) -> u32 {
    let text = std::str::from_utf8(text).unwrap_or_default();
    match text.trim().parse::<f32>() {
        // The cast saturates, and the clamp keeps it in range before.
        Ok(q) => (q.clamp(0.0, 1.0) * 1000.0) as u32,
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::framing::tests::headers;

    #[test]
    fn browsers_navigate_and_scripts_do_not() {
        let chrome = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (fields, expected) in [
            (
                vec![("sec-fetch-mode", "navigate"), ("accept", "*/*")],
                true,
            ),
            (vec![("sec-fetch-mode", "cors"), ("accept", chrome)], false),
            (vec![("sec-fetch-dest", "empty"), ("accept", chrome)], false),
            (vec![("accept", chrome)], true),
            (vec![("accept", "*/*")], false),
            (vec![("accept", "application/json, text/html;q=0.5")], false),
            (vec![("accept", "application/json, text/plain, */*")], false),
            (vec![("accept", "text/html;q=0")], false),
            (
                vec![("accept", chrome), ("x-requested-with", "XMLHttpRequest")],
                false,
            ),
            (vec![("accept", "text/html;q=NaN")], false),
            (vec![("accept", "*/*"), ("accept", "text/html")], true),
            (vec![], false),
        ] {
            let headers = headers(&fields);
            assert_eq!(navigates(&headers), expected, "{fields:?}");
            let later = Navigation::of(&headers, Present::of(&headers));
            assert_eq!(later.is_one(), expected, "{fields:?}");
        }
    }

    #[test]
    fn only_safe_requests_follow() {
        assert!(can_follow(&Method::GET, &headers(&[])));
        assert!(!can_follow(&Method::POST, &headers(&[])));
        assert!(!can_follow(
            &Method::GET,
            &headers(&[("upgrade", "websocket")])
        ));
        for script in [
            ("sec-fetch-mode", "cors"),
            ("sec-fetch-mode", "same-origin"),
            ("x-requested-with", "xmlhttprequest"),
        ] {
            assert!(!can_follow(&Method::GET, &headers(&[script])), "{script:?}");
        }
        let image = headers(&[("sec-fetch-mode", "no-cors")]);
        assert!(can_follow(&Method::GET, &image));
    }
}
