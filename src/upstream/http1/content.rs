//! Where the content of an answer ends (RFC 9112 sections 6 and 7.1).

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body::Frame;

use super::connection::Error;
use crate::wire::framing::{check_response_framing, write_length_anew};

/// The longest line with the size of a chunk, its extensions included, in bytes.
const SIZE_LINE: usize = 4096;

/// The most fields behind the last chunk, and their bytes.
const TRAILERS: usize = 100;
const TRAILER_BYTES: usize = 64 * 1024;

/// How an answer's content is told from what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes are left. None of an answer that has no content.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// All that comes until the connection ends.
    Close,
    /// There is no more.
    Ended,
}

/// Where in its chunks a content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// Before a size.
    Size,
    /// So many bytes are left of one.
    Data(u64),
    /// Behind the bytes of one, before the end of its line.
    DataEnd,
    /// Behind the last one.
    Trailers,
}

/// What the bytes that are there come to.
pub(super) enum Taken {
    /// Data, or the fields at the end.
    Frame(Frame<Bytes>),
    /// The end.
    End,
    /// More has to be read first.
    More,
}

impl Framing {
    /// Of the answer to a request with this method (RFC 9112 section 6.3). `is_framed`: a
    /// field says where its content ends. A length is written anew as the one plain number
    /// that it means.
    ///
    /// # Errors
    ///
    /// [`Error::Framing`] where two recipients could see two ends.
    pub(super) fn of(
        response: &mut Response<()>,
        is_framed: bool,
        method: &Method,
    ) -> Result<Self, Error> {
        let (status, version) = (response.status(), response.version());
        let is_interim = status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
        if is_interim {
            return Ok(Self::Ended);
        }
        let headers = response.headers_mut();
        if is_framed {
            check_response_framing(headers, version).map_err(|_| Error::Framing)?;
            write_length_anew(headers);
        }
        let has_none = matches!(
            status,
            StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        if has_none || *method == Method::HEAD {
            return Ok(Self::Ended);
        }
        if !is_framed {
            return Ok(Self::Close);
        }
        // The check lets pass no other coding than this one.
        let Some(length) = headers.get(CONTENT_LENGTH) else {
            return Ok(Self::Chunked(Chunk::Size));
        };
        let length = length.to_str().ok().and_then(|length| length.parse().ok());
        match length.ok_or(Error::Framing)? {
            0 => Ok(Self::Ended),
            length => Ok(Self::Length(length)),
        }
    }

    /// How many bytes are still to come, where that is known.
    pub(super) fn left(self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(left),
            Self::Ended => Some(0),
            Self::Chunked(_) | Self::Close => None,
        }
    }

    /// Takes what there is of the content.
    ///
    /// # Errors
    ///
    /// What is no chunk, or no field.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Result<Taken, Error> {
        loop {
            match self {
                Self::Ended => return Ok(Taken::End),
                _ if input.is_empty() => return Ok(Taken::More),
                Self::Close => return Ok(Taken::data(input.split().freeze())),
                Self::Length(left) => {
                    let data = split(input, left);
                    if *left == 0 {
                        *self = Self::Ended;
                    }
                    return Ok(Taken::data(data));
                }
                Self::Chunked(chunk) => match chunk.step(input)? {
                    Step::Next(next) => *chunk = next,
                    Step::Taken(Taken::End) => *self = Self::Ended,
                    Step::Taken(taken) => {
                        if matches!(&taken, Taken::Frame(frame) if frame.is_trailers()) {
                            *self = Self::Ended;
                        }
                        return Ok(taken);
                    }
                },
            }
        }
    }
}

enum Step {
    Next(Chunk),
    Taken(Taken),
}

impl Taken {
    fn data(data: Bytes) -> Self {
        Self::Frame(Frame::data(data))
    }
}

impl Chunk {
    fn step(&mut self, input: &mut BytesMut) -> Result<Step, Error> {
        let more = Ok(Step::Taken(Taken::More));
        match self {
            Self::Size => match size(input)? {
                None => more,
                Some((line, size)) => {
                    input.advance(line);
                    Ok(Step::Next(match size {
                        0 => Self::Trailers,
                        size => Self::Data(size),
                    }))
                }
            },
            Self::Data(left) => {
                let data = split(input, left);
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                Ok(Step::Taken(Taken::data(data)))
            }
            Self::DataEnd => match input.as_ref() {
                [b'\r', b'\n', ..] => {
                    input.advance(2);
                    Ok(Step::Next(Self::Size))
                }
                [b'\r'] => more,
                _ => Err(Error::Chunk),
            },
            Self::Trailers => match input.as_ref() {
                [b'\r', b'\n', ..] => {
                    input.advance(2);
                    Ok(Step::Taken(Taken::End))
                }
                [b'\r'] => more,
                _ => Ok(Step::Taken(trailers(input)?)),
            },
        }
    }
}

/// The size of the next chunk, and the length of its line.
fn size(input: &[u8]) -> Result<Option<(usize, u64)>, Error> {
    // Nothing is no number, and no line ends within an extension: others may see it so.
    if input
        .first()
        .is_some_and(|first| !first.is_ascii_hexdigit())
    {
        return Err(Error::Chunk);
    }
    let (length, size) = match httparse::parse_chunk_size(input) {
        Ok(httparse::Status::Complete((length, size))) => (length, Some(size)),
        Ok(httparse::Status::Partial) => (input.len(), None),
        Err(_) => return Err(Error::Chunk),
    };
    let line = input.get(..length).unwrap_or_default();
    let within = line.strip_suffix(b"\r\n").unwrap_or(line);
    if length > SIZE_LINE || within.contains(&b'\n') {
        return Err(Error::Chunk);
    }
    Ok(size.map(|size| (length, size)))
}

fn trailers(input: &mut BytesMut) -> Result<Taken, Error> {
    let mut fields = [httparse::EMPTY_HEADER; TRAILERS];
    let (length, headers) = match httparse::parse_headers(input, &mut fields) {
        Ok(httparse::Status::Complete((length, fields))) if length <= TRAILER_BYTES => {
            let mut headers = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes());
                let value = HeaderValue::from_bytes(field.value);
                let (Ok(name), Ok(value)) = (name, value) else {
                    return Err(Error::Chunk);
                };
                headers.append(name, value);
            }
            (length, headers)
        }
        Ok(httparse::Status::Partial) if input.len() <= TRAILER_BYTES => return Ok(Taken::More),
        _ => return Err(Error::Chunk),
    };
    input.advance(length);
    Ok(Taken::Frame(Frame::trailers(headers)))
}

/// Takes as much as is left, or as there is.
fn split(input: &mut BytesMut, left: &mut u64) -> Bytes {
    let count = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(input.len());
    *left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
    input.split_to(count).freeze()
}
