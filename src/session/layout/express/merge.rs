//! An anonymous record becomes part of a login's record, byte for byte.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::session::members::{Name, members};

/// One member of the object that is being made.
struct Entry<'a> {
    name: Name<'a>,
    written: &'a str,
    value: Cow<'a, str>,
}

/// The members of `anonymous` without its cookie and without what stands at one of the
/// dotted paths `identity`, and over them those of `login`. Objects that both have are
/// joined; every other value is taken as it is written. `None` if either is no object.
pub fn moved(anonymous: &str, login: &str, identity: &[String]) -> Option<String> {
    let mut text = Cow::Borrowed(anonymous);
    for path in identity.iter().map(String::as_str).chain(["cookie"]) {
        text = Cow::Owned(without(&text, path)?);
    }
    over(&text, login)
}

/// An object without the member at a path; `None` if it is no object.
fn without(object: &str, path: &str) -> Option<String> {
    let (step, rest) = match path.split_once('.') {
        Some((step, rest)) => (step, Some(rest)),
        None => (path, None),
    };
    let mut kept = entries(object)?;
    kept.retain_mut(|entry| {
        if !entry.name.is(step) {
            return true;
        }
        let Some(rest) = rest else {
            return false;
        };
        if let Some(smaller) = without(&entry.value, rest) {
            entry.value = Cow::Owned(smaller);
        }
        true
    });
    Some(write(&kept))
}

/// `new` over `old`.
fn over(old: &str, new: &str) -> Option<String> {
    let (mut kept, new) = (entries(old)?, entries(new)?);
    for entry in new {
        match kept.iter_mut().find(|old| old.name == entry.name) {
            Some(old) => {
                let joined = over(&old.value, &entry.value);
                old.value = joined.map_or(entry.value, Cow::Owned);
            }
            None => kept.push(entry),
        }
    }
    Some(write(&kept))
}

/// The members that count: of equal names the last, in the place of the first.
fn entries(object: &str) -> Option<Vec<Entry<'_>>> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut places: HashMap<Name<'_>, usize> = HashMap::new();
    for member in members(object)? {
        let value = Cow::Borrowed(member.value);
        match places.get(&member.name).and_then(|n| entries.get_mut(*n)) {
            Some(entry) => entry.value = value,
            None => {
                places.insert(member.name.clone(), entries.len());
                entries.push(Entry {
                    name: member.name,
                    written: member.written,
                    value,
                });
            }
        }
    }
    Some(entries)
}

fn write(entries: &[Entry<'_>]) -> String {
    let mut text = String::from("{");
    for (n, entry) in entries.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        text.push_str(entry.written);
        text.push(':');
        text.push_str(&entry.value);
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn a_cart_moves_as_it_is_written() {
        let anonymous = r#"{"cookie":{"originalMaxAge":null},"cart":[ {"n": 1.0e0} ],"cut":"\ud83d","z":{"b":1,"a":2}}"#;
        let login = r#"{"email":"a@b","userId":"u1"}"#;
        assert_eq!(
            moved(anonymous, login, &paths(&["userId", "roles"])).unwrap(),
            r#"{"cart":[ {"n": 1.0e0} ],"cut":"\ud83d","z":{"b":1,"a":2},"email":"a@b","userId":"u1"}"#
        );
    }

    #[test]
    fn nothing_that_makes_an_identity_moves() {
        let anonymous = r#"{"cookie":{},"roles":["admin"],"user":{"theme":"dark","mail":"x@evil"},"r\u006fles":["root"],"passport":{}}"#;
        let login = r#"{"passport":{"user":"u1"}}"#;
        let identity = paths(&["passport.user", "roles", "user.mail", "a.b"]);
        assert_eq!(
            moved(anonymous, login, &identity).unwrap(),
            r#"{"user":{"theme":"dark"},"passport":{"user":"u1"}}"#
        );
    }

    #[test]
    fn the_login_wins() {
        let anonymous = r#"{"a":1,"o":{"x":1,"y":2},"p":"text"}"#;
        let login = r#"{"a":2,"o":{"y":{"z":3}},"p":{"q":1}}"#;
        assert_eq!(
            moved(anonymous, login, &[]).unwrap(),
            r#"{"a":2,"o":{"x":1,"y":{"z":3}},"p":{"q":1}}"#
        );
        assert_eq!(moved("[]", "{}", &[]), None);
        assert_eq!(moved("{}", "{}", &[]).as_deref(), Some("{}"));
    }
}
