//! A static application: `GET /N` is answered with N bytes, as fast as it goes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Failed;

/// The largest body.
const MOST: usize = 4 << 20;

/// Serves on a free port of the loopback, and prints it.
pub async fn serve() -> Result<(), Failed> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // A client that goes away ends its own connection.
        tokio::spawn(async move { drop(converse(stream).await) });
    }
}

async fn converse(mut stream: TcpStream) -> std::io::Result<()> {
    let mut received: Vec<u8> = Vec::with_capacity(4096);
    // The last answer: most requests are for the same thing.
    let (mut length, mut answer) = (usize::MAX, Vec::new());
    loop {
        while let Some(end) = head_end(&received) {
            let asked = asked(&received);
            received.drain(..end);
            if asked != length {
                length = asked;
                answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
                )
                .into_bytes();
                answer.resize(answer.len() + length, b'x');
            }
            stream.write_all(&answer).await?;
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}

/// Where the first head in these bytes ends.
pub fn head_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(end + 4)
}

/// How many bytes are asked for; none by a path that is no number.
fn asked(head: &[u8]) -> usize {
    let target = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let number = target.get(1..).unwrap_or_default();
    let text = std::str::from_utf8(number).unwrap_or_default();
    text.parse().unwrap_or(0).min(MOST)
}
