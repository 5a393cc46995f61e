//! HTTP/1.1 requests and responses, read by the letter of RFC 9112. Where the RFC
//! leaves a choice, the strict way is taken, but for what it says a server may
//! do: end the lines of a head with LF alone, skip empty lines before it, and take
//! a chunked message with a `Content-Length` for chunked, as the last one of its
//! connection.
//!
//! Two liberties are hyper's and no RFC's. Extensions of chunks, which go no further,
//! hold any byte but CR and LF. In a trailer section LF ends a line, and an empty
//! line so ended hides the fields after it, but only an empty line with CRLF ends
//! the section.

/// Which liberties are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Those of a server toward clients.
    Server,
    /// None: what a proxy sends has no need of any.
    Strict,
}

/// A field line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// In lower case.
    pub name: String,
    pub value: Vec<u8>,
}

/// How far a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is whole; these many bytes long.
    At(usize),
    /// More bytes may complete it.
    Open,
    /// Nothing can complete it.
    Broken(&'static str),
}

/// A request whose head is fine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub minor: u8,
    pub fields: Vec<Field>,
    /// As much of it as came.
    pub body: Vec<u8>,
    pub trailers: Vec<Field>,
    pub end: End,
}

/// The first request in some bytes; without a head, why there is none.
pub fn request(bytes: &[u8], manner: Manner) -> Result<Request, End> {
    let mut at = 0;
    if manner == Manner::Server {
        while let Some(length) = line_end(&bytes[at..], manner).and_then(|l| l.ok()) {
            if length.0 > 0 {
                break;
            }
            at += length.1;
        }
    }
    let (lines, head) = head(&bytes[at..], manner)?;
    let at = at + head;
    let (start, fields) = lines.split_first().ok_or(End::Broken("no request line"))?;
    let start = std::str::from_utf8(start).map_err(|_| End::Broken("request line"))?;
    let words: Vec<&str> = start.split(' ').collect();
    let [method, target, version] = words.as_slice() else {
        return Err(End::Broken("request line"));
    };
    let minor = match *version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
        _ => return Err(End::Broken("version")),
    };
    if !is_token(method.as_bytes()) || target.is_empty() {
        return Err(End::Broken("request line"));
    }
    let fields = parse_fields(fields)?;
    let framing = framing(&fields, minor, manner).ok_or(End::Broken("framing"))?;
    let mut body = Body::default();
    let end = body.read(&bytes[at..], framing, manner);
    Ok(Request {
        method: (*method).to_owned(),
        target: (*target).to_owned(),
        minor,
        fields,
        body: body.content,
        trailers: body.trailers,
        end: match end {
            End::At(length) => End::At(at + length),
            other => other,
        },
    })
}

/// The status of the first response, and how long it is; `None` while it is not
/// whole. `method` is the request's.
pub fn response(bytes: &[u8], method: &str) -> Option<(u16, usize)> {
    let (lines, at) = match head(bytes, Manner::Strict) {
        Ok(head) => head,
        Err(End::Open) => return None,
        Err(end) => panic!("a response that is none: {end:?} {:?}", lossy(bytes)),
    };
    let start = String::from_utf8_lossy(lines[0]).into_owned();
    let status: u16 = start
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse().ok())
        .unwrap_or_else(|| panic!("status line {start:?}"));
    let fields = parse_fields(&lines[1..]).expect("a field of a response");
    if status < 200 || status == 204 || status == 304 || method == "HEAD" {
        return Some((status, at));
    }
    let framing = framing(&fields, 1, Manner::Strict).expect("framing of a response");
    assert!(
        framing != Framing::Length(0) || fields.iter().any(|f| f.name == "content-length"),
        "an own answer without length"
    );
    match Body::default().read(&bytes[at..], framing, Manner::Strict) {
        End::At(length) => Some((status, at + length)),
        End::Open => None,
        End::Broken(why) => panic!("a response's body: {why} {:?}", lossy(bytes)),
    }
}

impl Request {
    /// Every value of a field.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |field: &&Field| field.name == name;
        self.fields.iter().filter(named).map(|f| f.value.as_slice())
    }

    /// Whether a list field names an option.
    pub fn names(&self, field: &str, option: &str) -> bool {
        self.all(field).any(|line| lists(line, option))
    }

    /// Whether nothing may follow it on its connection.
    pub fn is_last(&self) -> bool {
        let has = |name| self.all(name).next().is_some();
        // A line that is no list of tokens asks for nothing.
        let closes = |line: &[u8]| line.is_ascii() && lists(line, "close");
        self.all("connection").any(closes)
            || has("transfer-encoding") && has("content-length")
            || self.minor == 0 && !self.names("connection", "keep-alive")
    }
}

fn lists(line: &[u8], option: &str) -> bool {
    line.split(|byte| *byte == b',')
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
}

/// RFC 9112 section 6.3, with everything refused that could be read in two ways.
fn framing(fields: &[Field], minor: u8, manner: Manner) -> Option<Framing> {
    let all = |name: &str| -> Vec<&[u8]> {
        let named = |field: &&Field| field.name == name;
        fields
            .iter()
            .filter(named)
            .map(|f| f.value.as_slice())
            .collect()
    };
    let lengths = all("content-length");
    match all("transfer-encoding").as_slice() {
        [] => {}
        [one] if one.eq_ignore_ascii_case(b"chunked") && minor == 1 => {
            let alone = lengths.is_empty() || manner == Manner::Server;
            return alone.then_some(Framing::Chunked);
        }
        _ => return None,
    }
    let mut numbers = lengths.iter().map(|text| number(text, 10));
    let Some(first) = numbers.next() else {
        return Some(Framing::Length(0));
    };
    let first = first?;
    numbers
        .all(|other| other == Some(first))
        .then_some(Framing::Length(first))
}

#[derive(Default)]
struct Body {
    content: Vec<u8>,
    trailers: Vec<Field>,
}

impl Body {
    fn read(&mut self, bytes: &[u8], framing: Framing, manner: Manner) -> End {
        match framing {
            Framing::Length(length) => match usize::try_from(length) {
                Ok(length) if bytes.len() >= length => {
                    self.content.extend_from_slice(&bytes[..length]);
                    End::At(length)
                }
                _ => {
                    self.content.extend_from_slice(bytes);
                    End::Open
                }
            },
            Framing::Chunked => match self.chunks(bytes, manner) {
                Ok(length) => End::At(length),
                Err(end) => end,
            },
        }
    }

    fn chunks(&mut self, bytes: &[u8], manner: Manner) -> Result<usize, End> {
        let mut at = 0;
        loop {
            let line = crlf_line(&bytes[at..])?;
            at += line.len() + 2;
            let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
            let extension = line[digits..].trim_ascii_start();
            let size = number(&line[..digits], 16).ok_or(End::Broken("chunk size"))?;
            let fine = |b: &u8| matches!(b, b'\t' | b' '..=0x7e | 0x80..);
            let legible = manner == Manner::Server || extension.iter().all(fine);
            if !(extension.is_empty() || extension[0] == b';') || !legible {
                return Err(End::Broken("chunk extension"));
            }
            if size == 0 {
                break;
            }
            let size = usize::try_from(size).map_err(|_| End::Open)?;
            let left = &bytes[at..];
            self.content
                .extend_from_slice(&left[..size.min(left.len())]);
            match left.get(size..).unwrap_or_default() {
                [b'\r', b'\n', ..] => at += size + 2,
                [] | [b'\r'] => return Err(End::Open),
                _ => return Err(End::Broken("no line end after a chunk")),
            }
        }
        let mut hidden = false;
        loop {
            let line = trailer_line(&bytes[at..], manner)?;
            at += line.len() + 2;
            if line.is_empty() {
                return Ok(at);
            }
            for line in line.split(|byte| *byte == b'\n') {
                hidden |= line.is_empty();
                if !hidden {
                    self.trailers.extend(parse_fields(&[line])?);
                }
            }
        }
    }
}

/// The lines of a head without their ends, and its length.
fn head(bytes: &[u8], manner: Manner) -> Result<(Vec<&[u8]>, usize), End> {
    let mut lines = Vec::new();
    let mut at = 0;
    loop {
        let (length, whole) = line_end(&bytes[at..], manner).ok_or(End::Open)??;
        let line = &bytes[at..at + length];
        at += whole;
        if line.is_empty() {
            return match lines.is_empty() {
                true => Err(End::Broken("an empty line at the beginning")),
                false => Ok((lines, at)),
            };
        }
        lines.push(line);
    }
}

/// Length of the line at the front without and with its end.
fn line_end(bytes: &[u8], manner: Manner) -> Option<Result<(usize, usize), End>> {
    let at = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[..at];
    let content = line.strip_suffix(b"\r");
    let content = match (content, manner) {
        (Some(content), _) => content,
        (None, Manner::Server) => line,
        (None, Manner::Strict) => return Some(Err(End::Broken("bare LF"))),
    };
    if content.contains(&b'\r') {
        return Some(Err(End::Broken("bare CR")));
    }
    Some(Ok((content.len(), at + 1)))
}

/// A line of a chunked body, where no liberty is taken.
fn crlf_line(bytes: &[u8]) -> Result<&[u8], End> {
    let (length, _) = line_end(bytes, Manner::Strict).ok_or(End::Open)??;
    Ok(&bytes[..length])
}

/// A line up to the first CR, which LF must follow.
fn trailer_line(bytes: &[u8], manner: Manner) -> Result<&[u8], End> {
    if manner == Manner::Strict {
        return crlf_line(bytes);
    }
    let at = bytes.iter().position(|byte| *byte == b'\r');
    let line = &bytes[..at.ok_or(End::Open)?];
    match bytes.get(line.len() + 1) {
        Some(b'\n') => Ok(line),
        Some(_) => Err(End::Broken("bare CR")),
        None => Err(End::Open),
    }
}

fn parse_fields(lines: &[&[u8]]) -> Result<Vec<Field>, End> {
    lines
        .iter()
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, value) = line.split_at(colon.ok_or(End::Broken("no colon"))?);
            let value = trim(&value[1..]);
            let fine = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
            if !is_token(name) || !value.iter().all(fine) {
                return Err(End::Broken("field"));
            }
            Ok(Field {
                name: String::from_utf8_lossy(name).to_ascii_lowercase(),
                value: value.to_vec(),
            })
        })
        .collect()
}

/// Without blanks and tabs at the ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn is_token(text: &[u8]) -> bool {
    let fine = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(fine)
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    let all = !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    all.then(|| u64::from_str_radix(text, radix).ok()).flatten()
}

pub fn lossy(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
