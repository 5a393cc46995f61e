//! The PROXY header, versions 1 and 2: what is taken for one is one by the letter of
//! HAProxy's `proxy-protocol.txt`, says what was understood, and no byte more than it
//! is taken from the stream, however the stream is cut into reads.
//!
//! ```text
//! 7                                        this many bytes a read
//! PROXY TCP4 192.0.2.1 198.51.100.2 1 2    the stream
//! ```

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use cloakroom::server::proxy_protocol::{Proxied, looks_like_one, read};
use cloakroom::server::stream::Early;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::line;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest of version 1, with its line end.
const V1_LONGEST: usize = 107;

/// The longest rest of version 2 that has to be taken.
const V2_LONGEST: usize = 4096;

pub fn run(input: &[u8]) {
    let (first, stream) = line(input);
    let step = std::str::from_utf8(first).ok().and_then(|n| n.parse().ok());
    let Some(step @ 1..) = step else {
        return;
    };
    let wanted = header(stream);
    let (result, left) = take(stream, step);
    assert_eq!(result, take(stream, usize::MAX).0, "the cuts matter");
    match (wanted, result) {
        (Wanted::Header(proxied, length), Ok(got)) => {
            assert_eq!(got, proxied);
            assert_eq!(left, &stream[length..], "not what stands behind it");
        }
        // Extensions have contents of their own, which may be refused.
        (Wanted::Doubtful(proxied, length), Ok(got)) => {
            assert_eq!(got, proxied);
            assert_eq!(left, &stream[length..], "not what stands behind it");
        }
        (Wanted::Doubtful(..) | Wanted::Malformed, Err(ErrorKind::InvalidData)) => {}
        // It is malformed already, or would be with what is missing.
        (Wanted::More, Err(ErrorKind::UnexpectedEof)) => {}
        (wanted, result) => panic!("{wanted:?}, but {result:?}"),
    }
    looks(stream);
}

/// Nobody else's first bytes are taken for a header, and no header for them.
fn looks(stream: &[u8]) {
    let begins = |signature: &[u8]| stream.starts_with(signature);
    let may_become = |signature: &[u8]| signature.starts_with(stream);
    let wanted = match (begins(b"PROXY ") || begins(V2), stream) {
        (true, _) => Some(true),
        (false, rest) if may_become(b"PROXY ") || may_become(V2) || rest.is_empty() => None,
        (false, _) => Some(false),
    };
    assert_eq!(looks_like_one(stream), wanted);
}

/// What stands at the beginning of a stream.
#[derive(Debug)]
enum Wanted {
    Header(Proxied, usize),
    /// A header, if its extensions are fine.
    Doubtful(Proxied, usize),
    Malformed,
    More,
}

fn header(stream: &[u8]) -> Wanted {
    if stream.starts_with(b"PROXY ") {
        return version_1(stream);
    }
    if stream.starts_with(V2) {
        return version_2(stream);
    }
    match V2.starts_with(stream) || b"PROXY ".starts_with(stream) {
        true => Wanted::More,
        false => Wanted::Malformed,
    }
}

fn version_1(stream: &[u8]) -> Wanted {
    let most = &stream[..stream.len().min(V1_LONGEST)];
    let Some(end) = most.iter().position(|byte| *byte == b'\n') else {
        return match most.len() < V1_LONGEST {
            true => Wanted::More,
            false => Wanted::Malformed,
        };
    };
    let Some(text) = most[..end].strip_suffix(b"\r") else {
        return Wanted::Malformed;
    };
    if text.contains(&b'\r') {
        return Wanted::Malformed;
    }
    let text = &text[b"PROXY ".len()..];
    if text.starts_with(b"UNKNOWN") {
        return Wanted::Header(Proxied::Own, end + 1);
    }
    let Ok(text) = std::str::from_utf8(text) else {
        return Wanted::Malformed;
    };
    let words: Vec<&str> = text.split(' ').collect();
    let [family, source, destination, from, to] = words.as_slice() else {
        return Wanted::Malformed;
    };
    let ip = |text: &str| match *family {
        "TCP4" => ipv4(text).map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let port = |text: &str| number(text).and_then(|n| u16::try_from(n).ok());
    match (ip(source), ip(destination), port(from), port(to)) {
        (Some(source), Some(destination), Some(from), Some(to)) => Wanted::Header(
            Proxied::Client((source, from).into(), (destination, to).into()),
            end + 1,
        ),
        _ => Wanted::Malformed,
    }
}

fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Option<Vec<u8>> = text
        .split('.')
        .map(|part| number(part).and_then(|n| u8::try_from(n).ok()))
        .collect();
    let parts: [u8; 4] = parts?.try_into().ok()?;
    Some(parts.into())
}

/// A decimal number as it is written by those who write no more than is needed.
fn number(text: &str) -> Option<u32> {
    let value: u32 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

fn version_2(stream: &[u8]) -> Wanted {
    let Some([command, family, high, low]) = stream.get(12..16) else {
        return Wanted::More;
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if length > V2_LONGEST {
        return Wanted::Malformed;
    }
    let Some(rest) = stream.get(16..16 + length) else {
        return Wanted::More;
    };
    let end = 16 + length;
    match command {
        // The whole block is to be skipped, whatever it holds.
        0x20 => return Wanted::Header(Proxied::Own, end),
        0x21 => {}
        _ => return Wanted::Malformed,
    }
    let addresses = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 | 0x32 => 216,
        _ => return Wanted::Malformed,
    };
    let Some((addresses, extensions)) = rest.split_at_checked(addresses) else {
        return Wanted::Malformed;
    };
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    let proxied = match family {
        0x11 => {
            let ip =
                |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&addresses[at..at + 4]).unwrap());
            let socket = |at, port| SocketAddr::new(ip(at).into(), port);
            Proxied::Client(socket(0, port(8)), socket(4, port(10)))
        }
        0x21 => {
            let ip =
                |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&addresses[at..at + 16]).unwrap());
            let socket = |at, port| SocketAddr::new(ip(at).into(), port);
            Proxied::Client(socket(0, port(32)), socket(16, port(34)))
        }
        _ => Proxied::Own,
    };
    match kinds(extensions) {
        None => Wanted::Malformed,
        Some(kinds)
            if kinds
                .iter()
                .all(|kind| !matches!(kind, 2 | 3 | 0x20..=0x25 | 0x30)) =>
        {
            Wanted::Header(proxied, end)
        }
        Some(_) => Wanted::Doubtful(proxied, end),
    }
}

/// The kinds of the extensions, which must fill their place.
fn kinds(mut extensions: &[u8]) -> Option<Vec<u8>> {
    let mut kinds = Vec::new();
    while let [kind, high, low, rest @ ..] = extensions {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        extensions = rest.get(length..)?;
        kinds.push(*kind);
    }
    extensions.is_empty().then_some(kinds)
}

/// What is read, and what is left of the stream then.
fn take(stream: &[u8], step: usize) -> (Result<Proxied, ErrorKind>, Vec<u8>) {
    let drips = Drips {
        bytes: stream.to_vec(),
        step,
    };
    let mut early = Early::new(drips);
    let polled = {
        let reading = pin!(read(&mut early));
        reading.poll(&mut Context::from_waker(Waker::noop()))
    };
    let Poll::Ready(result) = polled else {
        panic!("it waits for a stream that never lets anybody wait");
    };
    let left = [&early.pending[..], &early.inner.bytes].concat();
    (result.map_err(|error| error.kind()), left)
}

/// A stream that gives so many bytes a read.
struct Drips {
    bytes: Vec<u8>,
    step: usize,
}

impl AsyncRead for Drips {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.step.min(self.bytes.len()).min(buffer.remaining());
        buffer.put_slice(&self.bytes[..count]);
        self.bytes.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Drips {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        panic!("nothing is written before the first request")
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
