use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

use bytes::Bytes;
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::Notify;

use super::*;

/// Notes how much room the last read had that found nothing.
struct Noting(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Noting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let room = buffer.remaining();
        let polled = Pin::new(&mut self.0).poll_read(context, buffer);
        if polled.is_pending() {
            self.1.store(room, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Noting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// A client of a connection, the room of its last read, and the content that
/// nobody reads.
struct Client {
    stream: DuplexStream,
    room: Arc<AtomicUsize>,
    drain: watch::Sender<bool>,
    content: Arc<Mutex<Vec<Incoming>>>,
    /// Lets the answer to `/slow` begin.
    go: Arc<Notify>,
}

impl Client {
    /// Must be called in a [`LocalSet`](tokio::task::LocalSet).
    fn new() -> Self {
        let (stream, theirs) = tokio::io::duplex(65_536);
        let room = Arc::new(AtomicUsize::new(0));
        let (drain, draining) = watch::channel(false);
        let settings = crate::server::settings::tests::settings();
        let serving = Serving {
            deadlines: Deadlines::new(&settings),
            peer: IpAddr::from([127, 0, 0, 1]),
            settings: Arc::new(settings),
            metrics: Arc::new(Metrics::new()),
            refuse: Box::new(|refusal| {
                let mut response = Response::new(Bytes::from_static(b"ours"));
                *response.status_mut() = refusal.status();
                response
            }),
            drain: draining,
        };
        let content = Arc::new(Mutex::new(Vec::new()));
        let kept = content.clone();
        let go = Arc::new(Notify::new());
        let may_go = go.clone();
        let answer = move |request: Request<Incoming>, found: Option<Refusal>| {
            let said = format!("{} {found:?}", request.uri());
            let may_go = (request.uri() == "/slow").then(|| may_go.clone());
            kept.lock().unwrap().push(request.into_body());
            async move {
                if let Some(go) = may_go {
                    go.notified().await;
                }
                Response::new(Full::from(said))
            }
        };
        let theirs = Early::new(Noting(theirs, room.clone()));
        tokio::task::spawn_local(serve(theirs, Protocol::Http1, serving, answer));
        Self {
            stream,
            room,
            drain,
            content,
            go,
        }
    }

    async fn ask(&mut self, bytes: &str, last: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
        self.read_until(last).await;
    }

    async fn read_until(&mut self, last: &str) {
        let mut said = Vec::new();
        while !said.ends_with(last.as_bytes()) {
            let read = self.stream.read_buf(&mut said).await.unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&said));
        }
    }

    async fn rests(&self) -> bool {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.room.load(Ordering::Relaxed) < LEAST_BUFFER
    }
}

fn run(test: impl Future<Output = ()> + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

const FIRST: &str = "GET /1 HTTP/1.1\r\nhost: a\r\n\r\n";
const SLOW: &str = "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";
const SECOND: &str = "GET /2#x HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn a_quiet_connection_rests_and_wakes() {
    run(async {
        let mut client = Client::new();
        for _ in 0..3 {
            client.ask(FIRST, "/1 None").await;
            assert!(client.rests().await);
            client.ask(&FIRST.repeat(2), "/1 None").await;
            assert!(client.rests().await);
        }
        // The count of requests goes on, and so does what is found.
        let both = format!("{FIRST}{SECOND}");
        client.ask(&both, "/2 Some(BadRequestTarget)").await;
        assert!(client.rests().await);
        drop(client.stream.shutdown().await);
        let mut rest = Vec::new();
        client.stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
    });
}

#[test]
fn empty_lines_behind_a_request_are_counted_once() {
    run(async {
        let mut client = Client::new();
        client.ask(&format!("{FIRST}\r\n"), "/1 None").await;
        assert!(client.rests().await);
        client.ask(FIRST, "/1 None").await;
        assert!(client.rests().await);
        client.ask(SECOND, "/2 Some(BadRequestTarget)").await;
    });
}

#[test]
fn a_connection_that_rests_hears_of_the_end_before_it_reads_on() {
    run(async {
        for more in ["", "\r\n", FIRST] {
            let mut client = Client::new();
            client.ask(&format!("{FIRST}\r\n"), "/1 None").await;
            assert!(client.rests().await);
            client.stream.write_all(more.as_bytes()).await.unwrap();
            client.drain.send(true).unwrap();
            let mut said = String::new();
            let ended = client.stream.read_to_string(&mut said);
            let within = tokio::time::timeout(Duration::from_secs(1), ended).await;
            within.expect(more).unwrap();
        }
    });
}

#[test]
fn content_that_nobody_has_read_keeps_a_connection_awake() {
    run(async {
        let mut client = Client::new();
        let post = "POST /3 HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nGET /";
        client.ask(post, "/3 None").await;
        assert!(!client.rests().await);
        client.stream.write_all(FIRST.as_bytes()).await.unwrap();
        client.content.lock().unwrap().clear();
        client.read_until("/1 None").await;
        assert!(client.rests().await);
    });
}

#[test]
fn what_cannot_be_parsed_is_refused_after_a_rest() {
    run(async {
        let mut client = Client::new();
        client.ask(FIRST, "/1 None").await;
        assert!(client.rests().await);
        let both = format!("{FIRST}GET / HTTP/1.1\r\na b: c\r\n\r\n");
        client.stream.write_all(both.as_bytes()).await.unwrap();
        let mut said = String::new();
        client.stream.read_to_string(&mut said).await.unwrap();
        assert!(said.contains("/1 None"), "{said}");
        assert!(said.ends_with("\r\n\r\nours"), "{said}");
    });
}

#[test]
fn half_a_request_keeps_a_connection_awake() {
    run(async {
        let mut client = Client::new();
        let (begin, end) = FIRST.split_at(9);
        client.ask(&format!("{FIRST}{begin}"), "/1 None").await;
        assert!(!client.rests().await);
        client.ask(end, "/1 None").await;
        assert!(client.rests().await);
    });
}

#[test]
fn a_connection_that_rests_ends_by_its_deadline_and_by_the_drain() {
    run(async {
        let mut client = Client::new();
        client.ask(FIRST, "/1 None").await;
        let since = tokio::time::Instant::now();
        assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(since.elapsed().as_secs(), 75);

        let mut client = Client::new();
        client.ask(FIRST, "/1 None").await;
        assert!(client.rests().await);
        client.drain.send(true).unwrap();
        assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
        assert!(since.elapsed().as_secs() < 77);
    });
}

#[test]
fn no_buffer_is_held_for_more_while_a_request_is_answered() {
    run(async {
        let mut client = Client::new();
        client.stream.write_all(SLOW.as_bytes()).await.unwrap();
        assert!(client.rests().await);
        // What comes meanwhile is served in its turn.
        client.stream.write_all(FIRST.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.stream.write_all(SECOND.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.go.notify_one();
        client.read_until("/2 Some(BadRequestTarget)").await;
    });
}

#[test]
fn an_end_is_noticed_while_a_request_is_answered() {
    run(async {
        // Who waits for the answer gets it, and then the end.
        let mut client = Client::new();
        client.stream.write_all(SLOW.as_bytes()).await.unwrap();
        client.stream.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_secs(9)).await;
        client.go.notify_one();
        client.read_until("/slow None").await;
        assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
        // Who may have gone is not waited for much longer.
        let mut client = Client::new();
        let since = tokio::time::Instant::now();
        client.stream.write_all(SLOW.as_bytes()).await.unwrap();
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(since.elapsed().as_secs(), 10);
    });
}
