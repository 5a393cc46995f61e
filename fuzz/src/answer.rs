//! What an application answers with over HTTP/1.1.
//!
//! The first byte says which method was asked with (even: GET, odd: HEAD), the second
//! one how the rest is cut into pieces; that is what the application sends before it
//! closes.
//!
//! However it is cut, it is the same answer. One that is taken has the status and the
//! content that a plain reader finds, and its connection is only used again where the
//! answer ends exactly where the bytes do.

use bytes::Bytes;
use cloakroom::upstream::http1::Connection;
use cloakroom::wire::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

/// An answer that was taken.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    status: u16,
    content: Vec<u8>,
    again: bool,
}

/// Runs one input.
pub fn run(input: &[u8]) {
    let [method, cut, answer @ ..] = input else {
        return;
    };
    let method = if method % 2 == 0 {
        Method::GET
    } else {
        Method::HEAD
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let whole = runtime.block_on(talk(&method, &[answer]));
    let pieces: Vec<_> = answer.chunks(usize::from(*cut % 64) + 1).collect();
    let pieced = runtime.block_on(talk(&method, &pieces));
    match (&whole, &pieced) {
        // Whether what is surplus has come when the end is seen is a matter of time.
        (Some(whole), Some(pieced)) => {
            assert_eq!(
                (whole.status, &whole.content),
                (pieced.status, &pieced.content)
            );
        }
        _ => assert_eq!(
            whole.is_some(),
            pieced.is_some(),
            "cut, it is something else"
        ),
    }
    if let Some(taken) = whole {
        let read = read(answer, &method).expect("what was taken has a plain reading");
        assert_eq!((read.status, &read.content), (taken.status, &taken.content));
        assert!(!taken.again || read.again, "the connection is out of step");
    }
}

async fn talk(method: &Method, pieces: &[&[u8]]) -> Option<Taken> {
    let (ours, mut theirs) = duplex(1024);
    let mut place = Some(Box::new(Connection::new(ours, None)));
    let mut request = Request::new(Body::Empty);
    *request.method_mut() = method.clone();
    let begun = place.as_mut()?.begin(&mut request, "/", |_, _| Ok(()));
    begun.expect("nothing is refused");
    let application = async {
        let mut head = [0; 64];
        let mut length = 0;
        while !head[..length].ends_with(b"\r\n\r\n") {
            length += theirs.read(&mut head[length..]).await.expect("a head");
        }
        for piece in pieces {
            // Nobody may be there to read it any more.
            let _ = theirs.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        drop(theirs);
    };
    let client = async {
        let answered = Connection::answer(&mut place).await;
        let taken = match answered {
            Ok(response) => {
                let status = response.status().as_u16();
                let mut body = response.into_body();
                let mut content = Vec::new();
                loop {
                    match body.frame().await {
                        None => {
                            let again = body.take_connection().is_some();
                            break Some(Taken {
                                status,
                                content,
                                again,
                            });
                        }
                        Some(Ok(frame)) => {
                            let data: Bytes = frame.into_data().unwrap_or_default();
                            content.extend_from_slice(&data);
                        }
                        Some(Err(_)) => break None,
                    }
                }
            }
            Err(_) => None,
        };
        drop(place);
        taken
    };
    tokio::join!(client, application).0
}

/// The first line, without its end, and what follows it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = (&bytes[..at], &bytes[at + 1..]);
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest))
}

fn read(mut bytes: &[u8], method: &Method) -> Option<Taken> {
    loop {
        let mut first;
        loop {
            (first, bytes) = line(bytes)?;
            if !first.is_empty() {
                break;
            }
        }
        let status: u16 = std::str::from_utf8(first.get(9..12)?).ok()?.parse().ok()?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let field;
            (field, bytes) = line(bytes)?;
            if field.is_empty() {
                break;
            }
            let colon = field.iter().position(|byte| *byte == b':')?;
            let (name, value) = (&field[..colon], field[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                length = Some(std::str::from_utf8(value).ok()?.parse::<u64>().ok()?);
            }
            chunked |= name.eq_ignore_ascii_case(b"transfer-encoding");
        }
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let empty = *method == Method::HEAD || matches!(status, 101 | 204 | 304);
        let (content, rest) = match (empty, chunked, length) {
            (true, ..) => (Vec::new(), Some(bytes)),
            (_, true, _) => chunks(bytes)?,
            (_, _, Some(length)) => {
                let length = usize::try_from(length).ok()?;
                (bytes.get(..length)?.to_vec(), bytes.get(length..))
            }
            // To the end of the connection.
            _ => (bytes.to_vec(), None),
        };
        let again = rest.is_some_and(<[u8]>::is_empty);
        return Some(Taken {
            status,
            content,
            again,
        });
    }
}

fn chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, Option<&[u8]>)> {
    let mut content = Vec::new();
    loop {
        let size;
        (size, bytes) = line(bytes)?;
        let digits = size
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        let digits = std::str::from_utf8(&size[..digits]).ok()?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        if size == 0 {
            break;
        }
        content.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let field;
        (field, bytes) = line(bytes)?;
        if field.is_empty() {
            return Some((content, Some(bytes)));
        }
    }
}
