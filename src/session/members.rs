//! The members of a JSON object, as slices of its text.
//!
//! No tree is built, so what a tree cannot hold goes through: lone surrogates (in
//! names, too), any depth, any order of keys, numbers as they are written. What is
//! JSON and what is not is what `JSON.parse` says (ECMA-262 section 25.5.1): of equal
//! names the last counts, and escapes in names are read.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A member's name, its escapes read. A lone surrogate is three bytes that are no
/// UTF-8, so it equals no other name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name<'a>(Cow<'a, [u8]>);

/// A member of an object.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// Its name.
    pub name: Name<'a>,
    /// Its name as it is written, with quotes and escapes.
    pub written: &'a str,
    /// Its value as it is written.
    pub value: &'a str,
}

impl Name<'_> {
    /// Whether it is this one.
    pub fn is(&self, name: &str) -> bool {
        *self.0 == *name.as_bytes()
    }
}

/// Whether a text is one JSON value, and nothing else but blanks.
///
/// # Errors
///
/// What the parser says, and where; never a piece of the text.
pub fn check(text: &str) -> Result<&str, String> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => Ok(value.get()),
        Err(error) => Err(format!(
            "{:?} error at line {} column {}",
            error.classify(),
            error.line(),
            error.column()
        )),
    }
}

/// The members of an object in their order, equal names included. `None` if the text
/// is no object, or no JSON at all.
pub fn members(text: &str) -> Option<Vec<Member<'_>>> {
    let object: Object<'_> = serde_json::from_str(text).ok()?;
    object.0.into_iter().map(Member::of).collect()
}

/// The value of the member that counts under this name. `None` if there is none, or
/// the text is no object.
pub fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    members(text)?
        .into_iter()
        .rfind(|member| member.name.is(name))
        .map(|member| member.value)
}

impl<'a> Member<'a> {
    fn of((name, value): (&'a RawValue, &'a RawValue)) -> Option<Self> {
        Some(Self {
            name: serde_json::from_str(name.get()).ok()?,
            written: name.get(),
            value: value.get(),
        })
    }
}

/// Names and values as they are written.
struct Object<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(bytes)))
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(bytes.to_vec())))
            }
        }

        // As bytes, since text cannot hold a lone surrogate.
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_slices_of_the_text() {
        let text = r#" { "a" : 1.50 , "b\u0063":{"x": [ ]},"a":"two" } "#;
        let found = members(text).unwrap();
        let shown: Vec<_> = found.iter().map(|m| (m.written, m.value)).collect();
        assert_eq!(
            shown,
            [
                (r#""a""#, "1.50"),
                (r#""b\u0063""#, r#"{"x": [ ]}"#),
                (r#""a""#, r#""two""#)
            ]
        );
        assert_eq!(member(text, "a"), Some(r#""two""#), "the last counts");
        assert_eq!(member(text, "bc"), Some(r#"{"x": [ ]}"#));
        assert_eq!(member(text, "b"), None);
        assert_eq!(members("[]").map(|m| m.len()), None);
    }

    #[test]
    fn lone_surrogates_and_depth_are_no_obstacle() {
        let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        let text = format!(r#"{{"\ud83d":1,"\udc69\ud83d":2,"deep":{deep},"userId":"u1"}}"#);
        assert_eq!(check(&text), Ok(text.as_str()));
        assert_eq!(members(&text).unwrap().len(), 4);
        assert_eq!(member(&text, "userId"), Some(r#""u1""#));
        assert_eq!(member(&text, "\u{fffd}"), None);
    }

    #[test]
    fn json_is_what_javascript_takes() {
        for text in [
            "null",
            " 1 ",
            "\"\\ud83d\"",
            "[1,\r\n\t2]",
            "-0",
            "1E400",
            "\"\u{2028}\"",
        ] {
            assert!(check(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "{",
            "nul",
            "01",
            "+1",
            ".5",
            "1.",
            "'a'",
            "{a:1}",
            "[1,]",
            "\"\n\"",
            "{\"\n\":1}",
            "\u{feff}{}",
            "\u{a0}1",
            "1 2",
            "\"\\x\"",
            "\"\\u12\"",
            "NaN",
            "Infinity",
        ] {
            assert!(check(text).is_err(), "{text:?}");
        }
    }
}
