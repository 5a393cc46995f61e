//! Where WebSocket frames end (RFC 6455 section 5.2), as far as that must be known
//! to put a frame of our own between two of somebody else's.

/// The code of the close frame that ends the WebSocket of a session that is over;
/// from the range for private use (RFC 6455 section 7.4.2).
pub const SESSION_OVER: u16 = 4401;

/// Follows one direction of a WebSocket.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// The bytes of the present frame's header that have passed.
    header: [u8; 14],
    length: usize,
    /// The bytes of its payload that have not.
    payload: u64,
    /// What passes is no WebSocket, so that there is no end to know of.
    lost: bool,
}

impl Frames {
    /// Whether a frame has just ended, or none has begun.
    pub fn at_edge(&self) -> bool {
        self.length == 0 && self.payload == 0 && !self.lost
    }

    /// These bytes pass.
    pub fn pass(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.step(rest);
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// How many of these bytes belong to the present frame; 0 at its edge.
    pub fn until_edge(&self, bytes: &[u8]) -> usize {
        if self.lost {
            return bytes.len();
        }
        let mut ahead = self.clone();
        let mut taken = 0;
        while !ahead.at_edge() && taken < bytes.len() {
            taken += ahead.step(bytes.get(taken..).unwrap_or_default());
        }
        taken
    }

    /// Takes one byte of a header, or as much of a payload as there is. Answers how
    /// many bytes that were; never 0, if there are any.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.lost {
            return bytes.len();
        }
        if self.payload > 0 {
            let there = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let taken = there.min(self.payload);
            self.payload -= taken;
            return usize::try_from(taken).unwrap_or(bytes.len());
        }
        let (Some(byte), Some(place)) = (bytes.first(), self.header.get_mut(self.length)) else {
            self.lost = true;
            return bytes.len();
        };
        *place = *byte;
        self.length += 1;
        if let Some(payload) = self.complete() {
            self.payload = payload;
            self.length = 0;
        }
        1
    }

    /// The length of the payload, once the header is whole.
    fn complete(&self) -> Option<u64> {
        let [_, second, a, b, c, d, e, f, g, h, ..] = self.header;
        let (extended, payload) = match second & 0x7f {
            126 => (2, u64::from(u16::from_be_bytes([a, b]))),
            127 => (8, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
            short => (0, u64::from(short)),
        };
        let masked = match second & 0x80 {
            0 => 0,
            _ => 4,
        };
        (self.length >= 2 && self.length == 2 + extended + masked).then_some(payload)
    }
}

/// A close frame with a reason, of which only the first 123 bytes are sent. A client
/// masks what it sends, a server does not.
pub fn close(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.bytes().take(123));
    // A control frame's length always fits in seven bits (section 5.5).
    let length = u8::try_from(payload.len()).unwrap_or(2) & 0x7f;
    let mut frame = vec![0x88, length];
    if let Some(mask) = mask {
        frame = vec![0x88, length | 0x80];
        frame.extend(mask);
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
    }
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let bit = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        match length {
            0..=125 => frame.push(bit | length as u8),
            126..=0xffff => {
                frame.push(bit | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(bit | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        frame.extend(vec![0xff; length]);
        frame
    }

    #[test]
    fn close_frames_are_as_the_standard_has_them() {
        assert_eq!(close(4401, "", None), [0x88, 2, 0x11, 0x31]);
        assert_eq!(close(4401, "ab", None), [0x88, 4, 0x11, 0x31, b'a', b'b']);
        let masked = close(4401, "", Some([1, 1, 1, 1]));
        assert_eq!(masked, [0x88, 0x82, 1, 1, 1, 1, 0x10, 0x30]);
        assert_eq!(close(4401, &"x".repeat(500), None).len(), 127);
    }

    proptest! {
        #[test]
        fn edges_are_where_frames_end(
            lengths in prop::collection::vec((prop_oneof![0usize..300, 65_530usize..65_540], any::<bool>()), 1..5),
            cuts in prop::collection::vec(1usize..200, 1..50),
        ) {
            let frames: Vec<Vec<u8>> = lengths.iter().map(|&(n, m)| frame(n, m)).collect();
            let ends: Vec<usize> = frames
                .iter()
                .scan(0, |end, frame| { *end += frame.len(); Some(*end) })
                .collect();
            let bytes = frames.concat();
            let (mut at, mut state) = (0, Frames::default());
            for cut in cuts.iter().cycle() {
                prop_assert_eq!(state.at_edge(), at == 0 || ends.contains(&at));
                let rest = &bytes[at..];
                if rest.is_empty() {
                    break;
                }
                let edge = match state.at_edge() {
                    true => at,
                    false => *ends.iter().find(|end| **end > at).unwrap(),
                };
                prop_assert_eq!(state.until_edge(rest), edge - at);
                // Small steps through headers, and large ones through payloads.
                let step = if at % 7 == 0 { *cut * 50 } else { *cut };
                let step = step.min(rest.len());
                state.pass(&rest[..step]);
                at += step;
            }
        }
    }
}
