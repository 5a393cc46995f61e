//! Pieces that are sent as one.
//!
//! A socket that is written to by `writev` costs the kernel more than by `send`: it goes
//! by way of what all files have in common. For a head and a short body that is more than
//! copying them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use arrayvec::ArrayVec;
use tokio::io::AsyncWrite;

/// As many bytes are copied at most.
pub const SMALL: usize = 2048;

/// Room for the copy.
type Space = ArrayVec<u8, SMALL>;

/// Writes pieces like [`AsyncWrite::poll_write_vectored`], but as one where they are few.
///
/// # Errors
///
/// The writer's.
pub fn poll_write_pieces<W: AsyncWrite>(
    writer: Pin<&mut W>,
    context: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match gathered(pieces, &mut Space::new()) {
        Some(all) => writer.poll_write(context, all),
        None => writer.poll_write_vectored(context, pieces),
    }
}

/// The bytes of all pieces, one after the other, if they are few or only one piece has any:
/// that piece itself, otherwise a copy in `space`.
fn gathered<'a>(pieces: &'a [IoSlice<'_>], space: &'a mut Space) -> Option<&'a [u8]> {
    let mut filled = pieces.iter().filter(|piece| !piece.is_empty());
    if let (Some(piece), None) = (filled.next(), filled.next()) {
        return Some(piece);
    }
    let length = |sum: usize, piece: &IoSlice<'_>| sum.saturating_add(piece.len());
    if pieces.iter().fold(0, length) > SMALL {
        return None;
    }
    space.clear();
    for piece in pieces {
        space.try_extend_from_slice(piece).ok()?;
    }
    Some(space)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gather(pieces: &[&[u8]]) -> Option<Vec<u8>> {
        let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        gathered(&slices, &mut Space::new()).map(<[u8]>::to_vec)
    }

    #[test]
    fn one_piece_is_not_copied_whatever_its_length() {
        let large = vec![7; SMALL + 1];
        let mut space = Space::new();
        let pieces = [b"".as_slice(), &large, b""].map(IoSlice::new);
        assert_eq!(gathered(&pieces, &mut space), Some(&large[..]));
        assert!(space.is_empty());
    }

    #[test]
    fn more_than_that_is_left_in_pieces() {
        let half = vec![7; SMALL / 2];
        assert_eq!(gather(&[&half, &half]), Some([&half[..], &half].concat()));
        assert_eq!(gather(&[&half, b"1", &half]), None);
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_or_moved(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..900), 0..4),
        ) {
            let all = pieces.concat();
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let one = pieces.iter().filter(|piece| !piece.is_empty()).count() == 1;
            let small = one || all.len() <= SMALL;
            prop_assert_eq!(gather(&slices), small.then_some(all));
        }
    }
}
