//! The connection to PostgreSQL: made when needed, dropped when in doubt.
//!
//! A pool would be of little use: requests are short and sent one behind the
//! other without waiting (pipelined), and the one kind of write that is frequent
//! does not wait for the disk.

use std::sync::atomic::{AtomicU64, Ordering};
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

/// Requests that may be on their way at once; others wait, within their time.
const IN_FLIGHT: usize = 1024;

/// After a failure to connect, how long everybody gets the same answer
/// without a new attempt. So a server that is down costs nobody any time, and
/// one that comes back is used again at once.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// Held by whoever makes a connection.
    making: tokio::sync::Mutex<()>,
    state: Mutex<State<P>>,
}

struct State<P> {
    line: Option<Arc<Line<P>>>,
    /// Counts connections, so that one is not dropped for what its
    /// predecessor did.
    generation: u64,
    /// When it was last used.
    used: Option<Instant>,
    failure: Option<(Instant, StoreError)>,
}

// Derived, it would ask the same of the statements.
impl<P> Default for State<P> {
    fn default() -> Self {
        Self {
            line: None,
            generation: 0,
            used: None,
            failure: None,
        }
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
            making: tokio::sync::Mutex::new(()),
            state: Mutex::default(),
        }
    }

    /// Asks, connecting before if need be.
    pub(super) async fn call(&self, request: &Request<'_, P>) -> Result<Vec<Row>, StoreError> {
        let used = AtomicU64::new(0);
        let timeout = self.target.timeout;
        match tokio::time::timeout(timeout, self.attempt(request, &used)).await {
            Ok(result) => result,
            Err(_) => {
                // The connection may be dead without anybody having said so.
                self.drop_line(used.load(Ordering::Relaxed));
                Err(StoreError::Timeout(timeout))
            }
        }
    }

    async fn attempt(
        &self,
        request: &Request<'_, P>,
        used: &AtomicU64,
    ) -> Result<Vec<Row>, StoreError> {
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
    async fn read(
        &self,
        request: &Request<'_, P>,
        used: &AtomicU64,
    ) -> Result<Vec<Row>, StoreError> {
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
    async fn line(&self, used: &AtomicU64) -> Result<Arc<Line<P>>, StoreError> {
        if let Some(line) = self.present(used) {
            return Ok(line);
        }
        let _making = self.making.lock().await;
        if let Some(line) = self.present(used) {
            return Ok(line);
        }
        let generation = {
            let mut state = self.state();
            if let Some((at, error)) = &state.failure
                && at.elapsed() < PAUSE
            {
                return Err(error.clone());
            }
            state.generation += 1;
            state.generation
        };
        let made = self.make(generation).await;
        let mut state = self.state();
        match made {
            Ok(line) => {
                let line = Arc::new(line);
                state.failure = None;
                state.line = Some(line.clone());
                state.used = Some(Instant::now());
                used.store(generation, Ordering::Relaxed);
                Ok(line)
            }
            Err(error) => {
                state.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn present(&self, used: &AtomicU64) -> Option<Arc<Line<P>>> {
        let mut state = self.state();
        let line = state.line.clone().filter(|line| !line.client.is_closed())?;
        state.used = Some(Instant::now());
        used.store(line.generation, Ordering::Relaxed);
        Some(line)
    }

    /// Connects. That happens in the runtime of this handle: a socket works
    /// only where it was made.
    async fn make(&self, generation: u64) -> Result<Line<P>, StoreError> {
        let runtime = self.runtime.clone().unwrap_or_else(Handle::current);
        let (target, home) = (self.target.clone(), runtime.clone());
        let making = runtime.spawn(async move {
            let (client, wire) = target.connect().await?;
            let driver = Driver(home.spawn(drive(wire, |_| {})));
            target.schema.tables(&client, &target.settings).await?;
            let prepared = P::prepare(&client, &target).await?;
            Ok::<_, NotReady>(Line {
                client,
                prepared,
                generation,
                _driver: driver,
            })
        });
        match Driver(making).await {
            Ok(made) => made.map_err(|why| self.target.explain_setup(&why)),
            Err(error) => Err(StoreError::Unavailable(error.to_string())),
        }
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

    /// Nothing that runs under the lock can leave it half changed.
    fn state(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
