//! What a response says to caches (RFC 9111).

use http::HeaderMap;
use http::header::{CACHE_CONTROL, EXPIRES};

/// Whether a response says that a shared cache may keep it (RFC 9111 section
/// 5.2.2), so that nobody's cookie may be in it.
pub fn is_for_all(headers: &HeaderMap) -> bool {
    let says = |wanted: &[&str]| {
        headers
            .get_all(CACHE_CONTROL)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .filter_map(|directive| directive.split('=').next())
            .any(|name| wanted.iter().any(|w| name.trim().eq_ignore_ascii_case(w)))
    };
    says(&["public", "s-maxage"])
        || (says(&["max-age"]) || headers.contains_key(EXPIRES)) && !says(&["private", "no-store"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_shared_caches_may_keep_is_for_all() {
        for (value, expected) in [
            ("public, max-age=600", true),
            ("max-age=600", true),
            ("S-MaxAge=5", true),
            ("private, max-age=600", false),
            ("max-age=600, no-store", false),
            ("no-cache", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(value));
            assert_eq!(is_for_all(&headers), expected, "{value}");
        }
        assert!(!is_for_all(&HeaderMap::new()));
        let mut expires = HeaderMap::new();
        expires.insert(
            EXPIRES,
            HeaderValue::from_static("Thu, 01 Jan 2099 00:00:00 GMT"),
        );
        assert!(is_for_all(&expires));
    }
}
