//! A backend that speaks HTTP/2, TLS, or both.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

use super::pki::Certified;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;
pub type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Script = dyn Fn(Request<Incoming>) -> Answering + Send + Sync;

/// The head of a request, and how it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    pub version: Version,
    pub method: String,
    pub uri: http::Uri,
    pub headers: HeaderMap,
    /// The server name that the client asked for.
    pub server_name: Option<String>,
    /// Whether the client showed a certificate.
    pub certified: bool,
}

/// How the backend is to be.
#[derive(Default)]
pub struct Manner {
    /// With TLS: its certificate.
    pub certified: Option<Certified>,
    /// What it offers by ALPN; in the clear, `h2` alone counts.
    pub protocols: Vec<&'static str>,
    /// Clients have to show a certificate of this authority (PEM).
    pub client_ca: Option<String>,
    /// The most streams of one connection.
    pub streams: Option<u32>,
    /// Each HTTP/2 connection says that it closes when it gets a request.
    pub goodbye: bool,
    /// It takes WebSockets over HTTP/2 (RFC 8441).
    pub sockets: bool,
}

impl Manner {
    /// HTTP/2 in the clear.
    pub fn h2c() -> Self {
        Self {
            protocols: vec!["h2"],
            ..Self::default()
        }
    }

    /// TLS with these protocols.
    pub fn tls(certified: Certified, protocols: &[&'static str]) -> Self {
        Self {
            certified: Some(certified),
            protocols: protocols.to_vec(),
            ..Self::default()
        }
    }

    fn config(&self) -> Option<Arc<ServerConfig>> {
        let certified = self.certified.as_ref()?;
        let certificates = |pem: &str| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<_, _>>()
                .unwrap()
        };
        let provider = cloakroom::base::crypto::provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates(ca));
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .build()
                        .unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::from_pem_slice(certified.key.as_bytes()).unwrap();
        let mut config = builder
            .with_single_cert(certificates(&certified.cert), key)
            .unwrap();
        config.alpn_protocols = self
            .protocols
            .iter()
            .map(|p| p.as_bytes().to_vec())
            .collect();
        Some(Arc::new(config))
    }
}

/// A backend on a free loopback port. Dropping it closes everything.
pub struct Modern {
    addr: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    manner: Manner,
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    accepted: AtomicUsize,
}

impl Modern {
    /// Answers each request with 200 and `fine`.
    pub fn start(manner: Manner) -> Self {
        Self::with(manner, |_| Box::pin(async { answer(200, "fine") }))
    }

    /// Answers by a script.
    pub fn with(
        manner: Manner,
        script: impl Fn(Request<Incoming>) -> Answering + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manner,
            script: Box::new(script),
            seen: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let serving = serve(listener, shared.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            addr,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Waits until so many requests have arrived, and gives all of them.
    pub fn wait_for(&self, count: usize) -> Vec<Seen> {
        super::eventually("requests at the backend", || {
            Some(self.seen()).filter(|seen| seen.len() >= count)
        })
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Modern {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A script that panicked has printed why; its test sees no answer.
            let _ = thread.join();
        }
    }
}

/// An answer with a text.
pub fn answer(status: u16, text: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

/// Agrees to a WebSocket, and says everything back in capitals.
pub fn echo(request: Request<Incoming>) -> Response<Body> {
    let mut response = answer(200, "");
    if request.version() == Version::HTTP_11 {
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        let key = request.headers()["sec-websocket-key"].as_bytes();
        let fields = response.headers_mut();
        fields.insert("upgrade", "websocket".parse().unwrap());
        fields.insert("connection", "upgrade".parse().unwrap());
        fields.insert("sec-websocket-accept", accept(key).parse().unwrap());
    }
    let protocol = "sec-websocket-protocol";
    if let Some(asked) = request.headers().get(protocol) {
        response.headers_mut().insert(protocol, asked.clone());
    }
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let (mut reading, mut writing) = tokio::io::split(TokioIo::new(upgraded));
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = reading.read(&mut piece).await {
            let said = piece[..count].to_ascii_uppercase();
            if writing.write_all(&said).await.is_err() {
                return;
            }
        }
        let _ = writing.shutdown().await;
    });
    response
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455 section 4.2.2).
pub fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(context.finish())
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let tls = shared.manner.config();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        stream.set_nodelay(true).unwrap();
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
        let (shared, tls) = (shared.clone(), tls.clone());
        tokio::spawn(async move {
            let Some(config) = tls else {
                let http2 = shared.manner.protocols == ["h2"];
                return speak(stream, http2, number, None, false, shared).await;
            };
            // A client that does not like the certificate has gone.
            let Ok(stream) = tokio_rustls::TlsAcceptor::from(config).accept(stream).await else {
                return;
            };
            let state = stream.get_ref().1;
            let http2 = state.alpn_protocol() == Some(b"h2");
            let name = state.server_name().map(str::to_owned);
            let certified = state.peer_certificates().is_some();
            speak(stream, http2, number, name, certified, shared).await;
        });
    }
}

async fn speak<S>(
    stream: S,
    http2: bool,
    connection: usize,
    server_name: Option<String>,
    certified: bool,
    shared: Arc<Shared>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let streams = shared.manner.streams;
    let goodbye = shared.manner.goodbye;
    let sockets = shared.manner.sockets;
    let requested = Arc::new(Notify::new());
    let request_came = requested.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        shared.seen.lock().unwrap().push(Seen {
            connection,
            version: request.version(),
            method: request.method().to_string(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            server_name: server_name.clone(),
            certified,
        });
        request_came.notify_one();
        let answering = (shared.script)(request);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let io = TokioIo::new(stream);
    // Connections that break are the business of the tests that break them.
    if http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        if let Some(streams) = streams {
            builder.max_concurrent_streams(streams);
        }
        if sockets {
            builder.enable_connect_protocol();
        }
        let mut serving = std::pin::pin!(builder.serve_connection(io, service));
        tokio::select! {
            _ = serving.as_mut() => return,
            () = requested.notified(), if goodbye => serving.as_mut().graceful_shutdown(),
        }
        let _ = serving.await;
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new());
        let _ = builder.serve_connection(io, service).with_upgrades().await;
    }
}
