//! Tests of bodies on their way through.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::*;
use crate::wire::reserved::IdentityHeaders;

enum Step {
    Data(&'static str),
    Trailers(&'static [&'static str]),
    Fail,
    Wait,
}

/// A body that does what it is told; after its last step it ends.
struct Script {
    steps: VecDeque<Step>,
    hint: SizeHint,
    ended: bool,
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            hint: SizeHint::default(),
            ended: false,
        }
    }

    fn declared(length: u64, steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            hint: SizeHint::with_exact(length),
            ..Self::new(steps)
        }
    }
}

impl HttpBody for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(Step::Wait) = self.steps.front() {
            return Poll::Pending;
        }
        Poll::Ready(self.steps.pop_front().map(|step| match step {
            Step::Data(data) => {
                if let Some(left) = self.hint.exact() {
                    self.hint = SizeHint::with_exact(left - data.len() as u64);
                }
                Ok(Frame::data(Bytes::from_static(data.as_bytes())))
            }
            Step::Trailers(names) => {
                let mut fields = HeaderMap::new();
                for name in names {
                    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                    fields.append(name, HeaderValue::from_static("1"));
                }
                Ok(Frame::trailers(fields))
            }
            Step::Fail => Err(io::Error::other("broken")),
            Step::Wait => unreachable!(),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

const LONG: Duration = Duration::from_secs(60);

/// All data, the names of the trailers, and how it ended.
async fn drain(
    mut body: impl HttpBody<Data = Bytes, Error = BodyError> + Unpin,
) -> (String, Vec<String>, Option<BodyError>) {
    let (mut text, mut names) = (String::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => text.push_str(std::str::from_utf8(&data).unwrap()),
                Err(frame) => {
                    let fields = frame.into_trailers().unwrap();
                    names.extend(fields.keys().map(|name| name.as_str().to_owned()));
                }
            },
            Err(error) => {
                assert!(body.frame().await.is_none(), "nothing follows an error");
                return (text, names, Some(error));
            }
        }
    }
    (text, names, None)
}

#[tokio::test]
async fn data_passes_and_is_counted() {
    let mut body = Guarded::new(Script::new([Step::Data("ab"), Step::Data("cde")]));
    let watch = body.watch();
    let (text, _, error) = drain(body).await;
    assert_eq!(text, "abcde");
    assert!(error.is_none());
    assert_eq!(
        (watch.bytes(), watch.fate(), watch.is_complete()),
        (5, BodyFate::Fine, true)
    );
}

#[tokio::test]
async fn a_body_over_its_limit_is_cut() {
    let steps = || [Step::Data("abc"), Step::Data("de")];
    let exact = Guarded::new(Script::new(steps())).limit(Some(5));
    assert!(drain(exact).await.2.is_none());
    let mut over = Guarded::new(Script::new(steps())).limit(Some(4));
    let watch = over.watch();
    let (text, _, error) = drain(over).await;
    assert_eq!(text, "abc");
    assert!(matches!(error, Some(BodyError::TooLarge)));
    assert_eq!((watch.fate(), watch.bytes()), (BodyFate::TooLarge, 3));
    assert!(!watch.is_complete());
}

#[test]
fn a_declared_length_is_enough_to_refuse() {
    let body = |limit| Guarded::new(Script::declared(5, [])).limit(limit);
    assert!(body(Some(4)).is_declared_too_large());
    assert!(!body(Some(5)).is_declared_too_large());
    assert!(!body(None).is_declared_too_large());
}

/// CVE-2024-28869: a body that never comes does not hold the connection.
#[tokio::test]
async fn cve_2024_28869_silence_ends() {
    let mut body =
        Guarded::new(Script::new([Step::Data("a"), Step::Wait])).idle(Duration::from_millis(5));
    let watch = body.watch();
    let (text, _, error) = drain(body).await;
    assert_eq!(text, "a");
    assert!(matches!(error, Some(BodyError::Idle)));
    assert_eq!(watch.fate(), BodyFate::Idle);
}

#[tokio::test]
async fn no_timer_exists_before_a_read_waits() {
    let mut body = Guarded::new(Script::new([Step::Data("a"), Step::Wait])).idle(LONG);
    assert!(body.frame().await.is_some());
    assert!(body.timer.is_none());
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(Pin::new(&mut body).poll_frame(&mut cx).is_pending());
    assert!(body.timer.is_some());
}

/// Each read has the whole time: what is measured is silence, not duration.
#[tokio::test]
async fn progress_starts_the_time_anew() {
    let idle = Duration::from_millis(5);
    let mut body = Guarded::new(Script::new([Step::Wait])).idle(idle);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(Pin::new(&mut body).poll_frame(&mut cx).is_pending());
    let first = body.timer.as_ref().unwrap().deadline();
    tokio::time::sleep_until(first + idle).await;
    body.inner.steps = VecDeque::from([Step::Data("a"), Step::Wait]);
    assert!(Pin::new(&mut body).poll_frame(&mut cx).is_ready());
    // The timer has fired, but for a read that was answered.
    let before = Instant::now();
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(matches!(error, BodyError::Idle));
    assert!(before.elapsed() >= idle);
}

/// S-19, CVE-2026-33555: a body that ends early is not whole.
#[tokio::test]
async fn s19_a_short_body_is_an_error() {
    let mut short = Guarded::new(Script::declared(5, [Step::Data("abc")]));
    let watch = short.watch();
    assert!(matches!(drain(short).await.2, Some(BodyError::Short)));
    assert_eq!(
        (watch.fate(), watch.is_complete()),
        (BodyFate::Broken, false)
    );
    let mut broken = Guarded::new(Script::new([Step::Data("abc"), Step::Fail]));
    let watch = broken.watch();
    assert!(matches!(drain(broken).await.2, Some(BodyError::Broken(_))));
    assert_eq!(watch.fate(), BodyFate::Broken);
    // The answer to HEAD over HTTP/2 declares a length that never comes.
    let mut head = Script::declared(5, []);
    head.ended = true;
    assert!(drain(Guarded::new(head)).await.2.is_none());
}

/// S-19: a reset with `NO_ERROR` makes no upload complete.
#[tokio::test]
async fn s19_an_http_2_stream_must_end_explicitly() {
    let body = |ended| {
        let mut script = Script::new([Step::Data("abc")]);
        script.ended = ended;
        Guarded::new(script).explicit_end()
    };
    assert!(matches!(drain(body(false)).await.2, Some(BodyError::Short)));
    assert!(drain(body(true)).await.2.is_none());
}

#[tokio::test]
async fn a_consumer_that_knows_the_length_need_not_see_the_end() {
    let mut script = Script::declared(3, [Step::Data("abc")]);
    script.ended = true;
    let mut body = Guarded::new(script);
    let watch = body.watch();
    assert!(body.frame().await.is_some());
    assert!(watch.is_complete());
}

/// S-18: trailers are dropped, or pass without forbidden and identity names.
#[tokio::test]
async fn s18_trailers() {
    let names: &[&str] = &[
        "grpc-status",
        "x-checksum",
        "content-length",
        "transfer-encoding",
        "host",
        "trailer",
        "set-cookie",
        "authorization",
        "x_user_id",
        "X-User-Id",
        "x-forwarded-for",
        "connection",
        "content-type",
        "if-match",
        "te",
    ];
    let identity = IdentityHeaders::new(vec![(
        HeaderName::from_static("x-user-id"),
        "id".to_owned(),
    )]);
    let pass = |trailers| async move {
        let body = Guarded::new(Script::new([Step::Data("a"), Step::Trailers(names)]));
        drain(body.trailers(trailers)).await.1
    };
    assert!(pass(Trailers::Drop).await.is_empty());
    assert_eq!(
        pass(Trailers::Pass).await,
        ["grpc-status", "x-checksum", "x_user_id", "x-user-id"]
    );
    assert_eq!(
        pass(Trailers::PassExcept(Arc::new(identity))).await,
        ["grpc-status", "x-checksum"]
    );
    // Nothing left: no empty frame, just the end.
    let body = Guarded::new(Script::new([Step::Trailers(&["host"])])).trailers(Trailers::Pass);
    assert_eq!(drain(body).await.1.len(), 0);
}

#[tokio::test]
async fn sizes_are_exact() {
    let guarded = Guarded::new(Script::declared(7, []));
    assert_eq!(guarded.size_hint().exact(), Some(7));
    let full = Body::from(Bytes::from_static(b"abc"));
    assert_eq!(
        (full.size_hint().exact(), full.is_end_stream()),
        (Some(3), false)
    );
    assert_eq!(drain(full).await.0, "abc");
    let empty = Body::from(Bytes::new());
    assert_eq!(
        (empty.size_hint().exact(), empty.is_end_stream()),
        (Some(0), true)
    );
    assert_eq!(drain(empty).await.0, "");
}

#[tokio::test]
async fn collecting_is_limited_in_size_and_time() {
    let collect = |script, max, idle| collect_limited(script, max, idle);
    let parts = Script::new([Step::Data("ab"), Step::Data("c"), Step::Trailers(&["x"])]);
    assert_eq!(collect(parts, 3, LONG).await.unwrap(), "abc");
    assert_eq!(collect(Script::new([]), 0, LONG).await.unwrap(), "");
    let over = Script::new([Step::Data("abcd")]);
    assert_eq!(collect(over, 3, LONG).await, Err(Refusal::BodyTooLarge));
    let declared = Script::declared(4, [Step::Wait]);
    assert_eq!(collect(declared, 3, LONG).await, Err(Refusal::BodyTooLarge));
    let silent = Script::new([Step::Data("a"), Step::Wait]);
    let brief = Duration::from_millis(5);
    assert_eq!(collect(silent, 3, brief).await, Err(Refusal::BodyTimeout));
    let broken = Script::new([Step::Fail]);
    assert_eq!(collect(broken, 3, LONG).await, Err(Refusal::BadRequestBody));
}

/// Sends raw bytes, closes that half, and says what became of the body.
async fn through_hyper(raw: &'static str) -> Result<Bytes, Refusal> {
    let (mut client, server) = tokio::io::duplex(4096);
    let (results, mut result) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Incoming>| {
        let results = results.clone();
        async move {
            let collected = collect_limited(request.into_body(), 100, LONG).await;
            results.send(collected).unwrap();
            Ok::<_, Infallible>(Response::new(Body::Empty))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), service);
    let talk = async move {
        client.write_all(raw.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
    };
    let (_, ()) = tokio::join!(connection, talk);
    result.recv().await.unwrap()
}

/// S-17, S-19 with hyper itself at the other end.
#[tokio::test]
async fn s19_a_cut_request_is_not_whole() {
    let whole = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    assert_eq!(through_hyper(whole).await.unwrap(), "abc");
    let chunked =
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    assert_eq!(through_hyper(chunked).await.unwrap(), "abc");
    for cut in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    ] {
        assert_eq!(
            through_hyper(cut).await,
            Err(Refusal::BadRequestBody),
            "{cut}"
        );
    }
}

/// What a server makes of a request body that arrives over HTTP/2.
async fn through_http_2(script: Script) -> (String, Vec<String>, Option<BodyError>) {
    let (client, server) = tokio::io::duplex(4096);
    let (results, mut result) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Incoming>| {
        let results = results.clone();
        async move {
            let body = Guarded::new(request.into_body())
                .explicit_end()
                .trailers(Trailers::Pass);
            results.send(drain(Body::from(body)).await).unwrap();
            Ok::<_, Infallible>(Response::new(Body::Empty))
        }
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(server), service);
    let talk = async move {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client))
                .await
                .unwrap();
        let request = Request::post("http://a/").body(script).unwrap();
        let exchange = async move {
            let _ = sender.send_request(request).await;
        };
        let _ = tokio::join!(connection, exchange);
    };
    let (_, ()) = tokio::join!(server, talk);
    result.recv().await.unwrap()
}

#[tokio::test]
async fn s19_http_2_bodies_that_end_well_are_whole() {
    let (text, names, error) =
        through_http_2(Script::new([Step::Data("ab"), Step::Data("c")])).await;
    assert_eq!((text.as_str(), names.len()), ("abc", 0));
    assert!(error.is_none(), "{error:?}");
    let with_trailers = Script::new([Step::Data("abc"), Step::Trailers(&["x-sum", "host"])]);
    let (text, names, error) = through_http_2(with_trailers).await;
    assert_eq!((text.as_str(), names), ("abc", vec!["x-sum".to_owned()]));
    assert!(error.is_none(), "{error:?}");
    let (_, _, error) = through_http_2(Script::declared(0, [])).await;
    assert!(error.is_none(), "{error:?}");
    let (_, _, error) = through_http_2(Script::new([Step::Data("abc"), Step::Fail])).await;
    assert!(matches!(error, Some(BodyError::Broken(_))), "{error:?}");
}

#[test]
fn errors_say_what_the_client_did() {
    for (error, refusal) in [
        (BodyError::TooLarge, Refusal::BodyTooLarge),
        (BodyError::Idle, Refusal::BodyTimeout),
        (BodyError::Short, Refusal::BadRequestBody),
        (BodyError::Broken("x".into()), Refusal::BadRequestBody),
    ] {
        assert_eq!(error.refusal(), refusal);
    }
}
