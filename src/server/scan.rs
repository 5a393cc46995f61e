//! What the bytes of HTTP/1 say that the parsed request does not: a fragment
//! in the request target (the `http` crate drops it unsaid), a line that ends
//! in a bare LF, and whether a message has come to its end.
//!
//! The scanner follows the framing of each message (RFC 9112 section 6), so it
//! knows a request line from the same bytes in a body, however they are cut
//! into reads. It copies nothing but a field line that is cut by a read. It
//! only ever adds refusals to what the parser accepts: where it cannot follow
//! (an upgrade, framing that is refused anyway), it goes blind for the rest of
//! the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::refusal::Refusal;

/// The longest part of a line that is kept over reads. The fields that matter
/// are shorter.
const KEPT: usize = 128;

/// No request was found bad.
const NONE: u64 = u64::MAX;

/// What was found, shared by the stream and the requests of a connection.
#[derive(Clone, Debug)]
pub struct Findings(Arc<Cells>);

#[derive(Debug)]
struct Cells {
    /// Requests that the parser has read.
    parsed: AtomicU64,
    /// Which request has a fragment, counted from 0.
    fragment: AtomicU64,
    /// Which request has a bare LF.
    bare_lf: AtomicU64,
    /// How many requests came, if all that came is whole.
    whole: AtomicU64,
}

impl Findings {
    /// How many requests the parser has read.
    pub fn requests(&self) -> u64 {
        self.0.parsed.load(Ordering::Relaxed)
    }

    /// Whether all that came is whole messages, and the parser has read each of
    /// their heads.
    pub fn is_settled(&self) -> bool {
        self.0.whole.load(Ordering::Relaxed) == self.requests()
    }

    /// The verdict on the next request. To be asked once for each, in order.
    pub fn next_request(&self) -> Option<Refusal> {
        let cells = &self.0;
        let number = cells.parsed.fetch_add(1, Ordering::Relaxed);
        if cells.bare_lf.load(Ordering::Relaxed) == number {
            return Some(Refusal::BadFraming);
        }
        (cells.fragment.load(Ordering::Relaxed) == number).then_some(Refusal::BadRequestTarget)
    }
}

/// Follows the bytes that a client sends.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    findings: Findings,
    /// The request that is being read, counted from 0.
    number: u64,
    framing: Framing,
    /// The beginning of a line that is not whole yet, and whether all of it.
    line: Vec<u8>,
    cut: bool,
    broken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    RequestLine,
    Fields,
    Body(u64),
    ChunkSize,
    /// This many bytes of data, the line end included.
    Chunk(u64),
    Trailers,
    Blind,
}

/// What the fields say of the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    /// Another protocol is asked for.
    upgrade: bool,
    lost: bool,
}

impl Scanner {
    /// At the beginning of a connection.
    pub fn new() -> Self {
        Self {
            state: State::RequestLine,
            findings: Findings(Arc::new(Cells {
                parsed: AtomicU64::new(0),
                fragment: AtomicU64::new(NONE),
                bare_lf: AtomicU64::new(NONE),
                whole: AtomicU64::new(0),
            })),
            number: 0,
            framing: Framing::default(),
            line: Vec::new(),
            cut: false,
            broken: false,
        }
    }

    /// What it finds.
    pub fn findings(&self) -> Findings {
        self.findings.clone()
    }

    /// How many requests the parser has read.
    pub fn requests(&self) -> u64 {
        self.findings.requests()
    }

    /// Whether everything that came is whole messages.
    pub fn between_messages(&self) -> bool {
        self.state == State::RequestLine && self.line.is_empty() && !self.cut
    }

    /// Whether nothing is known of what comes behind the head that the parser has read
    /// last.
    pub fn is_blind(&self) -> bool {
        self.state == State::Blind && self.number <= self.requests()
    }

    /// Whether bytes came that belong to no request that the parser has read,
    /// or to the body of the last one.
    pub fn has_more(&self) -> bool {
        self.number > self.requests() || !self.between_messages()
    }

    /// Whether the message that is being read can not become whole: its
    /// trailers have a line that ends in a bare LF (RFC 9112 section 7.1).
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Takes in what was read. Gives how many of these bytes the parser may
    /// have: all, or those before the line that breaks a message. Requests that
    /// are whole before it are served.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let good = self.follow(bytes);
        let whole = match self.between_messages() {
            true => self.number,
            false => NONE,
        };
        self.findings.0.whole.store(whole, Ordering::Relaxed);
        good
    }

    fn follow(&mut self, bytes: &[u8]) -> usize {
        if self.broken {
            return 0;
        }
        let mut left = bytes;
        while !left.is_empty() {
            let rest = match self.state {
                State::Blind => return bytes.len(),
                State::Body(more) => self.pass(left, more, State::Body, State::RequestLine),
                State::Chunk(more) => self.pass(left, more, State::Chunk, State::ChunkSize),
                _ => self.line(left),
            };
            if self.broken {
                return bytes.len() - left.len();
            }
            left = rest;
        }
        bytes.len()
    }

    /// Passes over content.
    fn pass<'b>(
        &mut self,
        bytes: &'b [u8],
        left: u64,
        more: fn(u64) -> State,
        then: State,
    ) -> &'b [u8] {
        let here = usize::try_from(left).unwrap_or(usize::MAX);
        match bytes.split_at_checked(here) {
            Some((_, rest)) => {
                self.state = then;
                rest
            }
            None => {
                let passed = u64::try_from(bytes.len()).unwrap_or(left);
                self.state = more(left.saturating_sub(passed));
                &[]
            }
        }
    }

    /// Takes one line, or the part of it that is there.
    fn line<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.keep(bytes);
            return &[];
        };
        let (here, rest) = bytes.split_at_checked(end + 1).unwrap_or((bytes, &[]));
        if self.line.is_empty() && !self.cut {
            self.whole_line(here, false);
        } else {
            self.keep(here);
            let line = std::mem::take(&mut self.line);
            let cut = std::mem::take(&mut self.cut);
            self.whole_line(&line, cut);
            self.line = line;
            self.line.clear();
        }
        rest
    }

    /// Keeps the beginning of a line, and its last two bytes.
    fn keep(&mut self, mut bytes: &[u8]) {
        if self.state == State::ChunkSize {
            bytes = self.without_zeros(bytes);
        }
        // A fragment may stand behind what is kept.
        if self.state == State::RequestLine && memchr::memchr(b'#', bytes).is_some() {
            self.flag_fragment();
        }
        let room = KEPT.saturating_sub(self.line.len());
        match bytes.split_at_checked(room) {
            None => self.line.extend_from_slice(bytes),
            Some((fits, over)) => {
                self.line.extend_from_slice(fits);
                self.cut |= !over.is_empty();
                for byte in over.iter().rev().take(2).rev() {
                    if self.line.len() >= KEPT + 2 {
                        self.line.remove(KEPT);
                    }
                    self.line.push(*byte);
                }
            }
        }
    }

    /// Any number of zeros may stand before a size; more than one would only
    /// take the room of the digits.
    fn without_zeros<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        if !matches!(self.line.as_slice(), b"" | b"0") {
            return bytes;
        }
        let zeros = bytes.iter().take_while(|byte| **byte == b'0').count();
        let needless = zeros.saturating_sub(usize::from(self.line.is_empty()));
        bytes.get(needless..).unwrap_or(bytes)
    }

    fn whole_line(&mut self, line: &[u8], cut: bool) {
        let content = match line {
            [content @ .., b'\r', b'\n'] => content,
            [content @ .., b'\n'] => {
                self.bare_lf();
                content
            }
            _ => line,
        };
        match self.state {
            State::RequestLine if content.is_empty() => {}
            State::RequestLine => {
                if memchr::memchr(b'#', content).is_some() {
                    self.flag_fragment();
                }
                self.framing = Framing::default();
                self.state = State::Fields;
            }
            State::Fields if content.is_empty() => self.end_of_head(),
            // No honest one is that long, and what it hides is how long the content is.
            State::Fields if self.framing.field(content) && (cut || content.len() > KEPT) => {
                self.flag(&self.findings.0.bare_lf);
            }
            State::Fields => {}
            State::ChunkSize => self.state = chunk(content),
            State::Trailers if content.is_empty() => self.state = State::RequestLine,
            _ => {}
        }
    }

    fn end_of_head(&mut self) {
        self.number += 1;
        self.state = match self.framing {
            Framing { lost: true, .. } => State::Blind,
            _ if self.framing.may_upgrade() => State::Blind,
            Framing {
                chunked: true,
                length: None,
                ..
            } => State::ChunkSize,
            Framing { chunked: true, .. } => State::Blind,
            Framing {
                length: Some(length @ 1..),
                ..
            } => State::Body(length),
            _ => State::RequestLine,
        };
    }

    fn flag_fragment(&self) {
        self.flag(&self.findings.0.fragment);
    }

    /// In a head it is refused; in the line of a chunk the parser refuses it;
    /// in trailers the parser would take it, and the message for whole.
    fn bare_lf(&mut self) {
        match self.state {
            State::RequestLine | State::Fields => self.flag(&self.findings.0.bare_lf),
            State::Trailers => {
                self.broken = true;
                self.state = State::Blind;
            }
            _ => self.state = State::Blind,
        }
    }

    /// Flags the present request. What comes after one that is refused is not
    /// read, so the first finding of a kind is the one that counts.
    fn flag(&self, cell: &AtomicU64) {
        let set = Ordering::Relaxed;
        let _ = cell.compare_exchange(NONE, self.number, set, set);
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Framing {
    /// Takes note of a field. Answers whether it says how long the content is.
    fn field(&mut self, line: &[u8]) -> bool {
        let Some(&first) = line.first() else {
            return false;
        };
        if !matches!(first | 0x20, b'c' | b't' | b'u') {
            return false;
        }
        if let Some(value) = value_of(line, b"content-length") {
            let length = std::str::from_utf8(value)
                .ok()
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|text| text.parse().ok());
            self.lost |= length.is_none() || self.length.is_some_and(|l| Some(l) != length);
            self.length = length;
            true
        } else if let Some(value) = value_of(line, b"transfer-encoding") {
            self.lost |= self.chunked || !value.eq_ignore_ascii_case(b"chunked");
            self.chunked = true;
            true
        } else {
            self.upgrade |= value_of(line, b"upgrade").is_some();
            false
        }
    }

    /// What follows may be another protocol. A request with content is never agreed to.
    fn may_upgrade(&self) -> bool {
        self.upgrade && !self.chunked && self.length.unwrap_or(0) == 0
    }
}

/// The value of a line, if it is one of this field.
fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let (colon, value) = rest.split_first()?;
    (*colon == b':' && start.eq_ignore_ascii_case(name)).then(|| value.trim_ascii())
}

/// Reads `chunk-size [ chunk-ext ]` (RFC 9112 section 7.1). Where the parser
/// refuses the line there is nothing to follow.
fn chunk(line: &[u8]) -> State {
    let end = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let (digits, rest) = line.split_at_checked(end).unwrap_or((line, &[]));
    if memchr::memchr(b'\r', rest).is_some() || !matches!(rest.trim_ascii_start(), [] | [b';', ..])
    {
        return State::Blind;
    }
    let size = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    match size {
        None => State::Blind,
        Some(0) => State::Trailers,
        Some(size) => State::Chunk(size.saturating_add(2)),
    }
}

#[cfg(test)]
mod tests;
