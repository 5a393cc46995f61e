//! How keys stand in the tables: as they are, but PostgreSQL's texts hold no NUL.

use std::borrow::Cow;

/// A key as it is written.
pub(super) fn key(key: &str) -> Cow<'_, str> {
    match key.contains(['\\', '\0']) {
        false => Cow::Borrowed(key),
        true => Cow::Owned(key.replace('\\', r"\\").replace('\0', r"\0")),
    }
}

/// The key that is written so.
pub(super) fn read(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut key = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => key.push(match rest.next() {
                Some('0') => '\0',
                Some(other) => other,
                None => '\\',
            }),
            c => key.push(c),
        }
    }
    Cow::Owned(key)
}

/// The first text after all that begin with this one, in the order of bytes.
pub(super) fn after(prefix: &str) -> String {
    let mut prefix = prefix.to_owned();
    while let Some(last) = prefix.pop() {
        // Between the two halves lie numbers that are no characters.
        let next = (last..=char::MAX).nth(1);
        if let Some(next) = next {
            prefix.push(next);
            return prefix;
        }
    }
    // There is no such text; but no key comes after this one either.
    String::from(char::MAX).repeat(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["", "sess:abc", r"a\b", "a\0b", r"a\0b", "\\\0\\0", r"\\"] {
            assert_eq!(read(&key(text)), text);
            assert!(!key(text).contains('\0'));
        }
        assert_ne!(key("a\0"), key(r"a\0"));
    }

    #[test]
    fn the_end_of_a_prefix() {
        for (prefix, end) in [
            ("sess:", "sess;"),
            ("a\u{d7ff}", "a\u{e000}"),
            ("a\u{10ffff}", "b"),
        ] {
            assert_eq!(after(prefix), end, "{prefix:?}");
        }
        for prefix in ["", "\u{10ffff}"] {
            assert!(*after(prefix) > *format!("{prefix}\u{10ffff}zz"));
        }
    }
}
