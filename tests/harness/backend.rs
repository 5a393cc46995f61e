//! A scripted backend that records the exact bytes of each request.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use super::PATIENCE;
use super::message::{Body, Fields, Head, Reader};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Which connection it came on, counted from 0.
    pub connection: usize,
    pub method: String,
    pub target: String,
    pub head: Head,
    pub body: Body,
}

impl Recorded {
    pub fn fields(&self) -> &Fields {
        &self.head.fields
    }

    /// The value of a field.
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.fields.get(name)
    }

    /// Head and body, byte for byte.
    pub fn raw(&self) -> Vec<u8> {
        [self.head.raw.as_slice(), self.body.raw.as_slice()].concat()
    }
}

/// What a script does with a connection that it takes over: the stream, and
/// what was already read of it.
pub type Taken = Box<dyn FnOnce(TcpStream, Vec<u8>) + Send>;

/// What the backend answers.
pub enum Reply {
    /// These bytes; the connection is kept.
    Bytes(Vec<u8>),
    /// These bytes, then the connection is closed.
    BytesThenClose(Vec<u8>),
    /// Nothing; the connection is closed.
    Close,
    /// Nothing, until the other side closes.
    Hang,
    /// The script takes the connection: for upgrades, slow and broken answers.
    Take(Taken),
}

impl Reply {
    /// 200 with a text.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Answer::new(200)
            .header("content-type", "text/plain")
            .body(body)
            .into()
    }

    /// A status with an empty body.
    pub fn status(status: u16) -> Self {
        Answer::new(status).into()
    }

    /// The script takes the connection.
    pub fn take(script: impl FnOnce(TcpStream, Vec<u8>) + Send + 'static) -> Self {
        Self::Take(Box::new(script))
    }
}

/// A response to be sent.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            fields: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// With `Content-Length` and the body.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head(&format!("content-length: {}\r\n", self.body.len()));
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The head alone, with the `Content-Length` that a body would have: the
    /// answer to HEAD.
    pub fn head_bytes(&self) -> Vec<u8> {
        self.head(&format!("content-length: {}\r\n", self.body.len()))
    }

    /// The body in chunks of the given sizes' pieces, and trailers.
    pub fn chunked(&self, chunks: &[&str], trailers: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = self.head("transfer-encoding: chunked\r\n");
        for chunk in chunks {
            bytes.extend(format!("{:x}\r\n{chunk}\r\n", chunk.len()).bytes());
        }
        bytes.extend(b"0\r\n");
        for (name, value) in trailers {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        bytes.extend(b"\r\n");
        bytes
    }

    fn head(&self, framing: &str) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        format!("{head}{framing}\r\n").into_bytes()
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Bytes(answer.bytes())
    }
}

type Script = dyn Fn(&Recorded) -> Reply + Send + Sync;
type HeadScript = dyn Fn(&Head) -> Option<Reply> + Send + Sync;

/// A backend on a free loopback port. Dropping it closes everything.
pub struct Backend {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    script: Box<Script>,
    head_script: Box<HeadScript>,
    stopping: AtomicBool,
    accepted: AtomicUsize,
    open: Mutex<Vec<(usize, TcpStream)>>,
    log: Mutex<Log>,
    news: Condvar,
}

#[derive(Default)]
struct Log {
    requests: Vec<Recorded>,
    malformed: Vec<String>,
}

impl Backend {
    /// Answers each request with 200 and what it received, as JSON:
    /// `{"method", "target", "headers": [[name, value], …], "body"}`.
    pub fn start() -> Self {
        Self::with(mirror)
    }

    /// Answers by a script, which is called when a request has arrived whole.
    pub fn with(script: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_head(|_| None, script)
    }

    /// Answers by two scripts: the first sees the head alone, before the body
    /// is read, and may answer or take the connection then. What it answers is
    /// recorded with an empty body.
    pub fn with_head(
        head_script: impl Fn(&Head) -> Option<Reply> + Send + Sync + 'static,
        script: impl Fn(&Recorded) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            script: Box::new(script),
            head_script: Box::new(head_script),
            stopping: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            open: Mutex::default(),
            log: Mutex::default(),
            news: Condvar::new(),
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = Some(accept(listener, Arc::clone(&shared)));
        Self {
            addr,
            shared,
            acceptor,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.log.lock().unwrap().requests.clone()
    }

    /// The one request so far.
    ///
    /// # Panics
    /// If there is not exactly one.
    pub fn only_request(&self) -> Recorded {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "requests at the backend: {requests:#?}");
        requests.remove(0)
    }

    /// Waits until so many requests have arrived, and gives all of them.
    pub fn wait_for(&self, count: usize) -> Vec<Recorded> {
        self.wait_until(|requests| requests.len() >= count)
    }

    /// Waits until the requests that have arrived are `enough`, and gives all of them.
    pub fn wait_until(&self, enough: impl Fn(&[Recorded]) -> bool) -> Vec<Recorded> {
        let log = self.shared.log.lock().unwrap();
        let (log, timeout) = self
            .shared
            .news
            .wait_timeout_while(log, PATIENCE, |log| !enough(&log.requests))
            .unwrap();
        let count = log.requests.len();
        assert!(!timeout.timed_out(), "only {count} requests arrived");
        log.requests.clone()
    }

    /// Why connections were given up: what arrived was not one plain request
    /// after the other. Empty unless something is badly wrong.
    pub fn malformed(&self) -> Vec<String> {
        self.shared.log.lock().unwrap().malformed.clone()
    }

    /// Forgets the requests so far.
    pub fn clear(&self) {
        *self.shared.log.lock().unwrap() = Log::default();
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.lock().unwrap().len()
    }

    /// Cuts every connection; new ones are still accepted.
    pub fn cut(&self) {
        for (_, stream) in self.shared.open.lock().unwrap().iter() {
            // It may have been closed by the other side a moment ago.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Closes the port and every connection.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else {
            return;
        };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor. If nobody accepts any more, it is awake already.
        drop(TcpStream::connect(self.addr));
        acceptor.join().unwrap();
    }

    /// Opens the same port again after [`Backend::stop`].
    pub fn restart(&mut self) {
        self.stop();
        self.shared.stopping.store(false, Ordering::SeqCst);
        let listener = super::eventually("the backend's port is free again", || {
            TcpListener::bind(self.addr).ok()
        });
        self.acceptor = Some(accept(listener, Arc::clone(&self.shared)));
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An address at which nobody listens.
pub fn nobody() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

/// The answer of [`Backend::start`].
pub fn mirror(request: &Recorded) -> Reply {
    let headers: Vec<_> = request
        .fields()
        .0
        .iter()
        .map(|(name, value)| [name.clone(), String::from_utf8_lossy(value).into_owned()])
        .collect();
    let body = serde_json::json!({
        "method": request.method,
        "target": request.target,
        "headers": headers,
        "body": String::from_utf8_lossy(&request.body.content),
    });
    let answer = Answer::new(200)
        .header("content-type", "application/json")
        .body(body.to_string());
    Reply::Bytes(match request.method.as_str() {
        "HEAD" => answer.head_bytes(),
        _ => answer.bytes(),
    })
}

fn accept(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut connections = Vec::new();
        for stream in listener.incoming() {
            if shared.stopping.load(Ordering::SeqCst) {
                break;
            }
            let Ok(stream) = stream else { continue };
            let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
            let other_end = stream.try_clone().unwrap();
            shared.open.lock().unwrap().push((number, other_end));
            let shared = Arc::clone(&shared);
            connections.push(std::thread::spawn(move || {
                if let Err(error) = serve(stream, number, &shared) {
                    note(&shared, number, &error);
                }
                shared.open.lock().unwrap().retain(|(n, _)| *n != number);
            }));
        }
        drop(listener);
        for (_, stream) in shared.open.lock().unwrap().iter() {
            // It may have been closed by the other side a moment ago.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for connection in connections {
            // A script that panicked has printed why; its test sees no answer.
            let _ = connection.join();
        }
    })
}

fn note(shared: &Shared, connection: usize, error: &io::Error) {
    // Connections that break are the business of the tests that break them.
    if error.kind() == io::ErrorKind::InvalidData {
        let text = format!("connection {connection}: {error}");
        shared.log.lock().unwrap().malformed.push(text);
    }
}

fn serve(stream: TcpStream, connection: usize, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = Reader::new(stream);
    while let Some(head) = reader.head()? {
        let early = (shared.head_script)(&head);
        let body = match early {
            Some(_) => Body::default(),
            None => reader.body(head.request_framing()?)?,
        };
        let request = record(connection, head, body)?;
        shared.log.lock().unwrap().requests.push(request.clone());
        shared.news.notify_all();
        let close_after = request
            .header("connection")
            .is_some_and(|c| c.eq_ignore_ascii_case("close"));
        match early.unwrap_or_else(|| (shared.script)(&request)) {
            Reply::Bytes(bytes) => reader.stream.write_all(&bytes)?,
            Reply::BytesThenClose(bytes) => {
                reader.stream.write_all(&bytes)?;
                return reader.stream.shutdown(Shutdown::Both);
            }
            Reply::Close => return reader.stream.shutdown(Shutdown::Both),
            Reply::Hang => return reader.stream.read_to_end(&mut Vec::new()).map(drop),
            Reply::Take(script) => {
                let (stream, buffered) = reader.into_parts();
                // The list of open connections holds a copy of the socket, so
                // that dropping ours would not close it.
                let end = stream.try_clone()?;
                script(stream, buffered);
                return end.shutdown(Shutdown::Both);
            }
        }
        if close_after {
            return reader.stream.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

fn record(connection: usize, head: Head, body: Body) -> io::Result<Recorded> {
    let parts: Vec<&str> = head.start.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts.as_slice() else {
        let text = format!("request line {:?}", head.start);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    };
    Ok(Recorded {
        connection,
        method: (*method).to_owned(),
        target: (*target).to_owned(),
        head,
        body,
    })
}
