//! Addresses as text.

use std::io::Write as _;
use std::net::IpAddr;

/// Writes an address as its `Display` does, which costs many times as much.
pub fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        // Writing to a vector cannot fail.
        let _ = write!(out, "{address}");
        return;
    };
    for (at, part) in address.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        for (least, unit) in [(100, 100), (10, 10), (0, 1)] {
            if part >= least {
                out.push(b'0' + part / unit % 10);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_display_writes_them() {
        for text in ["1.20.255.0", "100.9.10.99", "0.0.0.0", "2001:db8::1"] {
            let mut written = Vec::new();
            write_address(&mut written, text.parse().unwrap());
            assert_eq!(written, text.as_bytes());
        }
    }
}
