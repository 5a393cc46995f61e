//! Values that must not be seen: no derived `Debug`, no `Display`, wiped when
//! dropped, compared in constant time.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Secret bytes: a signing secret, a password.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes as they are: not trimmed, not decoded.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(bytes.into()))
    }

    /// The bytes themselves. Call this only where they are used.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        same(&self.0, &other.0)
    }
}

impl Eq for Secret {}

/// Whether two byte strings are equal, in a time that depends on their lengths
/// alone.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    let (Some(a_end), Some(b_end)) = (a.last_chunk(), b.last_chunk()) else {
        return a.ct_eq(b).into();
    };
    if a.len() != b.len() {
        return false;
    }
    // Eight bytes at once, the last of them perhaps once more: one at a time, they would
    // be most of what a look at a signature costs. Nothing of it decides where to go on
    // before all are looked at.
    let (a, b) = (a.as_chunks().0, b.as_chunks().0);
    let differ = a
        .iter()
        .zip(b)
        .fold(0, |differ, (a, b)| differ | bits(a, b));
    (differ | bits(a_end, b_end)).ct_eq(&0).into()
}

/// In which bits they differ.
fn bits(a: &[u8; 8], b: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }

    #[test]
    fn comparison_is_by_bytes() {
        assert_eq!(Secret::new("a"), Secret::new("a"));
        assert_ne!(Secret::new("a"), Secret::new("ab"));
    }

    #[test]
    fn every_byte_and_the_length_count() {
        for length in 0..40 {
            let one = vec![7_u8; length];
            assert!(same(&one, &one.clone()));
            for at in 0..length {
                let mut other = one.clone();
                other[at] ^= 0x80;
                assert!(!same(&one, &other), "{at} of {length}");
                assert!(!same(&one, &one[..at]) && !same(&one[..at], &one));
            }
        }
    }
}
