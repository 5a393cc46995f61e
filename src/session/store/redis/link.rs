//! The connection to Redis: made when needed, dropped when in doubt.
//!
//! The manager of the redis crate is not used: it keeps a connection that
//! lets every command time out (a peer that vanished without a word), and it
//! keeps a refusal to connect that is not an error of the socket (a wrong
//! password that was mended since, too many clients) for good.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisError, RedisResult, ScriptInvocation, Value};
use tokio::sync::{Mutex, Semaphore};

use super::RedisTarget;
use crate::session::store::StoreError;

/// Commands that may be on their way at once; others wait, within their time.
pub(super) const IN_FLIGHT: usize = 1024;

/// After a failure to connect, how long everybody gets the same answer
/// without a new attempt. So a server that is down costs nobody any time, and
/// one that comes back is used again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that was idle for longer may have been closed meanwhile.
const IDLE: Duration = Duration::from_secs(1);

/// What Redis is asked.
pub(super) enum Request<'a> {
    Command(Cmd),
    Script(ScriptInvocation<'a>),
}

/// One connection, used by many at once.
pub(super) struct Link {
    target: RedisTarget,
    places: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that one is not dropped for what its
    /// predecessor did.
    generation: u64,
    /// When it was last used.
    used: Option<Instant>,
    failure: Option<(Instant, StoreError)>,
}

struct Held {
    connection: MultiplexedConnection,
    generation: u64,
}

impl Link {
    pub(super) fn new(target: &RedisTarget) -> Self {
        Self {
            target: target.clone(),
            places: Semaphore::new(IN_FLIGHT),
            state: Mutex::new(State::default()),
        }
    }

    /// Asks, connecting before if need be.
    pub(super) async fn call(&self, request: &Request<'_>) -> Result<Value, StoreError> {
        let used = AtomicU64::new(0);
        match tokio::time::timeout(self.target.timeout, self.attempt(request, &used)).await {
            Ok(result) => result,
            Err(_) => {
                // The connection may be dead without anybody having said so.
                self.drop_connection(used.load(Ordering::Relaxed));
                Err(StoreError::Timeout(self.target.timeout))
            }
        }
    }

    async fn attempt(&self, request: &Request<'_>, used: &AtomicU64) -> Result<Value, StoreError> {
        let _place = self
            .places
            .acquire()
            .await
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        if request.may_repeat() {
            return self.read(request, used).await;
        }
        // A write is sent once: it may have been done although its answer was
        // lost. So a connection that may have been closed while it was idle
        // is tried with something harmless before.
        if self.idle().await > IDLE {
            let ping = Request::Command(redis::cmd("PING"));
            self.read(&ping, used).await?;
        }
        let mut line = self.line(used).await?;
        ask(&mut line.connection, request)
            .await
            .map_err(|error| self.settle(&error, line.generation))
    }

    /// Asks once more on a new connection, if the present one was lost: the
    /// server was restarted, or has closed it for being idle.
    async fn read(&self, request: &Request<'_>, used: &AtomicU64) -> Result<Value, StoreError> {
        let mut line = self.line(used).await?;
        match ask(&mut line.connection, request).await {
            Ok(reply) => return Ok(reply),
            Err(error) if error.is_unrecoverable_error() => {
                self.drop_connection(line.generation);
            }
            Err(error) => return Err(self.target.explain(&error)),
        }
        let mut line = self.line(used).await?;
        ask(&mut line.connection, request)
            .await
            .map_err(|error| self.settle(&error, line.generation))
    }

    /// The present connection, or a new one. Whoever comes while one is being
    /// made waits for it.
    async fn line(&self, used: &AtomicU64) -> Result<Held, StoreError> {
        let mut state = self.state.lock().await;
        let connection = match &state.connection {
            Some(connection) => connection.clone(),
            None => self.connect(&mut state).await?,
        };
        state.used = Some(Instant::now());
        used.store(state.generation, Ordering::Relaxed);
        Ok(Held {
            connection,
            generation: state.generation,
        })
    }

    async fn connect(&self, state: &mut State) -> Result<MultiplexedConnection, StoreError> {
        if let Some((at, error)) = &state.failure
            && at.elapsed() < PAUSE
        {
            return Err(error.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.target.timeout))
            // The deadline around each call counts, not this one.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(IN_FLIGHT);
        let connected = self
            .target
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await;
        state.generation += 1;
        match connected {
            Ok(connection) => {
                state.failure = None;
                state.connection = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                let error = self.target.explain(&error);
                state.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// For how long nothing was asked on the present connection.
    async fn idle(&self) -> Duration {
        let used = self.state.lock().await.used;
        used.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Explains an error, and lets go of the connection that is at fault.
    fn settle(&self, error: &RedisError, generation: u64) -> StoreError {
        if error.is_unrecoverable_error() {
            self.drop_connection(generation);
        }
        self.target.explain(error)
    }

    /// Lets go of the connection of that generation. If the state is locked,
    /// somebody is making the next one, or will find this one wanting as well.
    fn drop_connection(&self, generation: u64) {
        if let Ok(mut state) = self.state.try_lock()
            && state.generation == generation
        {
            state.connection = None;
        }
    }
}

impl Request<'_> {
    /// Whether asking twice gives what asking once gives. All that is so is a
    /// plain command: it reads, or it deletes.
    fn may_repeat(&self) -> bool {
        matches!(self, Self::Command(_))
    }
}

pub(super) async fn ask(
    connection: &mut MultiplexedConnection,
    request: &Request<'_>,
) -> RedisResult<Value> {
    match request {
        Request::Command(command) => command.query_async(connection).await,
        Request::Script(script) => script.invoke_async(connection).await,
    }
}

#[cfg(test)]
mod tests {
    use redis::ErrorKind;

    use super::*;
    use crate::base::secret::Secret;
    use crate::session::settings::{CacheSettings, StoreLocation, StoreSettings};

    #[test]
    fn no_error_repeats_the_password() {
        let url = Secret::new("redis://carl:hunter%32@localhost");
        let settings = StoreSettings {
            location: StoreLocation::Redis(url.clone()),
            prefix: "sess:".into(),
            timeout: Duration::from_secs(1),
            cache: CacheSettings::default(),
        };
        let link = Link::new(&RedisTarget::new(&url, &settings).unwrap());
        let words = "what is hunter2 to me".to_owned();
        let error = RedisError::from((ErrorKind::Client, "refused", words));
        let text = link.target.explain(&error).to_string();
        assert!(text.contains("redis at localhost:6379"), "{text}");
        assert!(text.contains("what is … to me"), "{text}");
    }
}
