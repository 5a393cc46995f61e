//! How requests are written.

use super::*;
use crate::base::gather::SMALL;

/// What a pipe holds back, as TLS does where the socket is full, leaves all the same.
#[test]
fn a_request_leaves_whole() {
    runtime().block_on(async {
        let (ours, mut theirs) = duplex(16);
        let held = tokio::io::BufStream::new(ours);
        let mut place = Some(Box::new(Connection::new(held, None)));
        begin(&mut place, &mut request("GET"));
        let application = async {
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n") {
                heard.push(theirs.read_u8().await.unwrap());
            }
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            theirs.write_all(answer).await.unwrap();
        };
        let answered = Connection::answer(&mut place);
        let talk = async { tokio::join!(answered, application).0 };
        let answer = tokio::time::timeout(Duration::from_secs(10), talk).await;
        assert_eq!(answer.unwrap().unwrap().status(), StatusCode::NO_CONTENT);
    });
}

/// What the application reads of a request.
fn sent(request: Request<Body>) -> Result<String, String> {
    runtime().block_on(async {
        let (mut place, mut theirs) = connection(16);
        let mut request = request;
        begin(&mut place, &mut request);
        let application = async {
            let mut heard = Vec::new();
            let _ = theirs.read_to_end(&mut heard).await;
            String::from_utf8(heard).unwrap()
        };
        let sending = async {
            let done = poll_fn(|context| {
                let connection = place.as_mut().unwrap();
                connection.poll_send(context)
            })
            .await;
            place = None;
            done.map_err(|error| error.to_string())
        };
        let (done, heard) = tokio::join!(sending, application);
        done.map(|()| heard)
    })
}

#[test]
fn a_request_is_written_as_it_is() {
    let head = "GET /a?b HTTP/1.1\r\nhost: a.example\r\nx-a: 1\r\n\r\n";
    assert_eq!(sent(request("GET")).unwrap(), head);
    let mut empty = request("POST");
    empty
        .headers_mut()
        .insert("content-length", "0".parse().unwrap());
    let heard = sent(empty).unwrap();
    assert!(heard.ends_with("content-length: 0\r\n\r\n"), "{heard}");
    let full = request("POST").map(|_| Body::from(Bytes::from("abc")));
    let heard = sent(full).unwrap();
    assert!(
        heard.ends_with("\r\ncontent-length: 3\r\n\r\nabc"),
        "{heard}"
    );
    for length in [SMALL - 1, SMALL, 3 * SMALL] {
        let content = "x".repeat(length);
        let full = request("POST").map(|_| Body::from(Bytes::from(content.clone())));
        let end = format!("\r\ncontent-length: {length}\r\n\r\n{content}");
        assert!(sent(full).unwrap().ends_with(&end), "{length}");
    }
    let mut declared = request("PUT").map(|_| Body::from(Bytes::from("abc")));
    declared
        .headers_mut()
        .insert("content-length", "2".parse().unwrap());
    assert_eq!(sent(declared).unwrap_err(), Error::OtherLength.to_string());
}
