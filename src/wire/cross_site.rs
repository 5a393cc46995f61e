//! Requests that another site makes the browser send (cross-site request
//! forgery), told by what browsers say of themselves: `Origin` and
//! `Sec-Fetch-Site`.

use http::header::ORIGIN;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::base::refusal::Refusal;
use crate::wire::client::Origin;

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who may make a signed-in browser act.
#[derive(Clone, Debug, Default)]
pub struct CrossSite {
    /// `cors.origins`: these pass.
    pub origins: Vec<Origin>,
    /// `csrf.allow_same_site`: whether sibling hosts of the same site do.
    pub allow_same_site: bool,
}

impl CrossSite {
    /// Decides about a request that acts (an unsafe method, a WebSocket
    /// handshake). In this order:
    ///
    /// 1. either field repeated or malformed: refused;
    /// 2. `Origin` is one of [`CrossSite::origins`]: passes;
    /// 3. `Sec-Fetch-Site` is there: `same-origin` and `none` pass,
    ///    `same-site` if it is allowed, anything else is refused;
    /// 4. `Origin` is there: passes if it is `own`, our origin as the browser
    ///    sees it (`null` never is);
    /// 5. neither is there: not a browser, passes.
    ///
    /// Allocates nothing.
    ///
    /// # Errors
    /// [`Refusal::CrossSiteRequest`].
    pub fn check(&self, headers: &HeaderMap, own: Option<&Origin>) -> Result<(), Refusal> {
        let origin = single(headers, &ORIGIN)?;
        let site = single(headers, &SEC_FETCH_SITE)?;
        let passes = match (origin, site) {
            (Some(origin), _) if self.origins.iter().any(|listed| listed.is(origin)) => true,
            (_, Some("same-origin" | "none")) => true,
            (_, Some("same-site")) => self.allow_same_site,
            (_, Some(_)) => false,
            (Some(origin), None) => own.is_some_and(|own| own.is(origin)),
            (None, None) => true,
        };
        match passes {
            true => Ok(()),
            false => Err(Refusal::CrossSiteRequest),
        }
    }
}

/// The only value of a field, if it is there. A list, a blank or nothing at
/// all is no value that a browser sends.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Refusal> {
    let mut lines = headers.get_all(name).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() || !is_one_word(line) {
        return Err(Refusal::CrossSiteRequest);
    }
    line.to_str()
        .map(Some)
        .map_err(|_| Refusal::CrossSiteRequest)
}

fn is_one_word(value: &HeaderValue) -> bool {
    !value.is_empty()
        && value
            .as_bytes()
            .iter()
            .all(|byte| byte.is_ascii_graphic() && *byte != b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> CrossSite {
        CrossSite {
            origins: vec![Origin::parse("https://app.example").unwrap()],
            allow_same_site: false,
        }
    }

    fn passes_with(rules: &CrossSite, lines: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let own = Origin::parse("https://auth.example:8443");
        rules.check(&headers, own.as_ref()).is_ok()
    }

    fn passes(lines: &[(&'static str, &'static str)]) -> bool {
        passes_with(&rules(), lines)
    }

    #[test]
    fn s67_what_is_not_a_browser_passes() {
        assert!(passes(&[]));
    }

    #[test]
    fn s67_a_listed_origin_passes_whatever_the_site() {
        assert!(passes(&[
            ("origin", "https://app.example"),
            ("sec-fetch-site", "cross-site")
        ]));
        assert!(passes(&[("origin", "https://app.example:443")]));
        for near in [
            "http://app.example",
            "https://app.example.evil.example",
            "https://evil-app.example",
            "https://app.example:444",
        ] {
            assert!(
                !passes(&[("origin", near), ("sec-fetch-site", "cross-site")]),
                "{near}"
            );
            assert!(!passes(&[("origin", near)]), "{near}");
        }
    }

    #[test]
    fn s67_the_browsers_word_on_the_site_decides() {
        for (site, expected) in [
            ("same-origin", true),
            ("none", true),
            ("same-site", false),
            ("cross-site", false),
            ("Same-Origin", false),
            ("other", false),
        ] {
            assert_eq!(passes(&[("sec-fetch-site", site)]), expected, "{site}");
            let with_origin = [("sec-fetch-site", site), ("origin", "null")];
            assert_eq!(passes(&with_origin), expected, "{site}");
        }
        // It beats an origin that is our own.
        let own = [
            ("origin", "https://auth.example:8443"),
            ("sec-fetch-site", "cross-site"),
        ];
        assert!(!passes(&own));
        let siblings = CrossSite {
            allow_same_site: true,
            ..rules()
        };
        assert!(passes_with(&siblings, &[("sec-fetch-site", "same-site")]));
        assert!(!passes_with(&siblings, &[("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn s67_without_it_the_origin_must_be_our_own() {
        assert!(passes(&[("origin", "https://auth.example:8443")]));
        for other in [
            "null",
            "https://auth.example",
            "http://auth.example:8443",
            "file://",
        ] {
            assert!(!passes(&[("origin", other)]), "{other}");
        }
        let mut headers = HeaderMap::new();
        headers.append(
            ORIGIN,
            HeaderValue::from_static("https://auth.example:8443"),
        );
        assert_eq!(
            rules().check(&headers, None),
            Err(Refusal::CrossSiteRequest)
        );
    }

    #[test]
    fn repeated_and_malformed_fields_are_refused() {
        assert!(!passes(&[
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "same-origin")
        ]));
        let twice = [
            ("origin", "https://app.example"),
            ("origin", "https://app.example"),
        ];
        assert!(!passes(&twice));
        for bad in [
            "",
            "https://app.example, https://evil.example",
            "https://app.example https://a",
            "\u{7f}x",
        ] {
            let Ok(value) = HeaderValue::from_bytes(bad.as_bytes()) else {
                continue;
            };
            let mut headers = HeaderMap::new();
            headers.append(ORIGIN, value);
            headers.append("sec-fetch-site", HeaderValue::from_static("same-origin"));
            assert!(rules().check(&headers, None).is_err(), "{bad}");
        }
    }
}
