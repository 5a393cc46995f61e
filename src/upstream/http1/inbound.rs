//! The content of an answer on its way.

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::connection::{Connection, Error};
use super::content::Framing;
use super::raw::Raw;

/// What an application says after the head of its answer.
pub enum Inbound {
    /// Over HTTP/1.1, with its connection.
    Http1(Content),
    /// Over HTTP/2.
    Http2(Incoming),
}

/// Content that comes over HTTP/1.1.
pub struct Content {
    holder: Option<Holder>,
    framing: Framing,
}

/// Who drives the connection.
enum Holder {
    /// Whoever asks for the answer's content.
    Own(Box<Connection>),
    /// A task beside that, since the request is still being sent: that goes on while
    /// nobody asks for the answer.
    Shared {
        shared: Arc<Mutex<Shared>>,
        sending: Sending,
    },
}

/// That task; ends with this, unless it is let go.
struct Sending(Option<AbortHandle>);

/// How long an application may take nothing of a request that it has begun to answer. Over
/// TLS it is our side that takes: one that reads the last of it at a trickle is given up, too.
const STALLED: Duration = Duration::from_secs(60);

struct Shared {
    /// `None`: taken back.
    connection: Option<Box<Connection>>,
    /// Sending failed.
    failed: Option<Error>,
    /// Who waits for the answer.
    reader: Option<Waker>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").finish_non_exhaustive()
    }
}

impl Inbound {
    /// Of an answer whose head came over this connection. Has to be called within a
    /// runtime.
    pub(super) fn of(connection: Option<Box<Connection>>, framing: Framing) -> Self {
        let holder = connection.map(|connection| match connection.is_sent() {
            true => Holder::Own(connection),
            false => Holder::beside(connection),
        });
        Self::Http1(Content { holder, framing })
    }

    /// The connection, if the answer has come to its end and another request may follow.
    /// What is left of the request is sent all the same.
    pub fn take_connection(&mut self) -> Option<Box<Connection>> {
        let Self::Http1(content) = self else {
            return None;
        };
        if content.framing != Framing::Ended {
            return None;
        }
        let connection = content.holder.take()?.into_connection()?;
        connection.may_follow().then_some(connection)
    }

    /// What is left of the connection after a 101.
    pub fn take_raw(&mut self) -> Option<Raw> {
        let Self::Http1(content) = self else {
            return None;
        };
        let connection = content.holder.take()?.into_connection()?;
        Some(connection.into_raw())
    }
}

impl Holder {
    fn beside(connection: Box<Connection>) -> Self {
        let shared = Arc::new(Mutex::new(Shared {
            connection: Some(connection),
            failed: None,
            reader: None,
        }));
        let sending = shared.clone();
        let task = tokio::spawn(async move {
            let mut before = None;
            loop {
                let sent = poll_fn(|context| lock(&sending).poll_send(context));
                if timeout(STALLED, sent).await.is_ok() {
                    return;
                }
                let blocked = lock(&sending).blocked_at();
                if blocked.is_some() && blocked == before {
                    return;
                }
                before = blocked;
            }
        });
        let sending = Sending(Some(task.abort_handle()));
        Self::Shared { shared, sending }
    }

    fn into_connection(self) -> Option<Box<Connection>> {
        match self {
            Self::Own(connection) => Some(connection),
            Self::Shared {
                shared,
                mut sending,
            } => {
                let mut inner = lock(&shared);
                if inner.connection.as_ref().is_some_and(|own| !own.is_sent()) {
                    // The application may want all of the request, though it has answered.
                    sending.0 = None;
                    return None;
                }
                inner.connection.take()
            }
        }
    }
}

impl Shared {
    fn blocked_at(&self) -> Option<u64> {
        self.connection.as_ref()?.blocked_at()
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(());
        };
        if let Err(error) = ready!(connection.poll_send(context)) {
            self.failed = Some(error);
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
        Poll::Ready(())
    }

    fn poll_content(
        &mut self,
        framing: &mut Framing,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(None);
        };
        let polled = connection.poll_content(framing, context);
        if polled.is_pending() {
            self.reader = Some(context.waker().clone());
        }
        polled
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpBody for Inbound {
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let content = match self.get_mut() {
            Self::Http1(content) => content,
            Self::Http2(body) => {
                let polled = ready!(Pin::new(body).poll_frame(context));
                return Poll::Ready(polled.map(|frame| frame.map_err(Into::into)));
            }
        };
        let framing = &mut content.framing;
        let polled = match &mut content.holder {
            None => return Poll::Ready(None),
            Some(Holder::Own(connection)) => connection.poll_content(framing, context),
            Some(Holder::Shared { shared, .. }) => lock(shared).poll_content(framing, context),
        };
        let frame = ready!(polled);
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(content) => content.framing == Framing::Ended,
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(content) => content
                .framing
                .left()
                .map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
