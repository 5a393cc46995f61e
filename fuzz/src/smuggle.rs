//! The whole way of requests, from bytes on a connection to what the application
//! receives: it receives the requests that a strict reader of these bytes finds,
//! some of them (others are refused), in order, and nothing else.
//!
//! An input is what a client sends. `@SESSION@` stands for the value of a genuine
//! session cookie. `/` is public, `/private` needs a session, `/denied` is denied.
//! The application answers `…/early` before it has the body, and closes after
//! `…/close`.
//!
//! HTTP/2 is not read here: an input that is its preface is skipped.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use cloakroom::app::build;
use cloakroom::base::clock::Clock;
use cloakroom::base::identity::Identity;
use cloakroom::base::metrics::Metrics;
use cloakroom::config::{Compiled, Environment, Overrides, Source, load};
use cloakroom::login::password::Logins;
use cloakroom::proxy::State;
use cloakroom::proxy::access_log::AccessLog;
use cloakroom::server::ServerSettings;
use cloakroom::server::connection::{Purpose, Shared, Socket, serve};
use cloakroom::session::sessions::Origin;
use cloakroom::session::{Sessions, store};
use cloakroom::upstream::Fleet;
use cloakroom::wire::cookie;
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::http1::{self, End, Manner, Request};
use crate::replace;

mod judge;

use judge::{allowed, finals, judge};

const CONFIGURATION: &str = r#"
[upstreams.app]
urls = ["http://@BACKEND@"]
[[routes]]
path = "/"
access = "public"
[[routes]]
path = "/private"
access = "login"
[[routes]]
path = "/denied"
access = "deny"
[session]
secrets = ["Vh2zlk0Wq8VXb4mJgk5uYc1rTn7dEoPsK3xA9wQ6"]
[session.cookie]
name = "sid"
[store]
url = "memory:"
[identity.headers]
"X-User-Id" = "userId"
"X-User-Roles" = "roles"
"#;

/// Follows every input. Its answer ends the connection, so that nothing has to
/// be waited for where the input is a row of whole requests.
const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// How long nothing may happen before the client gives up its half, where the
/// input may have left the proxy waiting for more.
const SILENCE: Duration = Duration::from_millis(50);

/// Time for what should not happen.
const GRACE: Duration = Duration::from_millis(1);

/// A connection that is not closed by then hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// What lives on from one input to the next.
pub struct Proxy {
    runtime: Runtime,
    front: TcpListener,
    backend: TcpListener,
    compiled: Compiled,
    state: Arc<ArcSwap<State>>,
    logins: Logins,
    metrics: Arc<Metrics>,
    settings: Arc<ServerSettings>,
}

/// What the application received, in order.
#[derive(Default)]
struct Log {
    requests: Vec<Request>,
    malformed: Vec<String>,
}

/// What one input led to.
struct Seen {
    log: Log,
    /// The value of the session cookie.
    session: String,
    /// The client's bytes.
    sent: Vec<u8>,
    /// The proxy's bytes.
    answered: Vec<u8>,
    /// Whether the client gave up before it had all answers.
    hurried: bool,
}

impl Proxy {
    /// Everything but the connections.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let bind = || runtime.block_on(TcpListener::bind(("127.0.0.1", 0)));
        let (front, backend) = (bind().expect("a port"), bind().expect("a port"));
        let address = backend.local_addr().expect("an address").to_string();
        let text = CONFIGURATION.replace("@BACKEND@", &address);
        let source = Source::inline("fuzz", &text);
        let (compiled, _) = load(&source, &Environment::default(), &Overrides::default())
            .unwrap_or_else(|problems| panic!("{}", source.render(&problems, false)));
        let metrics = Arc::new(Metrics::new());
        Self {
            front,
            backend,
            state: build::state(&compiled, &metrics).expect("a state"),
            logins: Logins::start(&compiled.login).expect("hash threads"),
            settings: Arc::new(compiled.server.clone()),
            compiled,
            metrics,
            runtime,
        }
    }

    /// Sends an input, and judges what came of it.
    pub fn run(&self, input: &[u8]) {
        if input.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM") {
            return;
        }
        let seen = self.runtime.block_on(self.exchange(input));
        judge(&seen, &self.compiled.routes);
    }

    async fn exchange(&self, input: &[u8]) -> Seen {
        // A store and a pool of its own: an input leaves nothing to the next.
        let clock = Clock::system();
        let opened = store::open(&self.compiled.store, clock.clone()).expect("a store");
        let shared = cloakroom::session::Shared::follow(&opened, &self.compiled.store.cache);
        let sessions = Sessions::new(
            opened.handle(),
            clock.clone(),
            self.metrics.clone(),
            shared.clone(),
        );
        let session = self.sign_in(&sessions).await;
        let parts = build::Parts {
            state: self.state.clone(),
            upstreams: self.compiled.upstreams.clone(),
            shared,
            fleet: Fleet::new(&self.compiled.upstreams, &self.metrics),
            logins: self.logins.clone(),
            limiter: None,
            access: AccessLog::off(),
        };
        let worker = build::worker(&parts, &opened, &clock, &self.metrics);

        let address = self.front.local_addr().expect("an address");
        let client = TcpStream::connect(address).await.expect("a connection");
        let (accepted, peer) = self.front.accept().await.expect("a connection");
        let (drain, draining) = watch::channel(false);
        let shared = Shared {
            settings: self.settings.clone(),
            tls: None,
            metrics: self.metrics.clone(),
            drain: draining,
        };
        let socket = Socket::Tcp(accepted, peer, None);
        let serving = tokio::spawn(serve(socket, Purpose::Plain, worker, shared));

        let log = Arc::new(Mutex::new(Log::default()));
        let mut sent = replace(input, b"@SESSION@", session.as_bytes());
        sent.extend_from_slice(LAST);
        let (done, talked) = oneshot::channel();
        let talking = async {
            let talk = talk(client, &sent).await;
            // With it its worker goes, and the connections to the application.
            serving.await.expect("the connection's task");
            let _ = done.send(());
            talk
        };
        let ((answered, hurried), ()) =
            tokio::join!(talking, self.applications(log.clone(), talked));
        drop(drain);
        let log = std::mem::take(&mut *log.lock().expect("no panic"));
        Seen {
            log,
            session,
            sent,
            answered,
            hurried,
        }
    }

    async fn sign_in(&self, sessions: &Sessions) -> String {
        let began = sessions.begin_login().await.expect("a store");
        let identity = Identity {
            user: "u1".to_owned(),
            roles: vec!["admin".to_owned()],
            claims: serde_json::Map::new(),
        };
        let origin = Origin {
            address: "::1".to_owned(),
            user_agent: String::new(),
            secure: false,
        };
        let rules = &self.state.load().sessions;
        let created = sessions
            .create(rules, began, identity, origin, &HeaderMap::new())
            .await
            .expect("a session");
        cookie::encode(&created.cookie)
    }

    /// The application: accepts until the client has its answers, then waits for
    /// what it has accepted to end.
    async fn applications(&self, log: Arc<Mutex<Log>>, mut talked: oneshot::Receiver<()>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                accepted = self.backend.accept() => {
                    let (stream, _) = accepted.expect("a connection");
                    connections.spawn(application(stream, log.clone()));
                }
                _ = &mut talked => break,
            }
        }
        let ended = timeout(PATIENCE, connections.join_all()).await;
        assert!(ended.is_ok(), "a connection to the application stays open");
    }
}

/// Sends the bytes and reads the answers, until the connection is closed. Also
/// says whether it gave up before all answers were there.
async fn talk(client: TcpStream, sent: &[u8]) -> (Vec<u8>, bool) {
    let (requests, clean) = allowed(sent);
    let whole = requests
        .iter()
        .filter(|request| matches!(request.end, End::At(_)))
        .count();
    let (mut read, mut write) = client.into_split();
    let mut answered = Vec::new();
    let sending = async {
        // The proxy may close before it has read everything.
        let _ = write.write_all(sent).await;
        write
    };
    let reading = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let enough = finals(&answered, &requests) >= whole;
            let wait = match (clean, enough) {
                (true, _) => PATIENCE,
                (false, true) => GRACE,
                (false, false) => SILENCE,
            };
            match timeout(wait, read.read(&mut buffer)).await {
                Ok(Ok(0) | Err(_)) => return (answered, false, None),
                Ok(Ok(n)) => answered.extend_from_slice(&buffer[..n]),
                Err(_) => return (answered, !enough, Some(read)),
            }
        }
    };
    let (mut write, (mut answered, hurried, read)) = tokio::join!(sending, reading);
    let Some(mut read) = read else {
        return (answered, hurried);
    };
    let _ = write.shutdown().await;
    // A reset is an end as well.
    let rest = timeout(PATIENCE, read.read_to_end(&mut answered)).await;
    assert!(rest.is_ok(), "hangs: {}", http1::lossy(sent));
    (answered, hurried)
}

/// One connection of the application.
async fn application(mut stream: TcpStream, log: Arc<Mutex<Log>>) {
    let mut received = Vec::new();
    let mut early = false;
    loop {
        match http1::request(&received, Manner::Strict) {
            Ok(request) if matches!(request.end, End::At(_)) => {
                let End::At(length) = request.end else {
                    return;
                };
                received.drain(..length);
                let answer = (!early).then(|| answer(&request));
                early = false;
                let close = request.target.ends_with("/close");
                log.lock().expect("no panic").requests.push(request);
                if let Some(answer) = answer
                    && stream.write_all(&answer).await.is_err()
                {
                    return;
                }
                if close {
                    return;
                }
                continue;
            }
            Ok(request) if request.end == End::Open => {
                if !early && request.target.ends_with("/early") {
                    early = true;
                    if stream.write_all(&answer(&request)).await.is_err() {
                        return;
                    }
                }
            }
            Err(End::Open) => {}
            Ok(Request { end, .. }) | Err(end) => {
                let what = format!("{end:?}: {}", http1::lossy(&received));
                log.lock().expect("no panic").malformed.push(what);
                return;
            }
        }
        match stream.read_buf(&mut received).await {
            Ok(n) if n > 0 => {}
            _ => break,
        }
    }
    match http1::request(&received, Manner::Strict) {
        Ok(request) => log.lock().expect("no panic").requests.push(request),
        Err(_) if received.is_empty() => {}
        Err(_) => {
            let what = format!("half a head: {}", http1::lossy(&received));
            log.lock().expect("no panic").malformed.push(what);
        }
    }
}

fn answer(request: &Request) -> Vec<u8> {
    let body = if request.method == "HEAD" { "" } else { "fine" };
    format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{body}").into_bytes()
}
