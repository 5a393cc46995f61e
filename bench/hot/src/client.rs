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
    request: Vec<u8>,
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
    /// connection is not kept.
    pub fn new(
        address: SocketAddr,
        path: &str,
        cookie: Option<&str>,
        ca: Option<&str>,
        last: bool,
    ) -> Result<Self, Failed> {
        let mut cookies = "theme=dark; _ga=GA1.1.1234567890.1700000000".to_owned();
        if let Some(cookie) = cookie {
            cookies = format!("{cookies}; {cookie}");
        }
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
             Cookie: {cookies}\r\n\r\n",
            port = address.port(),
        );
        Ok(Self {
            address,
            tls: ca.map(Tls::trusting).transpose()?,
            request: request.into_bytes(),
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

    /// Asks, and reads the whole answer, which must be 200.
    pub async fn ask(&self, connection: &mut Connection) -> Result<(), Failed> {
        let Connection { stream, buffer, .. } = connection;
        stream.write_all(&self.request).await?;
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
        let mut left = body_length(&buffer[..head])?.saturating_sub(buffer.len() - head);
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
        Ok(())
    }
}

fn body_length(head: &[u8]) -> Result<usize, Failed> {
    let text = std::str::from_utf8(head)?;
    if !text.starts_with("HTTP/1.1 200 ") {
        let line = text.lines().next().unwrap_or_default();
        return Err(format!("not 200: {line}").into());
    }
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            return Ok(value.trim().parse()?);
        }
    }
    Err("an answer without a length".into())
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
