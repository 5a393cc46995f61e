//! HTTP/2 frames by hand (RFC 9113 section 4), with prior knowledge.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap().to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// The fields of a request in HPACK (RFC 7541), nothing indexed but the names
/// and values of the static table.
pub fn request(method_index: u8, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    // :method, :scheme http, and by name :path (4), :authority (1).
    let mut block = vec![0x80 | method_index, 0x86];
    for (index, value) in [(4u8, path), (1, "a.example")] {
        block.push(index);
        string(&mut block, value);
    }
    for (name, value) in more {
        block.push(0);
        string(&mut block, name);
        string(&mut block, value);
    }
    block
}

pub const GET: u8 = 2;
pub const POST: u8 = 3;

fn string(block: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 127);
    block.push(u8::try_from(text.len()).unwrap());
    block.extend(text.as_bytes());
}

/// A connection.
pub struct H2 {
    stream: TcpStream,
}

impl H2 {
    /// Sends the preface and empty settings.
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut connection = Self { stream };
        connection
            .send_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        connection
            .send(&Frame::new(SETTINGS, 0, 0, Vec::new()))
            .unwrap();
        connection
    }

    pub fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.send_bytes(&frame.bytes())
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// How long sending may wait for the other side to take something.
    pub fn write_timeout(&mut self, limit: std::time::Duration) {
        self.stream.set_write_timeout(Some(limit)).unwrap();
    }

    /// The next frame; an error too when the connection has ended.
    pub fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Ok(Frame::new(head[3], head[4], stream, payload))
    }

    /// Reads to the end: the error code of the GOAWAY frame, if one came.
    ///
    /// # Panics
    /// If the connection does not end.
    pub fn ended(mut self) -> Option<u32> {
        let mut code = None;
        loop {
            match self.read() {
                Ok(frame) if frame.kind == GOAWAY => {
                    let bytes = frame.payload[4..8].try_into().unwrap();
                    code = Some(u32::from_be_bytes(bytes));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the connection does not end")
                }
                Err(_) => return code,
            }
        }
    }

    /// Reads until the response head of a stream comes.
    pub fn response(&mut self, stream: u32) -> io::Result<Frame> {
        loop {
            let frame = self.read()?;
            if frame.stream == stream && frame.kind == HEADERS {
                return Ok(frame);
            }
        }
    }
}
