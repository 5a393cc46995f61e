//! `cloakroom healthcheck`: what a container runs to ask after its health,
//! where there is no shell and no curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// Asks `/healthz`.
///
/// # Errors
///
/// Anything but a 200, in a sentence.
pub fn run(admin: SocketAddr) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{admin} does not answer: {error}");
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE).map_err(fail)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(fail)?;
    write!(
        stream,
        "GET /healthz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"
    )
    .map_err(fail)?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).map_err(fail)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(format!("{admin} is not healthy"))
    }
}
