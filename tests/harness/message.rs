//! HTTP/1.1 messages, read strictly (RFC 9112): whatever this reader does not
//! take is an error, never a guess.

use std::io::{self, Read};

/// Field lines in the order in which they arrived, repeats included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, Vec<u8>)>);

impl Fields {
    /// Every value of a field, by its name in any case.
    pub fn all(&self, name: &str) -> Vec<String> {
        let wanted = |(n, _): &&(String, Vec<u8>)| n.eq_ignore_ascii_case(name);
        let text = |(_, v): &(String, Vec<u8>)| String::from_utf8_lossy(v).into_owned();
        self.0.iter().filter(wanted).map(text).collect()
    }

    /// The value of a field; `None` if it is absent.
    ///
    /// # Panics
    /// If it is there more than once.
    pub fn get(&self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        assert!(values.len() < 2, "{name} is there {} times", values.len());
        values.pop()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// The names in order, as they were spelt.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// A start line and its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Every byte, the empty line at the end included.
    pub raw: Vec<u8>,
    /// The request line or status line.
    pub start: String,
    pub fields: Fields,
}

/// A body as it was framed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Every byte on the wire, chunk sizes included.
    pub raw: Vec<u8>,
    /// What it carries.
    pub content: Vec<u8>,
    pub trailers: Fields,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

impl Head {
    fn parse(raw: Vec<u8>) -> io::Result<Self> {
        let text = raw
            .strip_suffix(b"\r\n\r\n")
            .ok_or_else(|| bad("head without end"))?;
        let mut lines = split_lines(text)?.into_iter();
        let start = lines.next().unwrap_or_default();
        let start = String::from_utf8(start.to_vec()).map_err(|_| bad("start line"))?;
        let fields = lines.map(parse_field).collect::<io::Result<_>>()?;
        Ok(Self {
            start,
            fields: Fields(fields),
            raw,
        })
    }

    /// How the body of a request with this head ends (RFC 9112 section 6.3).
    pub fn request_framing(&self) -> io::Result<Framing> {
        self.framing(Framing::Length(0))
    }

    /// How the body of a response with this head ends, where it has one.
    pub fn response_framing(&self) -> io::Result<Framing> {
        self.framing(Framing::UntilClose)
    }

    fn framing(&self, otherwise: Framing) -> io::Result<Framing> {
        let codings = self.fields.all("transfer-encoding");
        let lengths = self.fields.all("content-length");
        match (codings.as_slice(), lengths.as_slice()) {
            ([], []) => Ok(otherwise),
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            ([], [length]) if is_digits(length) => length
                .parse()
                .map(Framing::Length)
                .map_err(|_| bad("Content-Length")),
            _ => Err(bad(format!("framing: {codings:?} {lengths:?}"))),
        }
    }
}

/// Reads messages from a stream.
pub struct Reader<S> {
    pub stream: S,
    buffer: Vec<u8>,
}

impl<S: Read> Reader<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// What was read but not yet used.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.buffer)
    }

    /// What was read but not yet used.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// The next head; `None` if the peer has closed in between messages.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                return Head::parse(self.take(at + 4)).map(Some);
            }
            if self.fill()? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(closed("in a head")),
                };
            }
        }
    }

    pub fn body(&mut self, framing: Framing) -> io::Result<Body> {
        match framing {
            Framing::Length(length) => {
                let raw = self.exactly(length)?;
                Ok(Body {
                    content: raw.clone(),
                    raw,
                    trailers: Fields::default(),
                })
            }
            Framing::Chunked => self.chunked(),
            Framing::UntilClose => {
                while self.fill()? > 0 {}
                let raw = std::mem::take(&mut self.buffer);
                Ok(Body {
                    content: raw.clone(),
                    raw,
                    trailers: Fields::default(),
                })
            }
        }
    }

    fn chunked(&mut self) -> io::Result<Body> {
        let mut body = Body::default();
        loop {
            let size = self.line(&mut body.raw)?;
            let digits = size.split(|b| *b == b';').next().unwrap_or_default();
            let digits = std::str::from_utf8(digits).map_err(|_| bad("chunk size"))?;
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad(format!("chunk size {digits:?}")));
            }
            let size = usize::from_str_radix(digits, 16).map_err(|_| bad("chunk size"))?;
            if size == 0 {
                break;
            }
            let chunk = self.exactly(size + 2)?;
            body.raw.extend_from_slice(&chunk);
            let content = chunk
                .strip_suffix(b"\r\n")
                .ok_or_else(|| bad("chunk without CRLF"))?;
            body.content.extend_from_slice(content);
        }
        loop {
            let line = self.line(&mut body.raw)?;
            if line.is_empty() {
                return Ok(body);
            }
            body.trailers.0.push(parse_field(&line)?);
        }
    }

    fn line(&mut self, raw: &mut Vec<u8>) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = self.take(at + 2);
                raw.extend_from_slice(&line);
                return Ok(line[..at].to_vec());
            }
            if self.fill()? == 0 {
                return Err(closed("in a chunked body"));
            }
        }
    }

    /// This many bytes.
    pub fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(closed("in a body"));
            }
        }
        Ok(self.take(length))
    }

    /// Reads once more; 0 bytes mean that the peer has closed.
    pub fn fill(&mut self) -> io::Result<usize> {
        let mut piece = [0; 16 * 1024];
        let n = loop {
            match self.stream.read(&mut piece) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.buffer.extend_from_slice(&piece[..n]);
        Ok(n)
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        self.buffer.drain(..length).collect()
    }
}

fn parse_field(line: &[u8]) -> io::Result<(String, Vec<u8>)> {
    let text = || String::from_utf8_lossy(line);
    let colon = line
        .iter()
        .position(|b| *b == b':')
        .ok_or_else(|| bad(text()))?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let plain = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
    if name.is_empty() || !name.iter().all(token) || !value.iter().all(plain) {
        return Err(bad(text()));
    }
    Ok((String::from_utf8_lossy(name).into_owned(), value.to_vec()))
}

/// Lines that end in CRLF; a bare CR or LF is an error.
fn split_lines(text: &[u8]) -> io::Result<Vec<&[u8]>> {
    let mut lines = Vec::new();
    let mut rest = text;
    loop {
        let end = find(rest, b"\r\n");
        let line = &rest[..end.unwrap_or(rest.len())];
        if line.iter().any(|b| *b == b'\r' || *b == b'\n') {
            return Err(bad("bare CR or LF"));
        }
        lines.push(line);
        match end {
            Some(end) => rest = &rest[end + 2..],
            None => return Ok(lines),
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn bad(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP/1.1: {what}"))
}

fn closed(place: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("closed {place}"))
}
