//! Layer 8: a compiled configuration becomes a running proxy, and ends as one
//! should.

pub mod build;
pub mod control;
pub mod logging;
pub mod signals;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::admin::control::Control;
use crate::admin::health::Health;
use crate::admin::{Admin, serve};
use crate::base::clock::Clock;
use crate::base::metrics::Metrics;
use crate::base::rate::RateLimiter;
use crate::config::{Compiled, Problem};
use crate::login::password::Logins;
use crate::server::runtime::{self, MakeWorker};
use crate::server::settings::ListenAddress;
use crate::server::tls::Tls;
use crate::session::{Sessions, Shared, live, store};
use crate::upstream::{self, Fleet};

/// How much longer than `drain_timeout` the worker threads are waited for.
const JOIN_MARGIN: Duration = Duration::from_secs(1);

/// Runs until a signal ends it. `on_ready` is called with the real addresses
/// once connections are accepted.
///
/// # Errors
///
/// What keeps it from starting, in a sentence with the fix.
pub fn run(
    mut compiled: Compiled,
    warnings: &[Problem],
    on_ready: impl FnOnce(&[ListenAddress]),
) -> Result<(), String> {
    let log = logging::start(&compiled.log).map_err(|e| e.to_string())?;
    let metrics = Arc::new(Metrics::new());
    let clock = Clock::system();
    let opened = Arc::new(store::open(&compiled.store, clock.clone()).map_err(|e| e.to_string())?);
    let logins = Logins::start(&compiled.login).map_err(|e| e.to_string())?;
    let state = build::state(&compiled, &metrics)?;

    let tls = match &compiled.server.tls {
        Some(settings) => Some(Arc::new(Tls::open(settings, &metrics, clock.clone())?)),
        None => None,
    };

    let mut bound = runtime::bind_all(&compiled.server)?;
    compiled.server.listen.clone_from(&bound.addresses);
    if let Some(tls) = &mut compiled.server.tls {
        tls.redirect_http = bound.redirect;
    }
    // Dropped, and so removed, when the process ends.
    let _socket_files = std::mem::take(&mut bound.files);
    let admin_socket = bind_admin(&mut compiled)?;
    let (control_socket, _control_file) = control::bind(&compiled)?.unzip();

    let background = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let shared = background.block_on(async { Shared::follow(&opened, &compiled.store.cache) });
    let fleet = Fleet::new(&compiled.upstreams, &metrics);
    let (drain, draining) = watch::channel(false);
    let settings = Arc::new(compiled.server.clone());
    let make_worker: Arc<MakeWorker> = {
        let (opened, metrics, clock) = (opened.clone(), metrics.clone(), clock.clone());
        let parts = build::Parts {
            state: state.clone(),
            upstreams: compiled.upstreams.clone(),
            shared: shared.clone(),
            fleet: fleet.clone(),
            logins,
            limiter: compiled
                .requests_per_ip
                .map(|r| Arc::new(RateLimiter::new(r))),
            access: log.access(),
        };
        Arc::new(move || build::worker(&parts, &opened, &clock, &metrics))
    };
    // Before "ready", so that a signal that comes right after it is obeyed.
    let mut signals = background.block_on(async { signals::Signals::listen() })?;
    let workers = runtime::start(
        bound,
        &settings,
        tls.as_ref(),
        &metrics,
        &make_worker,
        &draining,
    )
    .map_err(|error| format!("cannot start the worker threads: {error}"))?;

    let serving = Arc::new(AtomicBool::new(true));
    for warning in warnings {
        match &warning.help {
            Some(help) => tracing::warn!("{}: {help}", warning.what),
            None => tracing::warn!("{}", warning.what),
        }
    }
    for line in compiled.summary() {
        tracing::info!("{line}");
    }
    tracing::info!("ready");
    on_ready(&compiled.server.listen);

    background.block_on(async {
        upstream::health::start(&compiled.upstreams, &fleet);
        if let Some(tls) = tls {
            tokio::spawn(tls.follow());
        }
        let sessions = Arc::new(Sessions::new(
            opened.handle(),
            clock.clone(),
            metrics.clone(),
            shared.clone(),
        ));
        tokio::spawn(live::watch_over(sessions.clone(), {
            let state = state.clone();
            move || state.load_full()
        }));
        if let Some(socket) = control_socket {
            let control = Arc::new(Control {
                sessions: sessions.clone(),
                state: state.clone(),
            });
            tokio::spawn(async move {
                if let Err(error) = crate::admin::control::serve(socket, control).await {
                    tracing::error!(%error, "the control socket is lost");
                }
            });
        }
        if let Some(socket) = admin_socket {
            let wants = &compiled.admin;
            let admin = Arc::new(Admin {
                metrics: metrics.clone(),
                health: Health {
                    serving: serving.clone(),
                    store: wants.ready_requires_store.then(|| sessions.clone()),
                    upstreams: if wants.ready_requires_upstream {
                        compiled.upstreams.clone()
                    } else {
                        Vec::new()
                    },
                },
            });
            tokio::spawn(async move {
                if let Err(error) = serve(socket, admin).await {
                    tracing::error!(%error, "the admin listener is lost");
                }
            });
        }
        signals.end().await;
        serving.store(false, Ordering::Relaxed);
        metrics.draining.set(1);
        if settings.drain_delay.is_zero() {
            tracing::info!("stopping: not ready any more");
        } else {
            tracing::info!(
                "stopping: not ready any more, still serving for {:?}",
                settings.drain_delay
            );
        }
        tokio::select! {
            () = tokio::time::sleep(settings.drain_delay) => {}
            () = signals.end() => tracing::warn!("a second signal: not waiting for drain_delay"),
        }
        let _ = drain.send(true);
        tracing::info!(
            "draining: finishing what is in flight, for {:?} at most",
            settings.drain_timeout
        );
        tokio::select! {
            () = join(workers, settings.drain_timeout + JOIN_MARGIN) => {}
            () = signals.end() => tracing::warn!("another signal: cutting what is in flight"),
        }
        tracing::info!("stopped");
    });
    drop(log);
    Ok(())
}

fn bind_admin(compiled: &mut Compiled) -> Result<Option<TcpListener>, String> {
    let Some(address) = compiled.admin.listen else {
        return Ok(None);
    };
    let socket = crate::server::listener::bind(address, 1)?
        .pop()
        .ok_or_else(|| format!("cannot listen on {address}"))?;
    compiled.admin.listen = socket.local_addr().ok();
    Ok(Some(socket))
}

/// Waits for the worker threads without blocking the signals.
async fn join(workers: Vec<JoinHandle<()>>, patience: Duration) {
    let end = Instant::now() + patience;
    while Instant::now() < end && !workers.iter().all(JoinHandle::is_finished) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
