//! Identity header fields: taken out of every request in every spelling, then
//! written by us alone.
//!
//! Servers fold names: CGI, WSGI and Rack turn `X-User-Id` and `X_User_Id`
//! into the same `HTTP_X_USER_ID`. So a client's `x_user_id` is as dangerous as
//! the name itself (CVE-2025-64484, CVE-2026-52845).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::base::refusal::Refusal;
use crate::wire::client::is_forwarding_name;
use crate::wire::hop::{Hop, remove_where};

/// `[identity.headers]`: which fields carry which part of the session record.
#[derive(Clone, Debug, Default)]
pub struct IdentityHeaders {
    /// Tells those of one configuration from those of another.
    number: u32,
    entries: Vec<(HeaderName, String)>,
    /// Every reserved name, written with `-` only.
    folded: Vec<Box<[u8]>>,
    /// Bit n: some reserved name is n bytes long (63: that or longer). Nearly
    /// every field of a request is told apart by this alone.
    lengths: u64,
}

impl IdentityHeaders {
    /// Names with the dotted path of their value in the session record.
    pub fn new(entries: Vec<(HeaderName, String)>) -> Self {
        let mut headers = Self::default();
        for (name, _) in &entries {
            headers.reserve(name);
        }
        headers.entries = entries;
        headers
    }

    /// The same with a number of this configuration.
    pub fn numbered(self, number: u32) -> Self {
        Self { number, ..self }
    }

    /// Reserves one more name, which is stripped but has no path in the record
    /// (a signed assertion).
    pub fn reserve(&mut self, name: &HeaderName) {
        let folded: Box<[u8]> = name.as_str().bytes().map(fold).collect();
        self.lengths |= length_bit(folded.len());
        if !self.folded.contains(&folded) {
            self.folded.push(folded);
        }
    }

    /// Another one for each configuration, so that what was made for one is known to be;
    /// 0: it was given none.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Names and paths, in the order of the configuration.
    pub fn entries(&self) -> &[(HeaderName, String)] {
        &self.entries
    }

    /// Whether a name is a spelling of a reserved one.
    pub fn is_reserved(&self, name: &HeaderName) -> bool {
        self.reserves(name.as_str().as_bytes())
    }

    fn reserves(&self, name: &[u8]) -> bool {
        self.lengths & length_bit(name.len()) != 0
            && self.folded.iter().any(|reserved| same_name(name, reserved))
    }

    /// Removes every field whose name is a spelling of a reserved one. Costs a
    /// glance at each name's length where nothing is to be removed.
    pub fn strip(&self, headers: &mut HeaderMap) {
        remove_where(headers, |name| self.is_reserved(name));
    }
}

/// Whether an outbound request must not take a field from the inbound one: one that
/// belongs to the `hop` that ends here or that `Connection` names, any forwarding field,
/// any spelling of an identity name. (Our cookie is
/// [`CookieSpec::others`](crate::wire::cookie::CookieSpec::others)'s matter.)
pub fn must_stay(name: &HeaderName, hop: &Hop, identity: &IdentityHeaders) -> bool {
    let text = name.as_str().as_bytes();
    hop.ends(name) || is_forwarding_name(text) || identity.reserves(text)
}

/// The value of an identity field: blanks inside, visible ASCII and UTF-8
/// (as obs-text, RFC 9110 section 5.5).
///
/// # Errors
/// [`Refusal::IdentityUnrepresentable`] for a control character, or a blank at
/// either end, which no recipient would see. Nothing is ever changed to fit.
pub fn header_value(text: &str) -> Result<HeaderValue, Refusal> {
    if !is_representable(text) {
        return Err(Refusal::IdentityUnrepresentable);
    }
    HeaderValue::from_str(text).map_err(|_| Refusal::IdentityUnrepresentable)
}

/// A list (roles, groups) in one value, joined with `,`.
///
/// # Errors
/// [`Refusal::IdentityUnrepresentable`] as for [`header_value`], and for an
/// item with a comma, which would become two.
pub fn list_value<'a>(items: impl IntoIterator<Item = &'a str>) -> Result<HeaderValue, Refusal> {
    let mut joined = String::new();
    for (at, item) in items.into_iter().enumerate() {
        if item.contains(',') || !is_representable(item) {
            return Err(Refusal::IdentityUnrepresentable);
        }
        if at > 0 {
            joined.push(',');
        }
        joined.push_str(item);
    }
    HeaderValue::from_maybe_shared(Bytes::from(joined))
        .map_err(|_| Refusal::IdentityUnrepresentable)
}

/// A byte of a field name as servers fold it. CGI and its heirs make `_` of `-`,
/// and some of them of whatever else is neither letter nor digit.
pub fn fold(byte: u8) -> u8 {
    match byte.to_ascii_lowercase() {
        plain if plain.is_ascii_alphanumeric() => plain,
        _ => b'-',
    }
}

/// Whether `name`, folded, is `folded`.
pub(super) fn same_name(name: &[u8], folded: &[u8]) -> bool {
    name.len() == folded.len() && name.iter().zip(folded).all(|(a, b)| fold(*a) == *b)
}

fn is_representable(text: &str) -> bool {
    !text.starts_with(' ') && !text.ends_with(' ') && !text.chars().any(char::is_control)
}

fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::present::Present;

    fn identity() -> IdentityHeaders {
        let name = |text: &str| HeaderName::from_bytes(text.as_bytes()).unwrap();
        IdentityHeaders::new(vec![
            (name("X-User-Id"), "userId".to_owned()),
            (name("x_user_roles"), "roles".to_owned()),
        ])
    }

    /// CVE-2025-64484, CVE-2026-52845, CVE-2026-33433, CVE-2026-54763: case,
    /// `_` and `-`, also where the configured name itself has underscores. S-62.
    #[test]
    fn s62_every_spelling_is_stripped() {
        for spelling in [
            "X-User-Id",
            "x-user-id",
            "X_USER_ID",
            "x_user-id",
            "X-User_Id",
            "X-User-Roles",
            "X_User_Roles",
            "X.User.Id",
            "x-user_roles",
        ] {
            let mut headers = HeaderMap::new();
            let name = HeaderName::from_bytes(spelling.as_bytes()).unwrap();
            headers.append(&name, HeaderValue::from_static("evil"));
            headers.append(&name, HeaderValue::from_static("twice"));
            headers.append("accept", HeaderValue::from_static("*/*"));
            identity().strip(&mut headers);
            assert_eq!(headers.len(), 1, "{spelling}");
        }
    }

    #[test]
    fn similar_names_stay() {
        let mut headers = HeaderMap::new();
        for name in ["x-user", "x-user-ids", "xuserid", "x-usar-id"] {
            headers.append(name, HeaderValue::from_static("1"));
        }
        identity().strip(&mut headers);
        assert_eq!(headers.len(), 4);
    }

    /// GHSA-w9mr-28mw-j8hg, CVE-2021-32813, CVE-2024-45410, CVE-2025-48865:
    /// what `Connection` names is gone before anything of ours is written.
    #[test]
    fn one_pass_removes_all_that_must_not_travel() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "a"),
            ("connection", "x-user-id, x-hop, te"),
            ("te", "trailers"),
            ("x_user_id", "evil"),
            ("accept", "1"),
            ("x-hop", "1"),
            ("x_forwarded_for", "1.2.3.4"),
            ("accept", "2"),
            ("cookie", "a=b"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let hop = Hop::of(&headers, Present::of(&headers));
        assert!(hop.trailers);
        let left: Vec<_> = headers
            .iter()
            .filter(|(name, _)| !must_stay(name, &hop, &identity()))
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(
            left,
            [
                ("host", "a"),
                ("accept", "1"),
                ("accept", "2"),
                ("cookie", "a=b")
            ]
        );
    }

    #[test]
    fn a_name_without_a_path_is_stripped_too() {
        let mut identity = identity();
        identity.reserve(&HeaderName::from_static("x-user-assertion"));
        assert!(identity.is_reserved(&HeaderName::from_static("x_user_assertion")));
        assert_eq!(identity.entries().len(), 2);
    }

    #[test]
    fn long_names_are_found() {
        let long = format!("x-{}", "a".repeat(100));
        let name = HeaderName::from_bytes(long.as_bytes()).unwrap();
        let identity = IdentityHeaders::new(vec![(name, "a".to_owned())]);
        let spelled = HeaderName::from_bytes(long.replace('-', "_").as_bytes()).unwrap();
        assert!(identity.is_reserved(&spelled));
        let other = HeaderName::from_bytes("b".repeat(102).as_bytes()).unwrap();
        assert!(!identity.is_reserved(&other));
    }

    /// S-11: control characters never leave us; nothing is sanitised.
    #[test]
    fn s11_values_are_sent_whole_or_not_at_all() {
        for fine in ["", "ada", "Ada Lovelace", "a,b", "Zoë 会话", "a\"b\\"] {
            assert_eq!(header_value(fine).unwrap().as_bytes(), fine.as_bytes());
        }
        for bad in [
            "a\r\nX-Admin: 1",
            "a\0",
            "a\tb",
            "\u{7f}",
            "\u{85}",
            " a",
            "a ",
        ] {
            assert_eq!(
                header_value(bad),
                Err(Refusal::IdentityUnrepresentable),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn lists_are_joined_with_commas() {
        assert_eq!(list_value(["admin", "editor"]).unwrap(), "admin,editor");
        assert_eq!(list_value(["one"]).unwrap(), "one");
        assert_eq!(list_value([]).unwrap(), "");
        for bad in ["a,b", "a\n", " admin"] {
            assert_eq!(
                list_value(["x", bad]),
                Err(Refusal::IdentityUnrepresentable)
            );
        }
    }

    proptest! {
        /// The short cut over lengths finds what a plain search finds.
        #[test]
        fn the_short_cut_misses_nothing(reserved in "[a-zA-Z_-]{1,70}", name in "[a-zA-Z_-]{1,70}", spell in any::<u64>()) {
            let header = |text: &str| HeaderName::from_bytes(text.as_bytes()).unwrap();
            let identity = IdentityHeaders::new(vec![(header(&reserved), String::new())]);
            let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
            prop_assert_eq!(identity.is_reserved(&header(&name)), plain(&name) == plain(&reserved));
            let spelled: String = reserved.chars().enumerate().map(|(at, c)| match (c, spell >> (at % 64) & 1) {
                ('-', 1) => '_',
                ('_', 1) => '-',
                (c, 1) => c.to_ascii_uppercase(),
                (c, _) => c,
            }).collect();
            prop_assert!(identity.is_reserved(&header(&spelled)));
        }
    }
}
