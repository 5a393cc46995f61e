//! The connection to one server: made when needed, dropped when in doubt.
//!
//! The manager of the redis crate is not used: it keeps a connection that
//! lets every command time out (a peer that vanished without a word), and it
//! keeps a refusal to connect that is not an error of the socket (a wrong
//! password that was mended since, too many clients) for good.

mod place;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Cmd, Pipeline, RedisFuture, RedisResult, ScriptInvocation, Value};
use tokio::sync::Semaphore;

pub(super) use self::place::Aim;
use self::place::Place;
use super::RedisTarget;
use super::dial::IN_FLIGHT;
use super::url::Address;
use crate::session::store::StoreError;

/// A connection that was idle for longer may have been closed meanwhile.
const IDLE: Duration = Duration::from_secs(1);

/// What Redis is asked.
pub(super) enum Request<'a> {
    Command(Cmd),
    Script(ScriptInvocation<'a>),
}

/// One connection, used by many at once.
pub(super) struct Link {
    place: Arc<Place>,
    places: Semaphore,
}

/// What a server did not do, and what may be done about it.
pub(super) struct Failure {
    pub(super) error: StoreError,
    pub(super) turn: Turn,
    /// The request was certainly not carried out.
    pub(super) undone: bool,
}

/// What to do about a failure.
pub(super) enum Turn {
    /// The slot is there now; ask there.
    Moved(Address),
    /// The slot is on its way there; ask there this once.
    Ask(Address),
    /// Ask again in a moment.
    Later,
    /// This server cannot be reached, or is no master any more.
    Lost,
    /// Nothing.
    None,
}

/// How long a request may take.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// When the caller gives up.
    pub(super) deadline: Instant,
    /// How long it would wait at most: more than what is left until the deadline
    /// where it has waited for something else before.
    pub(super) span: Duration,
}

/// Lets go of a connection on which nothing came until the deadline: it may be
/// dead without anybody having said so. One that was had for less than half of the
/// time did nothing wrong yet: else those that waited for it until just before their
/// deadlines would throw it away for all.
struct Suspect<'a> {
    link: &'a Link,
    generation: u64,
    limit: Limit,
    since: Instant,
}

impl Drop for Suspect<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        if now >= self.limit.deadline && now.duration_since(self.since) >= self.limit.span / 2 {
            self.link.place.drop_connection(self.generation);
        }
    }
}

impl Link {
    pub(super) fn new(target: &RedisTarget, aim: Aim) -> Self {
        Self {
            place: Arc::new(Place::new(target, aim)),
            places: Semaphore::new(IN_FLIGHT),
        }
    }

    /// Asks, connecting before if need be.
    pub(super) async fn call(&self, request: &Request<'_>) -> Result<Value, StoreError> {
        let timeout = self.place.target.timeout;
        let limit = Limit::from_now(timeout);
        // Not moved once more: what is needed to ask is large.
        let asking = pin!(self.ask(request, false, limit));
        match tokio::time::timeout_at(limit.deadline.into(), asking).await {
            Ok(result) => result.map_err(|failure| failure.error),
            Err(_) => Err(StoreError::Timeout(timeout)),
        }
    }

    /// Asks without a limit of time of its own; it is the caller that gives up.
    /// With `asking`, a slot is served that is only on its way to that server.
    pub(super) async fn ask(
        &self,
        request: &Request<'_>,
        asking: bool,
        limit: Limit,
    ) -> Result<Value, Failure> {
        let _place = self
            .places
            .acquire()
            .await
            .map_err(|e| Failure::of(StoreError::Unavailable(e.to_string())))?;
        if request.may_repeat() {
            return self.read(request, asking, limit).await;
        }
        // A write is sent once: it may have been done although its answer was
        // lost. So a connection that may have been closed while it was idle
        // is tried with something harmless before.
        if self.place.idle() > IDLE {
            let ping = Request::Command(redis::cmd("PING"));
            self.read(&ping, false, limit).await?;
        }
        match self.once(request, asking, limit).await {
            // It was refused by a master that is none any more: ask the new one.
            Err(failure) if failure.undone && matches!(failure.turn, Turn::Lost) => {
                match self.place.aim {
                    Aim::Master => self.once(request, asking, limit).await,
                    Aim::At(_) => Err(failure),
                }
            }
            result => result,
        }
    }

    /// Asks once more on a new connection, if the present one was lost: the
    /// server was restarted, or has closed it for being idle.
    async fn read(
        &self,
        request: &Request<'_>,
        asking: bool,
        limit: Limit,
    ) -> Result<Value, Failure> {
        match self.once(request, asking, limit).await {
            Err(failure) if matches!(failure.turn, Turn::Lost) => {
                self.once(request, asking, limit).await
            }
            result => result,
        }
    }

    async fn once(
        &self,
        request: &Request<'_>,
        asking: bool,
        limit: Limit,
    ) -> Result<Value, Failure> {
        let mut held = self.place.line().await.map_err(|error| Failure {
            error,
            turn: Turn::Lost,
            undone: true,
        })?;
        let _suspect = Suspect {
            link: self,
            generation: held.generation,
            limit,
            since: Instant::now(),
        };
        let reply = match asking {
            false => ask(&mut held.wire.connection, request).await,
            true => ask(&mut Asking(&mut held.wire.connection), request).await,
        };
        reply.map_err(|error| {
            let failure = self.place.judge(&error, &held.address);
            if matches!(failure.turn, Turn::Lost) {
                self.place.drop_connection(held.generation);
            }
            failure
        })
    }
}

impl Limit {
    /// That span, beginning now.
    pub(super) fn from_now(span: Duration) -> Self {
        Self {
            deadline: Instant::now() + span,
            span,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.place.leave();
    }
}

impl Failure {
    pub(super) fn of(error: StoreError) -> Self {
        Self {
            error,
            turn: Turn::None,
            undone: true,
        }
    }
}

impl Request<'_> {
    /// Whether asking twice gives what asking once gives. All that is so is a
    /// plain command: it reads, or it deletes.
    pub(super) fn may_repeat(&self) -> bool {
        matches!(self, Self::Command(_))
    }
}

pub(super) async fn ask(
    connection: &mut (impl ConnectionLike + Send),
    request: &Request<'_>,
) -> RedisResult<Value> {
    match request {
        Request::Command(command) => command.query_async(connection).await,
        Request::Script(script) => script.invoke_async(connection).await,
    }
}

/// Whether this server takes itself for a master.
pub(super) async fn is_master(connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    let reply: Value = redis::cmd("ROLE").query_async(connection).await?;
    Ok(says_master(&reply))
}

/// Whether an answer to `ROLE` is a master's.
pub(super) fn says_master(reply: &Value) -> bool {
    let Value::Array(parts) = reply else {
        return false;
    };
    match parts.first() {
        Some(Value::BulkString(role)) => role == b"master",
        Some(Value::SimpleString(role)) => role == "master",
        _ => false,
    }
}

/// Sends `ASKING` right before each command (Redis Cluster specification, "ASK
/// redirection").
struct Asking<'a>(&'a mut MultiplexedConnection);

impl ConnectionLike for Asking<'_> {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let mut both = Pipeline::with_capacity(2);
            both.cmd("ASKING").add_command(command.clone());
            let mut replies = self.0.send_packed_commands(&both, 0, 2).await?;
            replies.pop().unwrap_or(Value::Nil).extract_error()
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.0.req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.0.get_db()
    }
}
