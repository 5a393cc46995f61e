//! The connection to PostgreSQL: made when needed, dropped when in doubt.
//!
//! A pool would be of little use: requests are short and sent one behind the
//! other without waiting (pipelined), and the one kind of write that is frequent
//! does not wait for the disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Connection, Error, Row, Socket, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresTarget;
use super::schema::NotReady;
use super::statements::Statements;
use crate::session::store::StoreError;
use crate::session::store::attempt::{Attempt, PAUSE, jittered, limit};

/// Requests that may be on their way at once; others wait, within their time.
const IN_FLIGHT: usize = 1024;

/// A connection that was idle for longer may have been closed meanwhile.
const IDLE: Duration = Duration::from_secs(1);

/// A connection as the library makes it, which somebody has to drive.
pub(super) type Wire = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// What is asked.
pub(super) struct Request<'a, P> {
    pub(super) statement: fn(&P) -> &Statement,
    pub(super) params: &'a [&'a (dyn ToSql + Sync)],
    /// Whether asking twice gives what asking once gives.
    pub(super) may_repeat: bool,
}

/// One connection, used by many at once.
pub(super) struct Link<P> {
    target: PostgresTarget,
    /// Where connections are driven, whoever needs them.
    runtime: Option<Handle>,
    places: Semaphore,
    state: Arc<Mutex<State<P>>>,
}

struct State<P> {
    line: Option<Arc<Line<P>>>,
    /// Counts connections, so that one is not dropped for what its
    /// predecessor did.
    generation: u64,
    /// When it was last used.
    used: Option<Instant>,
    attempt: Option<Attempt>,
    /// What the last attempt came to, and until when there is no other one.
    failure: Option<(Instant, StoreError)>,
}

// Derived, it would ask the same of the statements.
impl<P> Default for State<P> {
    fn default() -> Self {
        Self {
            line: None,
            generation: 0,
            used: None,
            attempt: None,
            failure: None,
        }
    }
}

/// The connection that a request was given last, and when.
#[derive(Default)]
struct Used(Mutex<Option<(u64, Instant)>>);

impl Used {
    fn note(&self, generation: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((generation, Instant::now()));
    }

    fn last(&self) -> Option<(u64, Instant)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is ready.
struct Line<P> {
    client: Client,
    prepared: P,
    generation: u64,
    /// Drives the connection, until nobody uses it any more.
    _driver: Driver<()>,
}

impl<P: Statements> Link<P> {
    pub(super) fn new(target: &PostgresTarget) -> Self {
        Self {
            target: target.clone(),
            runtime: Handle::try_current().ok(),
            places: Semaphore::new(IN_FLIGHT),
            state: Arc::default(),
        }
    }

    /// Asks, connecting before if need be.
    pub(super) async fn call(&self, request: &Request<'_, P>) -> Result<Vec<Row>, StoreError> {
        let used = Used::default();
        let timeout = self.target.timeout;
        match tokio::time::timeout(timeout, self.ask(request, &used)).await {
            Ok(result) => result,
            Err(_) => {
                // The connection may be dead without anybody having said so. One that
                // was had for less than half of the time did nothing wrong yet: else
                // those that waited for it until just before their deadlines would
                // throw it away for all.
                if let Some((generation, since)) = used.last()
                    && since.elapsed() >= timeout / 2
                {
                    self.drop_line(generation);
                }
                Err(StoreError::Timeout(timeout))
            }
        }
    }

    async fn ask(&self, request: &Request<'_, P>, used: &Used) -> Result<Vec<Row>, StoreError> {
        let _place = self
            .places
            .acquire()
            .await
            .map_err(|e| StoreError::Unavailable(e.to_string()))?;
        if request.may_repeat {
            return self.read(request, used).await;
        }
        // A write is sent once: it may have been done although its answer was
        // lost. So a connection that may have been closed while it was idle
        // is tried with something harmless before.
        if self.idle() > IDLE {
            let now = Request {
                statement: |prepared: &P| &prepared.common().now,
                params: &[],
                may_repeat: true,
            };
            self.read(&now, used).await?;
        }
        let line = self.line(used).await?;
        ask(&line, request)
            .await
            .map_err(|error| self.settle(&error, line.generation))
    }

    /// Asks once more on a new connection, if the present one was lost: the
    /// server was restarted, or has closed it for being idle.
    async fn read(&self, request: &Request<'_, P>, used: &Used) -> Result<Vec<Row>, StoreError> {
        let line = self.line(used).await?;
        match ask(&line, request).await {
            Ok(rows) => return Ok(rows),
            Err(error) if is_lost(&error) => self.drop_line(line.generation),
            Err(error) => return Err(self.settle(&error, line.generation)),
        }
        let line = self.line(used).await?;
        ask(&line, request)
            .await
            .map_err(|error| self.settle(&error, line.generation))
    }

    /// The present connection, or a new one. Whoever comes while one is being
    /// made waits for it.
    async fn line(&self, used: &Used) -> Result<Arc<Line<P>>, StoreError> {
        loop {
            let end = {
                let mut state = self.state();
                if let Some(line) = state.present() {
                    used.note(line.generation);
                    return Ok(line);
                }
                match &state.attempt {
                    Some(attempt) if !attempt.is_over() => {
                        let timeout = self.target.timeout;
                        if attempt.has_taken(timeout) {
                            return Err(StoreError::Timeout(timeout));
                        }
                        attempt.end()
                    }
                    _ => self.connect(&mut state)?.end(),
                }
            };
            end.await;
        }
    }

    /// Begins to connect, unless that has failed just now. It happens in the runtime
    /// of this handle: a socket works only where it was made.
    fn connect<'a>(&self, state: &'a mut State<P>) -> Result<&'a Attempt, StoreError> {
        if let Some((until, error)) = &state.failure
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        state.generation += 1;
        let generation = state.generation;
        let runtime = self.runtime.clone().unwrap_or_else(Handle::current);
        let (target, place) = (self.target.clone(), self.state.clone());
        let home = runtime.clone();
        let attempt = Attempt::begin(&runtime, async move {
            let limit = limit(target.timeout);
            let making = make(&target, home, generation);
            let made = match tokio::time::timeout(limit, making).await {
                Ok(made) => made.map_err(|why| target.explain_setup(&why)),
                Err(_) => Err(StoreError::Timeout(limit)),
            };
            lock(&place).note(made);
        });
        Ok(state.attempt.insert(attempt))
    }

    /// For how long nothing was asked on the present connection.
    fn idle(&self) -> Duration {
        let used = self.state().used;
        used.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Explains an error, and lets go of the connection that is at fault.
    fn settle(&self, error: &Error, generation: u64) -> StoreError {
        if is_lost(error) || is_stale(error) {
            self.drop_line(generation);
        }
        self.target.explain(error)
    }

    fn drop_line(&self, generation: u64) {
        let mut state = self.state();
        let old = state.line.take_if(|line| line.generation == generation);
        drop(state);
        drop(old);
    }

    fn state(&self) -> MutexGuard<'_, State<P>> {
        lock(&self.state)
    }
}

impl<P> Drop for Link<P> {
    fn drop(&mut self) {
        // Nobody will use what it makes.
        lock(&self.state).attempt = None;
    }
}

impl<P> State<P> {
    fn present(&mut self) -> Option<Arc<Line<P>>> {
        let line = self.line.clone().filter(|line| !line.client.is_closed())?;
        self.used = Some(Instant::now());
        Some(line)
    }

    /// Notes what an attempt came to.
    fn note(&mut self, made: Result<Line<P>, StoreError>) {
        match made {
            Ok(line) => {
                self.failure = None;
                self.line = Some(Arc::new(line));
                self.used = Some(Instant::now());
            }
            Err(error) => self.failure = Some((Instant::now() + jittered(PAUSE), error)),
        }
    }
}

/// Nothing that runs under the lock can leave it half changed.
fn lock<P>(state: &Mutex<State<P>>) -> MutexGuard<'_, State<P>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn make<P: Statements>(
    target: &PostgresTarget,
    home: Handle,
    generation: u64,
) -> Result<Line<P>, NotReady> {
    let (client, wire) = target.connect().await?;
    let driver = Driver(home.spawn(drive(wire, |_| {})));
    target.schema.tables(&client, &target.settings).await?;
    let prepared = P::prepare(&client, target).await?;
    Ok(Line {
        client,
        prepared,
        generation,
        _driver: driver,
    })
}

async fn ask<P>(line: &Line<P>, request: &Request<'_, P>) -> Result<Vec<Row>, Error> {
    let statement = (request.statement)(&line.prepared);
    line.client.query(statement, request.params).await
}

/// Whether the connection is gone, or of no use any more.
pub(super) fn is_lost(error: &Error) -> bool {
    let Some(code) = error.code() else {
        // Not the server's words: the connection's, or nobody's.
        return true;
    };
    let ended = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::DATABASE_DROPPED,
    ];
    code.code().starts_with("08") || code.code() == "57P05" || ended.contains(code)
}

/// Whether a new connection may fare better: it makes tables that are missing,
/// prepares anew, and may find the server that takes writes.
fn is_stale(error: &Error) -> bool {
    let codes = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_COLUMN,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::READ_ONLY_SQL_TRANSACTION,
    ];
    error.code().is_some_and(|code| codes.contains(code))
}

/// Drives a connection to its end, and hands over what the server says unasked.
pub(super) async fn drive(mut wire: Wire, mut said: impl FnMut(AsyncMessage)) {
    while let Some(Ok(message)) = std::future::poll_fn(|cx| wire.poll_message(cx)).await {
        said(message);
    }
}

/// A task that ends with its owner.
pub(super) struct Driver<T>(pub(super) JoinHandle<T>);

impl<T> Future for Driver<T> {
    type Output = Result<T, JoinError>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
