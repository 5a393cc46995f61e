//! Where the fields of a head are written: into a map, or at once as the bytes that
//! HTTP/1.1 sends (RFC 9112 section 5).

use http::{HeaderMap, HeaderName, HeaderValue};

/// A head that is being written.
pub trait Sink {
    /// Passes a field on, beside others of its name.
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue);

    /// Writes a field of our own. There is no other of its name.
    fn put(&mut self, name: &HeaderName, value: &HeaderValue);

    /// The same with a value that is not known to be one. Whether it is; if not, nothing
    /// was written.
    fn put_bytes(&mut self, name: &HeaderName, value: &[u8]) -> bool;
}

impl Sink for HeaderMap {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append(name, value.clone());
    }

    fn put(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.insert(name, value.clone());
    }

    fn put_bytes(&mut self, name: &HeaderName, value: &[u8]) -> bool {
        match HeaderValue::from_bytes(value) {
            Ok(value) => {
                self.insert(name, value);
                true
            }
            Err(_) => false,
        }
    }
}

/// The lines of a head.
pub struct Lines<'a>(pub &'a mut Vec<u8>);

impl Lines<'_> {
    fn line(&mut self, name: &HeaderName, value: &[u8]) {
        let (out, name) = (&mut *self.0, name.as_str().as_bytes());
        out.reserve(name.len().saturating_add(value.len()).saturating_add(4));
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

impl Sink for Lines<'_> {
    fn pass(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.line(name, value.as_bytes());
    }

    fn put(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.line(name, value.as_bytes());
    }

    fn put_bytes(&mut self, name: &HeaderName, value: &[u8]) -> bool {
        // As `HeaderValue` has it (RFC 9110 section 5.5): no control character but the tab.
        let is_fine = |byte: &u8| *byte >= b' ' && *byte != 0x7f || *byte == b'\t';
        let is_value = value.iter().all(is_fine);
        if is_value {
            self.line(name, value);
        }
        is_value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// S-11: what no map takes as a value is not written as bytes either.
        #[test]
        fn s11_both_take_the_same_values(value in prop::collection::vec(any::<u8>(), 0..6)) {
            let name = HeaderName::from_static("x-a");
            let (mut map, mut bytes) = (HeaderMap::new(), Vec::new());
            let taken = map.put_bytes(&name, &value);
            prop_assert_eq!(Lines(&mut bytes).put_bytes(&name, &value), taken);
            let line = [b"x-a: ", &value[..], b"\r\n"].concat();
            prop_assert_eq!(bytes, if taken { line } else { Vec::new() });
            prop_assert_eq!(map.len(), usize::from(taken));
        }
    }
}
