//! A connection to an application, and one request on it at a time.

use std::error::Error as StdError;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::task::unconstrained;

use super::content::{Framing, Taken};
use super::head::{self, Head, Place};
use super::inbound::Inbound;
use super::outgoing::Outgoing;
use super::raw::{Pipe, Raw};
use crate::base::refusal::Failure;
use crate::upstream::connect::Open;
use crate::wire::body::Body;
use crate::wire::fields::Lines;

/// The most bytes before a head: its own, the first piece of its content, and as many
/// interim responses as anybody needs. They are read and dropped, so that an application
/// that sends nothing else would keep a request waiting without end (RFC 9110 section
/// 15.2 sets no limit).
const BUDGET: usize = 1024 * 1024;

/// How much is read at once: at first, which is enough for most answers; and at most,
/// where there is more. What a client does not take is held in pieces of this size,
/// several of them; larger ones fall out of the caches.
const LEAST: usize = 16 * 1024;
const MOST: usize = 56 * 1024;

/// With less room than this in the buffer there is a new one.
const ROOM: usize = 2048;

/// Why there is no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no connection in its place.
    #[error("the connection is in use elsewhere")]
    Taken,
    /// It broke.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// It ended too early.
    #[error("the connection ended before the message did")]
    Ended,
    /// What came was no head of HTTP/1.
    #[error("invalid HTTP")]
    Head(#[source] httparse::Error),
    /// A head of more than 256 KiB.
    #[error("the head is too large")]
    TooLarge,
    /// More than 1 MiB of interim responses.
    #[error("too much before the head of the response")]
    TooMuchBefore,
    /// `Content-Length` and `Transfer-Encoding` can be understood in two ways.
    #[error("framed its response ambiguously")]
    Framing,
    /// What came was no chunk.
    #[error("invalid chunk")]
    Chunk,
    /// The request's content failed.
    #[error("the request's body failed")]
    Content(#[source] Box<dyn StdError + Send + Sync>),
    /// The request's content was longer or shorter than its head says.
    #[error("the request's body has another length than it declares")]
    OtherLength,
}

impl Error {
    /// Whether the connection ended, rather than that something wrong came.
    pub fn has_ended(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match self {
            Self::Ended => true,
            Self::Io(error) => matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
            ),
            _ => false,
        }
    }
}

/// A connection on which HTTP/1.1 is spoken.
pub struct Connection {
    pipe: Box<dyn Pipe>,
    /// What was read and not used yet.
    input: BytesMut,
    /// How much is read at once.
    room: usize,
    places: Vec<Place>,
    outgoing: Outgoing,
    /// Writing failed. An answer may have come before.
    broken: Option<io::Error>,
    /// Of the request.
    method: Method,
    /// What may still be read before the head.
    budget: usize,
    /// The answer lets another request follow.
    keep_alive: bool,
    open: Option<Open>,
}

impl Connection {
    /// A connection that was just made. `open` counts it.
    pub fn new(pipe: impl Pipe, open: Option<Open>) -> Self {
        Self {
            pipe: Box::new(pipe),
            input: BytesMut::new(),
            room: LEAST,
            places: Vec::new(),
            outgoing: Outgoing::default(),
            broken: None,
            method: Method::GET,
            budget: 0,
            keep_alive: true,
            open,
        }
    }

    /// Whether a connection that waits for its next request has ended, or was sent
    /// something that nobody asked for. Whoever asks is woken when that may be so.
    pub fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut read = poll_fn(|context| Pin::new(&mut self.pipe).poll_read(context, &mut buffer));
        // A task that has much to do would see nothing, and take it for silence.
        let read = pin!(unconstrained(&mut read)).poll(context);
        read.is_ready() || !self.input.is_empty()
    }

    /// Gives back what is not needed until the next request.
    pub fn rest(&mut self) {
        if self.room > LEAST {
            self.input = BytesMut::new();
            self.room = LEAST;
        }
    }

    /// Begins with a request to this target, whose content is taken out of it. `fields`
    /// writes its fields, but for `Transfer-Encoding`, and for `Content-Length` where the
    /// request has none.
    ///
    /// # Errors
    ///
    /// What `fields` refuses; the request is whole then.
    pub fn begin(
        &mut self,
        request: &mut Request<Body>,
        target: &str,
        fields: impl FnOnce(&Request<Body>, &mut Lines<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.method.clone_from(request.method());
        self.budget = BUDGET;
        // Where nobody holds what was read before, its room is used again: most answers come
        // in one piece then, and into memory that the processor still has at hand. Who does
        // (HTTP/2 remembers fields for as long as a client is there) shares it with others.
        let _ = self.input.try_reclaim(self.room);
        self.outgoing.begin(request, target, fields)
    }

    /// Sends the request, and waits for the head of its answer. The connection is within
    /// the answer's content then, and its place is empty.
    ///
    /// # Errors
    ///
    /// Whatever happens before the head is there.
    pub async fn answer(place: &mut Option<Box<Self>>) -> Result<Response<Inbound>, Error> {
        let head = poll_fn(|context| match place {
            Some(connection) => connection.poll_head(context),
            None => Poll::Ready(Err(Error::Taken)),
        })
        .await?;
        let inbound = Inbound::of(place.take(), head.framing);
        Ok(head.response.map(|()| inbound))
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Head, Error>> {
        // Pending is no reason not to read: an answer may come before all is sent.
        if let Poll::Ready(Err(error)) = self.poll_send(context) {
            return Poll::Ready(Err(error));
        }
        loop {
            while !self.input.is_empty() {
                let Some(head) = head::take(&mut self.input, &self.method, &mut self.places)?
                else {
                    break;
                };
                let status = head.response.status();
                if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                    continue;
                }
                self.keep_alive = head.keep_alive && head.framing != Framing::Close;
                return Poll::Ready(Ok(head));
            }
            let read = ready!(self.poll_read(context)).map_err(Error::Io)?;
            if read == 0 {
                let error = self.broken.take();
                return Poll::Ready(Err(error.map_or(Error::Ended, Error::Io)));
            }
            match self.budget.checked_sub(read) {
                Some(left) => self.budget = left,
                None => return Poll::Ready(Err(Error::TooMuchBefore)),
            }
        }
    }

    /// Goes on sending the request. Ready when all of it was written, or the application
    /// takes no more of it.
    ///
    /// # Errors
    ///
    /// Those of the request's content.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.outgoing.is_done() || self.broken.is_some() {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.outgoing.poll_send(&mut self.pipe, context)) {
            Err(Error::Io(error)) => {
                self.broken = Some(error);
                Poll::Ready(Ok(()))
            }
            sent => Poll::Ready(sent),
        }
    }

    /// How much of requests was written so far, if there is more that could be.
    pub(super) fn blocked_at(&self) -> Option<u64> {
        self.outgoing.blocked_at()
    }

    /// Whether there is nothing left to be sent, or nobody who takes it.
    pub(super) fn is_sent(&self) -> bool {
        self.outgoing.is_done() || self.broken.is_some()
    }

    /// The next piece of the answer's content; `None` at its end.
    pub(super) fn poll_content(
        &mut self,
        framing: &mut Framing,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match framing.take(&mut self.input) {
                Ok(Taken::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Taken::End) => return Poll::Ready(None),
                Ok(Taken::More) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(self.poll_read(context)) {
                Ok(0) if *framing == Framing::Close => *framing = Framing::Ended,
                Ok(0) => return Poll::Ready(Some(Err(Error::Ended))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(Error::Io(error)))),
            }
        }
    }

    /// Reads more; 0 at the end.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity().saturating_sub(self.input.len()) < ROOM {
            self.input.reserve(self.room);
        }
        let read = ready!(pin!(self.pipe.read_buf(&mut self.input)).poll(context))?;
        if read >= self.room {
            self.room = self.room.saturating_mul(2).min(MOST);
        }
        Poll::Ready(Ok(read))
    }

    /// Whether the next request may follow: all was sent, all was read, and neither side
    /// means to close.
    pub(super) fn may_follow(&self) -> bool {
        self.keep_alive && self.broken.is_none() && self.outgoing.is_done() && self.input.is_empty()
    }

    /// What is left when HTTP is over.
    pub(super) fn into_raw(self) -> Raw {
        Raw {
            first: self.input.freeze(),
            pipe: self.pipe,
            _open: self.open,
        }
    }
}
