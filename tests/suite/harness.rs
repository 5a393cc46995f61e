//! The tools themselves: a tool that cannot fail proves nothing.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use crate::harness::backend::{Answer, Backend, Reply, nobody};
use crate::harness::config::Config;
use crate::harness::cookies::{CookieJar, SetCookie};
use crate::harness::http::{Client, Request};
use crate::harness::message::{Framing, Reader};
use crate::harness::process::{Process, Signal, Stream};
use crate::harness::redis::{Connection, Redis, Value};
use crate::harness::users::ALICE;

#[test]
fn the_backend_records_exact_bytes() {
    let backend = Backend::start();
    let mut client = Client::connect(backend.addr());
    let first = b"GET /a?b=%20 HTTP/1.1\r\nhOsT: x\r\nX-A:  1\r\nx-a: 2 \r\n\r\n";
    client.send(first);
    let response = client.read("GET");
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["target"], "/a?b=%20");

    let second = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n";
    client.send(second);
    assert_eq!(client.read("POST").json()["body"], "abc");

    let [one, two] = &backend.wait_for(2)[..] else {
        panic!("not two requests")
    };
    assert_eq!(one.raw(), first);
    assert_eq!(one.fields().names(), ["hOsT", "X-A", "x-a"]);
    assert_eq!(one.fields().all("X-A"), ["1", "2"]);
    assert_eq!(two.raw(), second);
    assert_eq!(two.body.content, b"abc");
    assert_eq!(two.body.trailers.get("t").as_deref(), Some("1"));
    assert_eq!(
        (one.connection, two.connection, backend.accepted()),
        (0, 0, 1)
    );
    assert!(backend.malformed().is_empty());
}

#[test]
fn the_backend_refuses_ambiguous_requests() {
    let backend = Backend::start();
    for request in [
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
        "GET / HTTP/1.1\r\nX : 1\r\n\r\n",
        "GET / HTTP/1.1\r\nX: 1\nY: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nX: 1\r\n folded\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ] {
        let before = backend.malformed().len();
        let mut client = Client::connect(backend.addr());
        client.send(request);
        assert!(client.is_closed(), "{request:?}");
        assert_eq!(backend.malformed().len(), before + 1, "{request:?}");
    }
    assert!(backend.requests().is_empty());
}

#[test]
fn the_backend_follows_its_script() {
    let mut backend = Backend::with(|request| match request.target.as_str() {
        "/status" => Reply::status(503),
        "/close" => Reply::Close,
        "/last" => Reply::BytesThenClose(b"HTTP/1.1 200 OK\r\n\r\nuntil the end".to_vec()),
        "/chunked" => {
            let answer = Answer::new(200).header("x-many", "1").header("x-many", "2");
            Reply::Bytes(answer.chunked(&["ab", "c"], &[("grpc-status", "0")]))
        }
        "/upgrade" => Reply::take(|mut stream, already| {
            assert!(already.is_empty());
            stream
                .write_all(b"HTTP/1.1 101 Go on\r\nUpgrade: echo\r\n\r\n")
                .unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).unwrap();
            stream.write_all(&word).unwrap();
        }),
        "/hang" => Reply::Hang,
        _ => Reply::ok("fine"),
    });
    let ask = |target: &str| Request::get(target).send(backend.addr());
    assert_eq!(ask("/status").status, 503);
    assert_eq!(ask("/last").text(), "until the end");
    let chunked = ask("/chunked");
    assert_eq!(chunked.text(), "abc");
    assert_eq!(chunked.fields().all("X-Many"), ["1", "2"]);
    assert_eq!(chunked.trailers.get("grpc-status").as_deref(), Some("0"));
    let mut closing = Client::connect(backend.addr());
    closing.send(Request::get("/close").bytes("x"));
    assert!(closing.is_closed());

    let mut upgraded = Client::connect(backend.addr());
    assert_eq!(upgraded.request(&Request::get("/upgrade")).status, 101);
    upgraded.send("ping");
    assert_eq!(upgraded.read_bytes(4), b"ping");
    assert!(upgraded.is_closed());

    let mut hanging = Client::connect(backend.addr());
    hanging.send(Request::get("/hang").bytes("x"));
    backend.wait_for(6);
    backend.stop();
    assert!(hanging.is_closed());
    assert!(Client::try_connect(backend.addr()).is_err());
    assert_eq!(backend.open(), 0);
    backend.restart();
    assert_eq!(Request::get("/").send(backend.addr()).text(), "fine");
    assert!(Client::try_connect(nobody()).is_err());
}

#[test]
fn the_backend_can_answer_before_the_body() {
    let early = |head: &crate::harness::message::Head| {
        head.start
            .starts_with("POST /early ")
            .then(|| Reply::BytesThenClose(Answer::new(413).bytes()))
    };
    let backend = Backend::with_head(early, |_| Reply::ok("whole"));
    let mut client = Client::connect(backend.addr());
    client.send("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly a part");
    assert_eq!(client.read("POST").status, 413);
    let whole = Request::post("/late")
        .body("all of it")
        .send(backend.addr());
    assert_eq!(whole.text(), "whole");
    assert_eq!(backend.wait_for(2)[1].body.content, b"all of it");
}

#[test]
fn the_client_reads_every_kind_of_response() {
    let read = |bytes: &str, method: &str| {
        let bytes = bytes.to_owned();
        let backend = Backend::with(move |_| Reply::BytesThenClose(bytes.clone().into_bytes()));
        let mut client = Client::connect(backend.addr());
        client.send(Request::new(method, "/").bytes("x"));
        client.try_read(method)
    };
    let head = read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD").unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length").as_deref(), Some("5"));
    let none = read("HTTP/1.1 204 No Content\r\n\r\n", "GET").unwrap();
    assert_eq!((none.status, none.phrase.as_str()), (204, "No Content"));
    let interim = read(
        "HTTP/1.1 100 \r\n\r\nHTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        "GET",
    );
    let interim = interim.unwrap();
    assert_eq!(
        (interim.interim.as_slice(), interim.text().as_str()),
        (&[100, 103][..], "x")
    );
    for broken in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        "HTTP/3 200 OK\r\n\r\n",
    ] {
        assert!(read(broken, "GET").is_err(), "{broken:?}");
    }
    let refusal = read(
        "HTTP/1.1 401 X\r\nProxy-Status: cloakroom; error=http_request_denied; details=\"no_cookie\"\r\nContent-Length: 0\r\n\r\n",
        "GET",
    );
    assert_eq!(refusal.unwrap().refusal().as_deref(), Some("no_cookie"));
}

#[test]
fn requests_are_built_as_they_are_told() {
    let text = |request: Request| String::from_utf8(request.bytes("h:1")).unwrap();
    assert_eq!(
        text(Request::get("/")),
        "GET / HTTP/1.1\r\nHost: h:1\r\n\r\n"
    );
    assert_eq!(
        text(Request::get("*").header("hOst", "y")),
        "GET * HTTP/1.1\r\nhOst: y\r\n\r\n"
    );
    assert!(text(Request::post("/")).contains("Content-Length: 0\r\n"));
    let form = text(Request::post("/").form(&[("a", "b c"), ("d", "&")]));
    assert!(
        form.ends_with("Content-Length: 11\r\n\r\na=b+c&d=%26"),
        "{form}"
    );
    let mut jar = CookieJar::new();
    jar.set("a", "1");
    jar.set("b", "2");
    assert!(text(Request::get("/").cookies(&jar)).contains("cookie: a=1; b=2\r\n"));
}

#[test]
fn the_jar_does_what_a_browser_does() {
    let backend = Backend::with(|request| {
        let cookies = match request.target.as_str() {
            "/set" => [
                "a=1; Path=/; HttpOnly; Max-Age=60",
                "b=2; Expires=Fri, 01 Jan 2100 00:00:00 GMT",
            ],
            _ => ["a=; Max-Age=0", "b=; Expires=Thu, 01 Jan 1970 00:00:00 GMT"],
        };
        let answer = cookies
            .iter()
            .fold(Answer::new(200), |a, c| a.header("Set-Cookie", c));
        answer.into()
    });
    let mut jar = CookieJar::new();
    let set = Request::get("/set").send(backend.addr());
    jar.store(&set);
    assert_eq!(jar.header().as_deref(), Some("a=1; b=2"));
    let cookie = &set.set_cookies()[0];
    assert_eq!(
        (
            cookie.attribute("path"),
            cookie.has("httponly"),
            cookie.has("secure")
        ),
        (Some("/"), true, false)
    );
    jar.store(&Request::get("/clear").send(backend.addr()));
    assert!(jar.is_empty());
    assert!(SetCookie::parse("a=b; Max-Age=-1").removes());
    assert!(!SetCookie::parse("a=b").removes());
}

#[test]
fn redis_can_be_asked_paused_and_restarted() {
    let mut redis = Redis::start();
    assert_eq!(redis.size(), 0);
    redis.run(&["SET", "sess:b", "x", "EX", "100"]);
    redis.run(&["HSET", "sess:a", "field", "value"]);
    assert_eq!(redis.keys("sess:*"), ["sess:a", "sess:b"]);
    assert!((99..=100).contains(&redis.ttl("sess:b")));
    assert_eq!((redis.ttl("sess:a"), redis.ttl("absent")), (-1, -2));
    assert_eq!(redis.value("sess:b").as_deref(), Some(&b"x"[..]));
    assert_eq!(redis.value("absent"), None);
    assert_eq!(
        redis.hash("sess:a"),
        [("field".to_owned(), b"value".to_vec())]
    );
    assert!(matches!(redis.try_run(&["NONSENSE"]), Ok(Value::Error(_))));
    assert!(redis.socket().exists());

    redis.pause();
    let stream = std::net::TcpStream::connect(redis.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    (&stream).write_all(b"PING\r\n").unwrap();
    assert!(
        (&stream).read(&mut [0; 1]).is_err(),
        "a paused Redis answered"
    );
    redis.resume();
    assert_eq!(redis.run(&["PING"]), Value::Simple("PONG".to_owned()));

    let addr = redis.addr();
    redis.stop();
    assert!(redis.try_run(&["PING"]).is_err());
    redis.restart();
    assert_eq!((redis.addr(), redis.size()), (addr, 0));
}

#[test]
fn redis_takes_options() {
    let redis = Redis::with(&["--requirepass", "open sesame"]);
    assert!(matches!(redis.try_run(&["PING"]), Ok(Value::Error(e)) if e.starts_with("NOAUTH")));
    let mut connection = Connection::open(redis.addr()).unwrap();
    assert_eq!(
        connection.run(&["AUTH", "open sesame"]).unwrap(),
        Value::Simple("OK".to_owned())
    );
    assert_eq!(connection.run(&["DBSIZE"]).unwrap(), Value::Int(0));
}

#[test]
fn no_process_outlives_its_owner() {
    let mut process =
        Process::start(Command::new("sh").args(["-c", "echo out; echo err >&2; exec sleep 600"]));
    let output = std::sync::Arc::clone(process.output());
    let seen = |word: &'static str| {
        output.find(Duration::from_secs(10), move |l| (l == word).then_some(()))
    };
    assert_eq!((seen("out"), seen("err")), (Some(()), Some(())));
    assert_eq!(
        (output.of(Stream::Stdout), output.of(Stream::Stderr)),
        ("out\n".to_owned(), "err\n".to_owned())
    );
    process.signal(Signal::Stop);
    process.signal(Signal::Cont);
    assert!(process.wait(Duration::ZERO).is_none());
    let id = process.id();
    drop(process);
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    // The output has ended, so waiting for more ends too.
    assert_eq!(output.find(Duration::from_secs(10), |_| None::<()>), None);

    let mut ending = Process::start(Command::new("sh").args([
        "-c",
        "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done",
    ]));
    ending
        .output()
        .find(Duration::from_secs(10), |l| (l == "up").then_some(()))
        .unwrap();
    ending.signal(Signal::Term);
    assert_eq!(
        ending.wait(Duration::from_secs(10)).and_then(|s| s.code()),
        Some(7)
    );
}

#[test]
fn configurations_are_laid_over_each_other() {
    let config = Config::to("127.0.0.1:1".parse().unwrap())
        .set("session.idle_timeout", "2s")
        .set("server.limits.header_count", 10)
        .with("[session.cookie]\nname = \"x\"\n[[routes]]\npath = \"/only\"\naccess = \"public\"")
        .unset("identity.headers")
        .store("redis://127.0.0.1:1");
    let table: toml::Table = config.render().parse().unwrap();
    assert_eq!(table["session"]["idle_timeout"].as_str(), Some("2s"));
    assert_eq!(table["session"]["cookie"]["name"].as_str(), Some("x"));
    assert_eq!(
        table["session"]["secrets"][0]["env"].as_str(),
        Some("CLOAKROOM_SECRET")
    );
    assert_eq!(
        table["server"]["limits"]["header_count"].as_integer(),
        Some(10)
    );
    assert_eq!(
        table["upstreams"]["app"]["urls"][0].as_str(),
        Some("http://127.0.0.1:1")
    );
    assert_eq!(table["routes"].as_array().unwrap().len(), 1);
    assert!(table["identity"].get("headers").is_none());
    assert_eq!(table["store"]["url"].as_str(), Some("redis://127.0.0.1:1"));
}

#[test]
fn messages_split_anywhere_are_read() {
    let bytes = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nNEXT";
    struct OneByOne<'a>(&'a [u8]);
    impl Read for OneByOne<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.len().min(1);
            into[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }
    let mut reader = Reader::new(OneByOne(bytes));
    let head = reader.head().unwrap().unwrap();
    assert_eq!(head.request_framing().unwrap(), Framing::Chunked);
    assert_eq!(reader.body(Framing::Chunked).unwrap().content, b"ab");
    assert_eq!(reader.body(Framing::UntilClose).unwrap().content, b"NEXT");
}

#[test]
fn the_proxy_can_be_driven() {
    let backend = Backend::start();
    let mut proxy = Config::to(backend.addr()).start();
    let response = proxy.get_as("/x", &proxy.sign_in(&ALICE));
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(
        backend.only_request().header("x-user-id").as_deref(),
        Some(ALICE.id)
    );
    proxy
        .output()
        .wait_for_json(|line| line.to_string().contains("ready"));

    let addr = proxy.addr();
    proxy.kill();
    assert!(Client::try_connect(addr).is_err());
    proxy.restart();
    assert_eq!(proxy.addr(), addr);
    proxy.sign_in(&ALICE);
    assert_eq!(
        proxy.terminate().code(),
        Some(0),
        "{}",
        proxy.output().text()
    );

    let folder = proxy.folder().to_owned();
    drop(proxy);
    assert!(!folder.exists());
}

#[test]
fn a_proxy_that_does_not_start_says_why() {
    let config = Config::to(nobody()).set("server.bogus", 1);
    let Err(ran) = config.clone().try_start() else {
        panic!("an unknown key was accepted")
    };
    assert_eq!(ran.code, Some(78), "{}", ran.text());
    assert!(ran.text().contains("bogus"), "{}", ran.text());
    assert_ne!(config.check().code, Some(0));
    assert_eq!(Config::to(nobody()).check().succeeded().code, Some(0));
}
