//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): what
//! a proxy says of the client before the first byte of a connection.
//!
//! The header is read by itself, in a bounded number of bytes; the caller
//! bounds the time. What comes after it stays pending.

use std::io;
use std::net::SocketAddr;

use bytes::Buf;
use proxy_header::{ParseConfig, Protocol, ProxyHeader};

use super::stream::{Early, Io};

const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest header of version 1.
const V1_LONGEST: usize = 107;

/// Of version 2: signature, command, family, length.
const V2_FIXED: usize = 16;

/// Version 2, for a connection of the proxy's own.
const V2_LOCAL: u8 = 0x20;

/// The longest rest of version 2 that is taken: addresses and TLVs. HAProxy's
/// own, with client certificates, are far below.
const V2_LONGEST: usize = 4096;

/// How much is read at once.
const PIECE: usize = 256;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxied {
    /// The connection is a client's: where it came from and went to.
    Client(SocketAddr, SocketAddr),
    /// The connection is the proxy's own (`LOCAL`: a health check), or it does
    /// not know whose (`UNKNOWN`): the socket's own addresses count.
    Own,
}

/// Reads the header that a trusted proxy must send.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] if there is none or a malformed one, else
/// what reading gave.
pub async fn read<T: Io>(stream: &mut Early<T>) -> io::Result<Proxied> {
    loop {
        if let Some((proxied, length)) = parse(&stream.pending)? {
            stream.pending.advance(length);
            return Ok(proxied);
        }
        if stream.read_more(PIECE).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Whether these first bytes are, or may become, a PROXY header; `None`: one
/// cannot tell yet. No request and no TLS handshake begins like one.
pub fn looks_like_one(bytes: &[u8]) -> Option<bool> {
    let begins = |signature: &[u8]| {
        let common = bytes.len().min(signature.len());
        (bytes.get(..common) == signature.get(..common)).then_some(common == signature.len())
    };
    match (begins(V1), begins(V2)) {
        (None, None) => Some(false),
        (Some(true), _) | (_, Some(true)) => Some(true),
        _ => None,
    }
}

/// The header that these bytes begin with, and its length; `None`: more bytes
/// are needed.
fn parse(bytes: &[u8]) -> io::Result<Option<(Proxied, usize)>> {
    match looks_like_one(bytes) {
        None => return Ok(None),
        Some(false) => return Err(malformed()),
        Some(true) => {}
    }
    let header = if bytes.starts_with(V1) {
        let searched = bytes.get(..bytes.len().min(V1_LONGEST)).unwrap_or(bytes);
        match memchr::memchr(b'\n', searched) {
            Some(end) => bytes.get(..=end),
            None if searched.len() == V1_LONGEST => return Err(malformed()),
            None => return Ok(None),
        }
    } else {
        let Some([high, low]) = bytes.get(V2_FIXED - 2..V2_FIXED) else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > V2_LONGEST {
            return Err(malformed());
        }
        bytes.get(..V2_FIXED + length)
    };
    let Some(header) = header else {
        return Ok(None);
    };
    // What comes with it is to be skipped, whatever it is.
    if header.starts_with(V2) && header.get(V2.len()) == Some(&V2_LOCAL) {
        return Ok(Some((Proxied::Own, header.len())));
    }
    let (parsed, length) =
        ProxyHeader::parse(header, ParseConfig::default()).map_err(|_| malformed())?;
    // Nothing may be left over, and TLVs must end just where the header does.
    if length != header.len() || parsed.tlvs().any(|tlv| tlv.is_err()) {
        return Err(malformed());
    }
    let proxied = match parsed.proxied_address() {
        None => Proxied::Own,
        Some(_) if header.starts_with(V1) && !has_plain_ports(header) => {
            return Err(malformed());
        }
        Some(address) if address.protocol == Protocol::Stream => {
            Proxied::Client(address.source, address.destination)
        }
        Some(_) => return Err(malformed()),
    };
    Ok(Some((proxied, length)))
}

/// Whether the ports of version 1 are what its text calls a port: digits, and no
/// needless zero. (Parsing an integer takes a sign as well.)
fn has_plain_ports(header: &[u8]) -> bool {
    let line = header.strip_suffix(b"\r\n").unwrap_or(header);
    line.rsplit(|byte| *byte == b' ').take(2).all(|port| {
        let digits = port.iter().all(u8::is_ascii_digit);
        digits && !matches!(port, [b'0', _, ..])
    })
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, rest].concat()
    }

    const ADDRESSES: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdd, 0xd5, 0x01, 0xbb];

    fn client() -> Proxied {
        Proxied::Client(
            "192.0.2.1:56789".parse().unwrap(),
            "198.51.100.2:443".parse().unwrap(),
        )
    }

    /// Whole, in every beginning, and with more behind it.
    fn good(header: &[u8], wanted: Proxied) {
        assert_eq!(parse(header).unwrap(), Some((wanted, header.len())));
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]).unwrap(), None, "{end}");
        }
        let more = [header, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&more).unwrap(), Some((wanted, header.len())));
    }

    #[test]
    fn version_1() {
        good(b"PROXY TCP4 192.0.2.1 198.51.100.2 56789 443\r\n", client());
        good(b"PROXY UNKNOWN\r\n", Proxied::Own);
        good(b"PROXY UNKNOWN ffff:: a 1 2\r\n", Proxied::Own);
        good(
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n",
            Proxied::Client(
                "[2001:db8::1]:1".parse().unwrap(),
                "[2001:db8::2]:2".parse().unwrap(),
            ),
        );
    }

    #[test]
    fn version_2() {
        good(&v2(0x21, 0x11, &ADDRESSES), client());
        good(&v2(0x20, 0x00, b""), Proxied::Own);
        good(&v2(0x20, 0x11, &ADDRESSES), Proxied::Own);
        good(&v2(0x20, 0x7f, b"odd"), Proxied::Own);
        good(&v2(0x21, 0x00, b""), Proxied::Own);
        let tlv = [&ADDRESSES[..], &[0x04, 0, 2, 0, 0, 0xea, 0, 0]].concat();
        good(&v2(0x21, 0x11, &tlv), client());
    }

    #[test]
    fn tlvs_must_end_where_the_header_does() {
        for tail in [
            &[0x04][..],
            &[0x04, 0],
            &[0x04, 0, 1],
            &[0x04, 0, 9, 1, 2],
            &[0x04, 0, 0, 0x04],
            &[0x04, 0xff, 0xff, 0],
        ] {
            let rest = [&ADDRESSES[..], tail].concat();
            assert!(parse(&v2(0x21, 0x11, &rest)).is_err(), "{tail:?}");
        }
    }

    #[test]
    fn malformed_headers() {
        for header in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56789 443\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56789\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 56789 443 \r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            b"PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 99999 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 1 +2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 1 00\r\n",
            b"PROXY \r\n",
            &[b"PROXY UNKNOWN", &[b' '; 200][..]].concat(),
            &v2(0x31, 0x11, &ADDRESSES),
            &v2(0x22, 0x11, &ADDRESSES),
            &v2(0x21, 0x12, &ADDRESSES),
            &v2(0x21, 0x51, &ADDRESSES),
            &v2(0x21, 0x11, &ADDRESSES[..11]),
            &v2(0x21, 0x11, b""),
            &v2(0x21, 0x00, &[0; V2_LONGEST + 1]),
        ] {
            assert!(parse(header).is_err(), "{header:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn noise_is_no_panic(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            for signature in [V1, V2, b""] {
                let _ = parse(&[signature, &tail].concat());
            }
        }
    }
}
