//! Makes connections: TCP, TLS or a Unix socket, and who we are.
//!
//! The crate speaks the protocol over what is made here. It does not connect by
//! itself, since it would choose the cryptographic library and read the system's
//! certificates anew for each connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, RedisResult,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;

use super::tls::Tls;
use super::url::{Address, Login};

/// Commands that may wait to be sent on one connection.
pub(super) const IN_FLIGHT: usize = 1024;

/// The system asks a silent peer this often whether it is there, so that a
/// connection that nobody uses is not taken for dead on the way.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Called with what a server says unasked, in the connection's driver.
pub(super) type Hear = Box<dyn Fn(PushInfo) + Send + Sync>;

/// How to get in.
#[derive(Clone)]
pub(super) struct Dialer {
    settings: RedisConnectionInfo,
    tls: Option<Arc<Tls>>,
}

/// A connection. It is driven by a task in the runtime in which it was made, which
/// ends with the last clone.
#[derive(Clone)]
pub(super) struct Wire {
    pub(super) connection: MultiplexedConnection,
    _driver: Arc<Driver>,
}

struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Dialer {
    pub(super) fn new(login: &Login, database: u32, resp3: bool, tls: Option<Arc<Tls>>) -> Self {
        let mut settings = RedisConnectionInfo::default()
            .set_db(database.into())
            .set_lib_name("cloakroom", env!("CARGO_PKG_VERSION"));
        if let Some(user) = &login.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &login.password {
            settings = settings.set_password(String::from_utf8_lossy(password.expose()));
        }
        if resp3 {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
        }
        Self { settings, tls }
    }

    /// Text without the password, should a server ever repeat it.
    pub(super) fn without_password(&self, text: String) -> String {
        match self.settings.password() {
            Some(password) if !password.is_empty() => text.replace(password, "…"),
            _ => text,
        }
    }

    /// Connects. There is no limit of time here. With `hear`, the newer protocol is
    /// spoken, in which a server can say something unasked.
    pub(super) async fn dial(&self, to: &Address, hear: Option<Hear>) -> RedisResult<Wire> {
        match (to, &self.tls) {
            (Address::Unix(path), _) => self.open(UnixStream::connect(path).await?, hear).await,
            (Address::Tcp(host, port), None) => self.open(tcp(host, *port).await?, hear).await,
            (Address::Tcp(host, port), Some(tls)) => {
                let name = tls.server_name(host).map_err(io::Error::other)?;
                let stream = tcp(host, *port).await?;
                let connector = TlsConnector::from(tls.config());
                self.open(connector.connect(name, stream).await?, hear)
                    .await
            }
        }
    }

    async fn open<S>(&self, stream: S, hear: Option<Hear>) -> Result<Wire, RedisError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut settings = self.settings.clone();
        let mut config = AsyncConnectionConfig::new()
            // The deadline around each call counts, not one of the crate's.
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(IN_FLIGHT);
        if let Some(hear) = hear {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
            config = config.set_push_sender(move |push| {
                hear(push);
                Ok::<(), std::convert::Infallible>(())
            });
        }
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&settings, stream, config).await?;
        Ok(Wire {
            connection,
            _driver: Arc::new(Driver(tokio::spawn(driver))),
        })
    }
}

/// Tries all addresses of a name at once; the first that answers is it.
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    for address in lookup_host((host, port)).await? {
        attempts.spawn(TcpStream::connect(address));
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    while let Some(attempt) = attempts.join_next().await {
        match attempt.map_err(io::Error::other).flatten() {
            Ok(stream) => {
                // Commands are small and wait for their answers: Nagle's algorithm
                // would only delay them.
                stream.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new()
                    .with_time(KEEPALIVE)
                    .with_interval(KEEPALIVE);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
