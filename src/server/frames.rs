//! Makes HTTP/2's parser see pseudo-fields in trailers (RFC 9113 section 8.1).
//!
//! `h2` drops them unsaid, but refuses any that stand behind a field. So every
//! trailer section gets a field in front: `age`, which no trailer section may
//! have and which is removed from all of them ([`Trailers`]). It is a literal
//! that is not indexed (RFC 7541 section 6.2.2), so that what the two ends of
//! the connection know of each other's fields stays the same.
//!
//! Frames are followed by their heads; nothing is decoded.
//!
//! [`Trailers`]: crate::wire::body::Trailers

use std::collections::BTreeSet;
use std::io;

/// `age` (21 in the static table, RFC 7541 appendix A) without a value.
const FIELD: [u8; 3] = [0x0f, 21 - 15, 0];

/// The preface has a frame's place at the beginning.
const PREFACE: usize = 24;

const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What may stand before the first field of a section: the frame's head,
/// padding, priority, and two changes of the table's size.
const MOST_BEFORE: usize = HEAD + 1 + 5 + 2 * 6;

/// How many streams are remembered: many times those that there may be at once.
const MOST_OPEN: usize = 1000;

/// Follows the frames that a client sends.
#[derive(Debug)]
pub struct Frames {
    /// Bytes to be passed on unseen.
    left: usize,
    /// The beginning of a frame of which more has to be seen.
    held: Vec<u8>,
    /// The streams that the client has opened and not ended.
    open: BTreeSet<u32>,
}

/// What becomes of a frame, by its beginning.
enum Verdict {
    /// More of it has to be seen.
    More,
    /// It is passed on as it is.
    Pass,
    /// The field goes in here.
    Insert(usize),
}

impl Frames {
    /// At the beginning of a connection.
    pub fn new() -> Self {
        Self {
            left: PREFACE,
            held: Vec::new(),
            open: BTreeSet::new(),
        }
    }

    /// What the parser is to get for these bytes; `None`: just them, and for the
    /// end (no bytes) the end. Less than was given, or nothing, where a frame's beginning is not whole yet.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] if a trailer section begins in a way that
    /// nobody writes, so that the field cannot be put in.
    pub fn feed(&mut self, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        // Nothing is copied as long as nothing has to be changed.
        let mut changed = (!self.held.is_empty()).then(Vec::new);
        let mut rest = bytes;
        let mut passed = 0;
        while !rest.is_empty() {
            if self.left > 0 {
                let count = self.left.min(rest.len());
                let (now, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
                self.left -= count;
                passed += count;
                rest = after;
                if let Some(out) = &mut changed {
                    out.extend_from_slice(now);
                }
                continue;
            }
            let missing = HEAD.saturating_sub(self.held.len()).max(1);
            let count = missing.min(rest.len());
            let (now, after) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            self.held.extend_from_slice(now);
            rest = after;
            let verdict = self.verdict()?;
            if matches!(verdict, Verdict::Pass) && changed.is_none() {
                passed += self.held.len();
                self.go_on();
                continue;
            }
            let out =
                changed.get_or_insert_with(|| bytes.get(..passed).unwrap_or_default().to_vec());
            match verdict {
                Verdict::More => {}
                Verdict::Pass => {
                    out.extend_from_slice(&self.held);
                    self.go_on();
                }
                Verdict::Insert(at) => {
                    self.insert(at, out);
                    self.go_on();
                }
            }
        }
        Ok(changed)
    }

    /// The frame's length, type, flags and stream.
    fn head(&self) -> Option<(usize, u8, u8, u32)> {
        let [l1, l2, l3, kind, flags, s1, s2, s3, s4, ..] = *self.held.as_slice() else {
            return None;
        };
        let length = usize::try_from(u32::from_be_bytes([0, l1, l2, l3])).ok()?;
        let stream = u32::from_be_bytes([s1 & 0x7f, s2, s3, s4]);
        Some((length, kind, flags, stream))
    }

    fn verdict(&self) -> io::Result<Verdict> {
        let Some((length, kind, flags, stream)) = self.head() else {
            return Ok(Verdict::More);
        };
        if kind != HEADERS || !self.open.contains(&stream) {
            return Ok(Verdict::Pass);
        }
        let payload = self.held.get(HEAD..).unwrap_or_default();
        let mut at = 0;
        let mut padding = 0;
        if flags & PADDED != 0 {
            match payload.first() {
                None if length > 0 => return Ok(Verdict::More),
                None => return Ok(Verdict::Pass),
                Some(bytes) => padding = usize::from(*bytes),
            }
            at += 1;
        }
        if flags & PRIORITY != 0 {
            at += 5;
        }
        // Padding that does not fit is the parser's to refuse.
        let Some(end) = length.checked_sub(padding).filter(|end| *end >= at) else {
            return Ok(Verdict::Pass);
        };
        // A change of the table's size has to stay in front.
        'fields: while at < end {
            let Some(first) = payload.get(at) else {
                return self.more();
            };
            if first & 0xe0 != 0x20 {
                return Ok(Verdict::Insert(HEAD + at));
            }
            at += 1;
            if first & 0x1f != 0x1f {
                continue;
            }
            loop {
                let Some(byte) = payload.get(at) else {
                    if at < end {
                        return self.more();
                    }
                    break 'fields;
                };
                at += 1;
                if byte & 0x80 == 0 {
                    break;
                }
            }
        }
        // No field yet. There may be one in the frame behind it.
        match flags & END_HEADERS {
            0 => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a trailer section that begins with an empty frame",
            )),
            _ => Ok(Verdict::Pass),
        }
    }

    fn more(&self) -> io::Result<Verdict> {
        match self.held.len() < MOST_BEFORE {
            true => Ok(Verdict::More),
            false => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a trailer section that begins with many changes of the table",
            )),
        }
    }

    /// Passes on the rest of the frame whose beginning was held.
    fn go_on(&mut self) {
        let (length, kind, flags, stream) = self.head().unwrap_or_default();
        match kind {
            DATA | HEADERS if flags & END_STREAM != 0 => {
                self.open.remove(&stream);
            }
            RST_STREAM => {
                self.open.remove(&stream);
            }
            HEADERS => {
                self.open.insert(stream);
                // Those that we reset are not seen here.
                if self.open.len() > MOST_OPEN {
                    self.open.pop_first();
                }
            }
            _ => {}
        }
        self.left = (HEAD + length).saturating_sub(self.held.len());
        self.held.clear();
    }

    /// Writes the frame's beginning with the field in it.
    fn insert(&self, at: usize, out: &mut Vec<u8>) {
        let length = self.head().map_or(0, |(length, ..)| length);
        let longer = u32::try_from(length + FIELD.len()).unwrap_or(u32::MAX);
        let [_, l1, l2, l3] = longer.to_be_bytes();
        out.extend_from_slice(&[l1, l2, l3]);
        let (before, after) = self.held.split_at_checked(at).unwrap_or((&self.held, &[]));
        out.extend_from_slice(before.get(3..).unwrap_or_default());
        out.extend_from_slice(&FIELD);
        out.extend_from_slice(after);
    }
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let stream = stream.to_be_bytes();
        [&length[1..], &[kind, flags], &stream, payload].concat()
    }

    const SECTION: &[u8] = &[0, 1, b'x', 1, b'y'];

    fn with_field(flags: u8, before: &[u8], after: &[u8]) -> Vec<u8> {
        frame(HEADERS, flags, 1, &[before, &FIELD, after].concat())
    }

    /// The frames behind a request on stream 1, in pieces of every size.
    fn expect(frames: &[u8], wanted: &[u8]) {
        let open = frame(HEADERS, 4, 1, &[0x82, 0x86, 0x84]);
        let start = [&[b'p'; PREFACE][..], &frame(4, 0, 0, b""), &open].concat();
        let data = frame(0, 0, 1, b"0123456789");
        let sent = [&start[..], &data, frames, &data].concat();
        let wanted = [&start[..], &data, wanted, &data].concat();
        for piece in 1..=sent.len() {
            let mut parser = Frames::new();
            let mut got = Vec::new();
            for bytes in sent.chunks(piece) {
                match parser.feed(bytes).unwrap() {
                    Some(bytes) => got.extend(bytes),
                    None => got.extend(bytes),
                }
            }
            assert_eq!(got, wanted, "in pieces of {piece}");
        }
    }

    fn expect_same(frames: &[u8]) {
        expect(frames, frames);
    }

    #[test]
    fn a_trailer_section_gets_a_field_in_front() {
        expect(&frame(HEADERS, 5, 1, SECTION), &with_field(5, &[], SECTION));
        let continued = frame(9, 4, 1, SECTION);
        expect(
            &[frame(HEADERS, 1, 1, SECTION), continued.clone()].concat(),
            &[with_field(1, &[], SECTION), continued].concat(),
        );
    }

    #[test]
    fn padding_and_priority_and_sizes_stay_where_they_are() {
        let padded = [&[2][..], SECTION, &[0, 0]].concat();
        expect(
            &frame(HEADERS, 0xd, 1, &padded),
            &with_field(0xd, &[2], &[SECTION, &[0, 0]].concat()),
        );
        let priority = [0, 0, 0, 0, 9];
        expect(
            &frame(HEADERS, 0x25, 1, &[&priority, SECTION].concat()),
            &with_field(0x25, &priority, SECTION),
        );
        let sizes = [0x20, 0x3f, 0xe1, 0x1f];
        expect(
            &frame(HEADERS, 5, 1, &[&sizes, SECTION].concat()),
            &with_field(5, &sizes, SECTION),
        );
    }

    #[test]
    fn everything_else_is_left_alone() {
        expect_same(b"");
        expect_same(&frame(HEADERS, 5, 3, SECTION));
        let ended = frame(0, 1, 1, b"end");
        expect_same(&[ended, frame(HEADERS, 5, 1, SECTION)].concat());
        let reset = frame(3, 0, 1, &[0; 4]);
        expect_same(&[reset, frame(HEADERS, 5, 1, SECTION)].concat());
        expect_same(&frame(HEADERS, 5, 1, b""));
        expect_same(&frame(HEADERS, 5, 1, &[0x20]));
        expect_same(&frame(HEADERS, 5, 1, &[0x3f, 0xff]));
        expect_same(&frame(HEADERS, 0xd, 1, &[200, 1, 2]));
        expect_same(&frame(HEADERS, 0xd, 1, b""));
        expect_same(&frame(6, 0, 0, &[0; 8]));
    }

    #[test]
    fn where_it_cannot_go_in_the_connection_ends() {
        for (flags, payload) in [(1, &b""[..]), (1, &[0x20]), (5, &[0x20; 40])] {
            let mut parser = Frames::new();
            let open = frame(HEADERS, 4, 1, &[0x82]);
            let bytes = [
                &[b'p'; PREFACE][..],
                &open,
                &frame(HEADERS, flags, 1, payload),
            ]
            .concat();
            assert!(parser.feed(&bytes).is_err(), "{payload:?}");
        }
    }
}
