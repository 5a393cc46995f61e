//! A client that sends the bytes it is given and reads one response at a time.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;
use super::cookies::{CookieJar, SetCookie};
use super::message::{Fields, Framing, Head, Reader};

/// A response as it arrived.
#[derive(Clone, Debug)]
pub struct Response {
    /// `HTTP/1.1`.
    pub version: String,
    pub status: u16,
    /// The phrase after the status.
    pub phrase: String,
    pub head: Head,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// The 1xx responses before it.
    pub interim: Vec<u16>,
}

impl Response {
    pub fn fields(&self) -> &Fields {
        &self.head.fields
    }

    /// The value of a field.
    pub fn header(&self, name: &str) -> Option<String> {
        self.head.fields.get(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {:?}", self.text()))
    }

    pub fn set_cookies(&self) -> Vec<SetCookie> {
        self.fields()
            .all("set-cookie")
            .iter()
            .map(|text| SetCookie::parse(text))
            .collect()
    }

    /// Why it was refused: `details` of `Proxy-Status` (RFC 9209 section
    /// 2.1.5). `None` where there is no such field: the answer of a backend.
    pub fn refusal(&self) -> Option<String> {
        let status = self.header("proxy-status")?;
        let (_, rest) = status.split_once("details=\"")?;
        rest.split_once('"').map(|(label, _)| label.to_owned())
    }
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub fn post(target: &str) -> Self {
        Self::new("POST", target)
    }

    /// Adds a field; repeats are sent as repeats.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// What a browser adds when somebody follows a link.
    pub fn navigation(self) -> Self {
        self.header("sec-fetch-mode", "navigate")
            .header("sec-fetch-site", "none")
            .header("sec-fetch-dest", "document")
            .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
    }

    pub fn cookies(self, jar: &CookieJar) -> Self {
        match jar.header() {
            Some(value) => self.header("cookie", value),
            None => self,
        }
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(self, value: &serde_json::Value) -> Self {
        self.header("content-type", "application/json")
            .body(value.to_string())
    }

    pub fn form(self, pairs: &[(&str, &str)]) -> Self {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        self.header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    }

    /// The bytes. `Host` and `Content-Length` are added where they are needed
    /// and not given.
    pub fn bytes(&self, host: &str) -> Vec<u8> {
        let given = |name: &str| {
            self.fields
                .iter()
                .any(|(n, _)| n.eq_ignore_ascii_case(name))
        };
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        let mut add = |name: &str, value: &[u8]| {
            bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        };
        if !given("host") {
            add("Host", host.as_bytes());
        }
        for (name, value) in &self.fields {
            add(name, value);
        }
        let has_body =
            !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH");
        if has_body && !given("content-length") && !given("transfer-encoding") {
            add("Content-Length", self.body.len().to_string().as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Sends it on a connection of its own.
    pub fn send(&self, addr: SocketAddr) -> Response {
        Client::connect(addr).request(self)
    }
}

/// One connection, over TCP unless it says otherwise.
pub struct Client<S = TcpStream> {
    host: String,
    reader: Reader<S>,
}

impl<S: Read + Write> Client<S> {
    /// A connection that stands already; requests go to this host.
    pub fn over(stream: S, host: &str) -> Self {
        Self {
            host: host.to_owned(),
            reader: Reader::new(stream),
        }
    }

    /// What it runs over.
    pub fn stream(&mut self) -> &mut S {
        &mut self.reader.stream
    }
}

impl Client {
    /// Closes it with a reset, as a program that was killed does: nobody waits
    /// for answers any more.
    pub fn reset(mut self) {
        let stream = socket2::SockRef::from(&*self.stream());
        stream.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    /// # Panics
    /// If nobody accepts.
    pub fn connect(addr: SocketAddr) -> Self {
        Self::try_connect(addr).unwrap_or_else(|e| panic!("cannot connect to {addr}: {e}"))
    }

    pub fn try_connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            host: addr.to_string(),
            reader: Reader::new(stream),
        })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.reader.stream.local_addr().unwrap()
    }

    /// Says that no more will be sent, and still reads.
    pub fn finish(&mut self) {
        match self.reader.stream.shutdown(std::net::Shutdown::Write) {
            // The other side has reset the connection already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
            done => done.unwrap(),
        }
    }
}

impl<S: Read + Write> Client<S> {
    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .unwrap_or_else(|e| panic!("cannot send: {e}"));
    }

    /// Sends bytes to somebody who may have closed by now.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.stream.write_all(bytes.as_ref())
    }

    /// Sends a request and reads its response. The connection can be used
    /// again.
    pub fn request(&mut self, request: &Request) -> Response {
        self.send(request.bytes(&self.host));
        self.read(&request.method)
    }

    /// Reads the response to a request with this method.
    ///
    /// # Panics
    /// If none comes, or one that is not HTTP/1.1.
    pub fn read(&mut self, method: &str) -> Response {
        self.try_read(method)
            .unwrap_or_else(|e| panic!("no response to {method}: {e}"))
    }

    pub fn try_read(&mut self, method: &str) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let head = self.read_head()?;
            let (version, status, phrase) = status_line(&head.start)?;
            // 101 is the last response of its connection, not an interim one.
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            let framing = match status {
                101 | 204 | 304 => Framing::Length(0),
                _ if method == "HEAD" => Framing::Length(0),
                200..300 if method == "CONNECT" => Framing::Length(0),
                _ => head.response_framing()?,
            };
            let body = self.reader.body(framing)?;
            return Ok(Response {
                version,
                status,
                phrase,
                head,
                body: body.content,
                trailers: body.trailers,
                interim,
            });
        }
    }

    /// Reads one head, an interim one too, and nothing of what follows it.
    pub fn read_head(&mut self) -> io::Result<Head> {
        let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "closed before a response");
        self.reader.head()?.ok_or_else(closed)
    }

    /// Reads this many bytes: of a streamed body, or after an upgrade.
    pub fn read_bytes(&mut self, length: usize) -> Vec<u8> {
        self.reader
            .exactly(length)
            .unwrap_or_else(|e| panic!("{length} bytes did not come: {e}"))
    }

    /// Whether the other side closes (or resets) the connection without
    /// sending anything more.
    pub fn is_closed(&mut self) -> bool {
        match self.reader.fill() {
            Ok(0) => self.reader.buffered().is_empty(),
            Ok(_) => false,
            Err(e) => !matches!(
                e.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ),
        }
    }

    /// Everything until the other side closes.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut rest = self.reader.buffered().to_vec();
        // A reset ends it as well as a close.
        let _ = self.reader.stream.read_to_end(&mut rest);
        rest
    }
}

fn status_line(line: &str) -> io::Result<(String, u16, String)> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("status line {line:?}"));
    let (version, rest) = line.split_once(' ').ok_or_else(bad)?;
    let (status, phrase) = rest.split_once(' ').unwrap_or((rest, ""));
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") || status.len() != 3 {
        return Err(bad());
    }
    let status = status.parse().map_err(|_| bad())?;
    Ok((version.to_owned(), status, phrase.to_owned()))
}
