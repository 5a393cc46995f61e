use std::future::poll_fn;
use std::io::IoSlice;

use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

use super::*;
use crate::base::gather::SMALL;

/// Counts how it is written to: by one piece, or by several.
struct Counting(DuplexStream, usize, usize);

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.1 += 1;
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.2 += 1;
        Pin::new(&mut self.0).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Writes two pieces over a pipe that has so much room. What arrives, and how often it was
/// written to by one piece and by several.
async fn written(pieces: [&[u8]; 2], room: usize) -> (Vec<u8>, usize, usize) {
    let (ours, mut theirs) = duplex(room);
    let mut stream = Early::new(Counting(ours, 0, 0));
    let writing = async {
        let [mut first, mut second] = pieces;
        while !first.is_empty() || !second.is_empty() {
            let slices = [first, second].map(IoSlice::new);
            let pinned = |context: &mut Context<'_>| {
                Pin::new(&mut stream).poll_write_vectored(context, &slices)
            };
            let count = poll_fn(pinned).await.unwrap();
            let of_first = count.min(first.len());
            (first, second) = (&first[of_first..], &second[count - of_first..]);
        }
        (stream.inner.1, stream.inner.2)
    };
    let mut heard = vec![0; pieces.concat().len()];
    let ((one, several), read) = tokio::join!(writing, theirs.read_exact(&mut heard));
    read.unwrap();
    (heard, one, several)
}

#[tokio::test]
async fn few_bytes_are_written_as_one_piece_and_many_are_not_copied() {
    let large = vec![b'x'; SMALL];
    let room = 4 * SMALL;
    for (pieces, ways) in [
        ([b"head".as_slice(), b"body"], (1, 0)),
        ([b"head", &large[4..]], (1, 0)),
        ([b"head", &large[3..]], (0, 1)),
        ([b"", &large], (1, 0)),
    ] {
        let (heard, one, several) = written(pieces, room).await;
        assert_eq!((one, several), ways);
        assert_eq!(heard, pieces.concat());
    }
}

#[tokio::test]
async fn what_is_taken_in_parts_arrives_once_and_in_order() {
    let bytes: Vec<u8> = (0..3 * SMALL).map(|n| (n % 251) as u8).collect();
    for length in [2, SMALL, SMALL + 1, 3 * SMALL] {
        for room in [1, 7, SMALL - 1] {
            let (first, second) = bytes[..length].split_at(length / 3);
            let (heard, ..) = written([first, second], room).await;
            assert_eq!(heard, bytes[..length]);
        }
    }
}
