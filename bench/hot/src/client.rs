//! One connection to what is measured, and one request on it.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failed;
use crate::backend::head_end;
use tls::Tls;

/// What is asked, and where.
pub struct Target {
    address: SocketAddr,
    tls: Option<Tls>,
    /// A request, but for the session's cookie.
    request: Vec<u8>,
    /// Of each session, asked in turn, one after the other: a hundred thousand whole
    /// requests would put the proxy's memory out of the cache that both cores share.
    cookies: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
}

/// What an answer was.
pub struct Answer {
    pub status: u16,
    pub sets_cookie: bool,
}

/// An open connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    /// Whether its TLS session was resumed.
    pub resumed: bool,
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

impl Target {
    /// The half kilobyte that a browser would send. `ca`: TLS is spoken, with what
    /// this certificate vouches for; no session is ever resumed. `last`: the
    /// connection is not kept. `sessions`: their cookies, if there are any.
    pub fn new(
        address: SocketAddr,
        path: &str,
        sessions: &[String],
        ca: Option<&str>,
        last: bool,
    ) -> Result<Self, Failed> {
        let connection = if last { "close" } else { "keep-alive" };
        let request = format!(
            "GET {path} HTTP/1.1\r\n\
             Host: localhost:{port}\r\n\
             Connection: {connection}\r\n\
             User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
             Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
             Accept-Encoding: gzip, deflate, br\r\n\
             Accept-Language: en-US,en;q=0.9\r\n\
             Referer: http://localhost:{port}/\r\n\
             Cookie: theme=dark; _ga=GA1.1.1234567890.1700000000",
            port = address.port(),
        );
        let mut cookies = Vec::new();
        let ends = sessions.iter().map(|session| {
            cookies.extend_from_slice(b"; ");
            cookies.extend_from_slice(session.as_bytes());
            cookies.len()
        });
        Ok(Self {
            address,
            tls: ca.map(Tls::trusting).transpose()?,
            request: request.into_bytes(),
            ends: ends.collect(),
            cookies,
        })
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Connection, Failed> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (stream, resumed): (Box<dyn Stream>, bool) = match &self.tls {
            None => (Box::new(stream), false),
            Some(tls) => tls.begin(stream).await?,
        };
        Ok(Connection {
            stream,
            buffer: Vec::with_capacity(16 << 10),
            resumed,
        })
    }

    /// Asks for the session of this number, and reads the whole answer.
    pub async fn ask(&self, connection: &mut Connection, number: usize) -> Result<Answer, Failed> {
        let Connection { stream, buffer, .. } = connection;
        buffer.clear();
        buffer.extend_from_slice(&self.request);
        if let Some(at) = number.checked_rem(self.ends.len()) {
            let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
            buffer.extend_from_slice(&self.cookies[begin..self.ends[at]]);
        }
        buffer.extend_from_slice(b"\r\n\r\n");
        stream.write_all(buffer).await?;
        stream.flush().await?;
        buffer.clear();
        let head = loop {
            if stream.read_buf(buffer).await? == 0 {
                return Err("the connection ended before the answer".into());
            }
            if let Some(end) = head_end(buffer) {
                break end;
            }
        };
        let (answer, length) = read_head(&buffer[..head])?;
        let mut left = length.saturating_sub(buffer.len() - head);
        while left > 0 {
            buffer.clear();
            let read = stream.read_buf(buffer).await?;
            if read == 0 {
                return Err("the connection ended within the answer".into());
            }
            left = left.checked_sub(read).ok_or("more than the answer came")?;
            if read == buffer.capacity() && buffer.capacity() < 256 << 10 {
                buffer.reserve(2 * buffer.capacity());
            }
        }
        Ok(answer)
    }
}

/// What the answer is, and how long its body.
fn read_head(head: &[u8]) -> Result<(Answer, usize), Failed> {
    let text = std::str::from_utf8(head)?;
    let (line, fields) = text.split_once("\r\n").unwrap_or((text, ""));
    let mut answer = Answer {
        status: line.split(' ').nth(1).unwrap_or_default().parse()?,
        sets_cookie: false,
    };
    let mut length = None;
    for (name, value) in fields.lines().filter_map(|line| line.split_once(':')) {
        answer.sets_cookie |= name.eq_ignore_ascii_case("set-cookie");
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse()?);
        }
    }
    Ok((answer, length.ok_or("an answer without a length")?))
}

#[cfg(feature = "tls")]
mod tls {
    use std::sync::Arc;

    use rustls::client::Resumption;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, HandshakeKind, RootCertStore};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;

    use super::Stream;
    use crate::Failed;

    pub struct Tls(TlsConnector);

    impl Tls {
        /// Trusts what this certificate vouches for, and resumes nothing.
        pub fn trusting(ca: &str) -> Result<Self, Failed> {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_file_iter(ca)? {
                roots.add(certificate?)?;
            }
            let mut config = ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth();
            config.resumption = Resumption::disabled();
            Ok(Self(TlsConnector::from(Arc::new(config))))
        }

        /// A session, and whether it was resumed all the same.
        pub async fn begin(&self, stream: TcpStream) -> Result<(Box<dyn Stream>, bool), Failed> {
            let name = ServerName::try_from("localhost")?;
            let stream = self.0.connect(name, stream).await?;
            let resumed = stream.get_ref().1.handshake_kind() != Some(HandshakeKind::Full);
            Ok((Box::new(stream), resumed))
        }
    }
}

#[cfg(not(feature = "tls"))]
mod tls {
    use tokio::net::TcpStream;

    use super::Stream;
    use crate::Failed;

    pub enum Tls {}

    impl Tls {
        pub fn trusting(_: &str) -> Result<Self, Failed> {
            Err("this was built without TLS".into())
        }

        pub async fn begin(&self, _: TcpStream) -> Result<(Box<dyn Stream>, bool), Failed> {
            match *self {}
        }
    }
}
