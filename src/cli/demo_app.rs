//! The application behind `cloakroom demo`. It has no users, no sessions and no
//! login of its own: it believes the identity headers.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use minijinja::{Environment, context};

const PAGE: &str = include_str!("demo_app.html");

/// Starts the application in a thread of its own, on a free port of loopback.
/// It ends with the process.
///
/// # Errors
///
/// If the system gives no port or no thread.
pub fn start() -> Result<SocketAddr, String> {
    let explain = |error: std::io::Error| format!("the demo application: {error}");
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(explain)?;
    socket.set_nonblocking(true).map_err(explain)?;
    let address = socket.local_addr().map_err(explain)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(explain)?;
    std::thread::Builder::new()
        .name("demo-application".to_owned())
        .spawn(move || runtime.block_on(serve(socket)))
        .map_err(explain)?;
    Ok(address)
}

async fn serve(socket: std::net::TcpListener) {
    let Ok(socket) = tokio::net::TcpListener::from_std(socket) else {
        return;
    };
    while let Ok((stream, _)) = socket.accept().await {
        tokio::spawn(async move {
            let service =
                service_fn(|request| async move { Ok::<_, Infallible>(answer(&request)) });
            // The proxy closes connections as it likes.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let headers = request.headers();
    let user = header(headers, "x-user-id");
    match request.uri().path() {
        "/" => page(
            "Home",
            &format!("The application was told that you are {user}."),
            headers,
        ),
        "/public" => page(
            "Public page",
            "Everybody may see this page, and nobody is looked up for it.",
            headers,
        ),
        "/admin" => page(
            "Admin page",
            "Only those with the role admin get here.",
            headers,
        ),
        "/headers" => raw_headers(request),
        _ => {
            let mut response = page("Not found", "The demo has no such page.", headers);
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

fn page(heading: &str, text: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let values = context! {
        heading,
        text,
        user => header(headers, "x-user-id"),
        email => header(headers, "x-user-email"),
        roles => header(headers, "x-user-roles"),
        signed_in => headers.contains_key("x-user-id"),
    };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::Html);
    match environment.render_str(PAGE, values) {
        Ok(html) => respond("text/html; charset=utf-8", html),
        Err(error) => respond("text/plain; charset=utf-8", error.to_string()),
    }
}

/// The request as it arrived, one field a line.
fn raw_headers(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text.push_str(&format!(
            "{name}: {}\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    respond("text/plain; charset=utf-8", text)
}

fn respond(kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_else(|| "nobody".to_owned())
}
