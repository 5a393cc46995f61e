//! A client of HTTP/2 that opens several streams on one connection, WebSockets
//! (RFC 8441) among them.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::PATIENCE;
use super::cookies::CookieJar;

/// A connection, driven by a thread of its own. Dropping it closes it.
pub struct Streams {
    handle: Handle,
    sender: SendRequest<Bytes>,
    base: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A request to be.
pub struct Asked {
    request: http::request::Builder,
    protocol: Option<&'static str>,
    ends: bool,
}

impl Asked {
    /// A WebSocket handshake, as browsers make it.
    pub fn socket(streams: &Streams, path: &str) -> Self {
        Self::connect(streams, path, Some("websocket")).header("sec-websocket-version", "13")
    }

    /// A CONNECT with a `:protocol`, or without one and then without a path.
    pub fn connect(streams: &Streams, path: &str, protocol: Option<&'static str>) -> Self {
        let (_, authority) = streams.base.split_once("://").unwrap();
        let uri = match protocol {
            Some(_) => format!("{}{path}", streams.base),
            None => authority.to_owned(),
        };
        Self {
            request: Request::builder().method(Method::CONNECT).uri(uri),
            protocol,
            ends: false,
        }
    }

    /// A GET.
    pub fn get(streams: &Streams, path: &str) -> Self {
        let uri = format!("{}{path}", streams.base);
        Self {
            request: Request::get(uri),
            protocol: None,
            ends: true,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// The cookies, each in a field of its own, as browsers send them over
    /// HTTP/2.
    pub fn cookies(self, jar: &CookieJar) -> Self {
        let line = jar.header().unwrap_or_default();
        let crumbs = line.split("; ").filter(|crumb| !crumb.is_empty());
        crumbs.fold(self, |asked, crumb| asked.header("cookie", crumb))
    }
}

impl Streams {
    /// In the clear.
    pub fn connect(addr: SocketAddr) -> Self {
        Self::begin(format!("http://{addr}"), async move {
            TcpStream::connect(addr).await.unwrap()
        })
    }

    /// Over TLS, to a name at an address.
    pub fn over_tls(config: ClientConfig, name: &str, addr: SocketAddr) -> Self {
        let server = ServerName::try_from(name.to_owned()).unwrap();
        let mut config = config;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::begin(format!("https://{name}:{}", addr.port()), async move {
            let stream = TcpStream::connect(addr).await.unwrap();
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let stream = connector.connect(server, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            stream
        })
    }

    fn begin<S, F>(base: String, connect: F) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = S> + Send + 'static,
    {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (opened, sender) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                // Room enough for every stream, in whatever order they are read.
                let (sender, connection) = h2::client::Builder::new()
                    .initial_window_size(1 << 20)
                    .initial_connection_window_size(1 << 26)
                    .handshake(connect.await)
                    .await
                    .unwrap();
                opened.send(sender).unwrap();
                tokio::select! {
                    // How it ends is the business of the streams.
                    _ = connection => {}
                    _ = stopped => {}
                }
            });
        });
        let sender = sender.recv_timeout(PATIENCE).unwrap();
        Self {
            handle,
            sender,
            base,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Whether the server has said that it takes WebSockets.
    pub fn takes_sockets(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// Sends a request, and reads the head of its answer.
    pub fn send(&self, asked: Asked) -> Stream {
        self.try_send(asked).unwrap()
    }

    /// The same; or why there is no answer.
    pub fn try_send(&self, asked: Asked) -> Result<Stream, h2::Error> {
        let mut request = asked.request.body(()).unwrap();
        if let Some(protocol) = asked.protocol {
            request
                .extensions_mut()
                .insert(Protocol::from_static(protocol));
        }
        let mut sender = self.sender.clone();
        self.wait(async move {
            std::future::poll_fn(|context| sender.poll_ready(context)).await?;
            let (answer, sending) = sender.send_request(request, asked.ends)?;
            let (head, receiving) = answer.await?.into_parts();
            Ok(Stream {
                handle: self.handle.clone(),
                status: head.status.as_u16(),
                headers: head.headers,
                sending,
                receiving,
                early: Vec::new(),
            })
        })
    }

    fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        wait(&self.handle, what)
    }
}

fn wait<T>(handle: &Handle, what: impl Future<Output = T>) -> T {
    handle
        .block_on(async { tokio::time::timeout(PATIENCE, what).await })
        .expect("waited in vain for a stream")
}

impl Drop for Streams {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A stream whose answer has begun.
pub struct Stream {
    handle: Handle,
    pub status: u16,
    pub headers: HeaderMap,
    sending: SendStream<Bytes>,
    receiving: RecvStream,
    early: Vec<u8>,
}

impl Stream {
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().unwrap())
    }

    /// The reason of a refusal, as its body gives it.
    ///
    /// # Panics
    /// If it is none.
    pub fn reason(&mut self) -> String {
        let body = self.rest().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        body["reason"].as_str().unwrap().to_owned()
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = Bytes::copy_from_slice(bytes.as_ref());
        self.sending.send_data(bytes, false).unwrap();
    }

    /// Says that nothing more is sent.
    pub fn finish(&mut self) {
        self.sending.send_data(Bytes::new(), true).unwrap();
    }

    /// Breaks off.
    pub fn reset(&mut self) {
        self.sending.send_reset(Reason::CANCEL);
    }

    /// The next so many bytes.
    ///
    /// # Panics
    /// If the stream ends before.
    pub fn read(&mut self, count: usize) -> Vec<u8> {
        while self.early.len() < count {
            let piece = self.piece().expect("the stream has ended").unwrap();
            self.early.extend_from_slice(&piece);
        }
        let rest = self.early.split_off(count);
        std::mem::replace(&mut self.early, rest)
    }

    /// Everything to the end, or how it broke off.
    pub fn rest(&mut self) -> Result<Vec<u8>, h2::Error> {
        while let Some(piece) = self.piece() {
            self.early.extend_from_slice(&piece?);
        }
        Ok(std::mem::take(&mut self.early))
    }

    fn piece(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let piece = wait(&self.handle, self.receiving.data());
        if let Some(Ok(piece)) = &piece {
            let control = self.receiving.flow_control();
            control.release_capacity(piece.len()).unwrap();
        }
        piece
    }
}
