//! The control socket: how the command line reaches the sessions of a running
//! proxy whose store belongs to it alone.
//!
//! HTTP/1.1 over a Unix socket that its owner alone may open (mode 0600). There
//! is one resource: `POST /sessions` with an [`Order`] as JSON gives an
//! [`Answer`] as JSON, or a status and `{"error": …}`. No order and no answer
//! holds a token.

use std::convert::Infallible;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::base::refusal::Failure;
use crate::proxy::State;
use crate::server::listener::pause_after;
use crate::session::{Device, SessionRules, Sessions};

/// Connections at once.
const CONNECTIONS: usize = 16;

/// The longest that a request's head, and then its body, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest life of a connection.
const LONGEST: Duration = Duration::from_secs(60);

/// The largest order, in bytes.
const ORDER_BYTES: usize = 64 * 1024;

/// The most sessions in one answer.
const MOST: usize = 1000;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// A part of all sessions, or all of a user's.
    List {
        /// Whose; `None`: everybody's.
        user: Option<String>,
        /// Where the part before ended.
        cursor: Option<String>,
    },
    /// End one session.
    Revoke {
        /// Whose it is.
        user: String,
        /// Its handle.
        handle: String,
    },
    /// End all sessions of a user, also those whose login is running.
    RevokeUser {
        /// Whose.
        user: String,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Sessions, and where the next part begins, if there is one.
    Sessions {
        /// They.
        sessions: Vec<Entry>,
        /// The next part's cursor.
        next: Option<String>,
    },
    /// So many were ended.
    Ended {
        /// How many.
        count: usize,
    },
}

/// One session. Moments are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What logs call it.
    pub handle: String,
    /// The user id.
    pub user: String,
    /// When the login was.
    pub created: u64,
    /// When it was last used.
    pub seen: u64,
    /// When it ends however much it is used.
    pub ends: u64,
    /// When it ends if it is not used.
    pub idle_ends: u64,
    /// The client's address at login.
    pub address: String,
    /// The client's user agent at login.
    pub user_agent: String,
}

impl Entry {
    fn of(rules: &SessionRules, device: Device) -> Self {
        Self {
            handle: device.handle.to_string(),
            created: device.head.created,
            seen: device.seen.0,
            ends: device.absolute_end(rules).0,
            idle_ends: device.idle_end(rules).0,
            user: device.head.user,
            address: device.head.address,
            user_agent: device.head.user_agent,
        }
    }
}

/// Does what an order says.
///
/// # Errors
///
/// The store gave no answer.
pub async fn carry_out(
    sessions: &Sessions,
    rules: &SessionRules,
    order: Order,
) -> Result<Answer, Failure> {
    Ok(match order {
        Order::List { user, cursor } => {
            let (devices, next) = match user {
                Some(user) => (sessions.devices(rules, &user).await?, None),
                None => sessions.everybody(rules, cursor, MOST).await?,
            };
            let entry = |device| Entry::of(rules, device);
            Answer::Sessions {
                sessions: devices.into_iter().map(entry).collect(),
                next,
            }
        }
        Order::Revoke { user, handle } => Answer::Ended {
            count: usize::from(sessions.revoke(rules, &user, &handle).await?),
        },
        Order::RevokeUser { user } => Answer::Ended {
            count: sessions.revoke_user(rules, &user).await?,
        },
    })
}

/// What the control socket works on.
pub struct Control {
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// The configuration in force.
    pub state: Arc<ArcSwap<State>>,
}

/// Serves the control socket until it is dropped.
///
/// # Errors
///
/// If the runtime does not take the socket.
pub async fn serve(socket: UnixListener, control: Arc<Control>) -> std::io::Result<()> {
    let socket = tokio::net::UnixListener::from_std(socket)?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                if let Some(pause) = pause_after(&error) {
                    tokio::time::sleep(pause).await;
                }
                continue;
            }
        };
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return Ok(());
        };
        let control = control.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let control = control.clone();
                async move { Ok::<_, Infallible>(respond(&control, request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            // Whoever hangs keeps no place from others, and one that hangs up
            // early is no news.
            let _ = tokio::time::timeout(LONGEST, connection).await;
            drop(permit);
        });
    }
}

async fn respond(control: &Control, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != "/sessions" {
        return refuse(StatusCode::NOT_FOUND, "there is /sessions alone");
    }
    if request.method() != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "only POST is allowed");
    }
    let body = Limited::new(request.into_body(), ORDER_BYTES).collect();
    let Ok(Ok(body)) = tokio::time::timeout(PATIENCE, body).await else {
        return refuse(StatusCode::BAD_REQUEST, "the order did not arrive");
    };
    let order: Order = match serde_json::from_slice(&body.to_bytes()) {
        Ok(order) => order,
        Err(error) => {
            return refuse(StatusCode::BAD_REQUEST, &format!("not an order: {error}"));
        }
    };
    match &order {
        Order::List { .. } => {}
        Order::Revoke { user, handle } => {
            tracing::info!(user, session = handle, "control: ending a session");
        }
        Order::RevokeUser { user } => {
            tracing::info!(user, "control: ending all sessions of a user");
        }
    }
    let state = control.state.load_full();
    match carry_out(&control.sessions, &state.sessions, order).await {
        Ok(answer) => json_response(StatusCode::OK, &json!(answer)),
        Err(failure) => refuse(failure.refusal.status(), &failure.to_string()),
    }
}

fn refuse(status: StatusCode, error: &str) -> Response<Full<Bytes>> {
    json_response(status, &json!({ "error": error }))
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Why a control socket gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there: no proxy is running.
    #[error("no proxy listens there")]
    NobodyThere,
    /// Somebody does, or may; and what went wrong.
    #[error("{0}")]
    Failed(String),
}

/// Sends an order to the control socket of a running proxy.
///
/// # Errors
///
/// See [`CallError`].
pub async fn call(socket: &Path, order: &Order) -> Result<Answer, CallError> {
    use std::io::ErrorKind;
    let stream = match tokio::net::UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            return Err(CallError::NobodyThere);
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(CallError::Failed(format!(
                "{error}; run this command as the user that Cloakroom runs as"
            )));
        }
        Err(error) => return Err(CallError::Failed(error.to_string())),
    };
    match tokio::time::timeout(LONGEST, exchange(stream, order)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(why)) => Err(CallError::Failed(why)),
        Err(_) => Err(CallError::Failed("the proxy does not answer".to_owned())),
    }
}

async fn exchange(stream: tokio::net::UnixStream, order: &Order) -> Result<Answer, String> {
    let broken = |error: hyper::Error| format!("the proxy's answer broke off: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    tokio::spawn(connection);
    let body = serde_json::to_vec(order).map_err(|error| error.to_string())?;
    let request = Request::post("/sessions")
        .header(HOST, "cloakroom")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(broken)?;
    let body = body.to_bytes();
    if status == StatusCode::OK {
        return serde_json::from_slice(&body)
            .map_err(|error| format!("the proxy is of another version: {error}"));
    }
    #[derive(Deserialize)]
    struct Refused {
        error: String,
    }
    Err(match serde_json::from_slice(&body) {
        Ok(Refused { error }) => error,
        Err(_) => format!("the proxy answered {status}"),
    })
}
