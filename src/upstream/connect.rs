//! Making a connection to an upstream, and what can go wrong with it.

use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::settings::UpstreamSettings;
use crate::base::refusal::{Failure, Refusal};
use crate::wire::body::Body;

/// The largest head of an application's response, in bytes.
const RESPONSE_HEAD_BYTES: usize = 256 * 1024;

/// The most fields in the head of an application's response.
const RESPONSE_FIELDS: usize = 256;

/// Opens a connection and starts driving it.
///
/// The name is resolved anew for each connection, and all its addresses are
/// tried in turn within `connect_timeout`.
///
/// # Errors
///
/// [`Refusal::UpstreamConnectFailed`] or [`Refusal::UpstreamTimeout`], with the
/// address and the reason.
pub async fn connect(settings: &UpstreamSettings) -> Result<SendRequest<Body>, Failure> {
    let address = &settings.address;
    let limit = settings.connect_timeout;
    let dial = TcpStream::connect((address.host.as_str(), address.port));
    let stream = match timeout(limit, dial).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return Err(Failure::new(
                Refusal::UpstreamConnectFailed,
                format_args!(
                    "upstream {:?} at {}: {error}",
                    settings.name,
                    address.authority()
                ),
            ));
        }
        Err(_) => return Err(late(settings, "accepted no connection", limit)),
    };
    // Small requests must not wait for an acknowledgement. Failing to say so
    // costs time, not correctness.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(RESPONSE_HEAD_BYTES)
        .max_headers(RESPONSE_FIELDS)
        .preserve_header_case(false)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::new(Refusal::UpstreamConnectFailed, error))?;
    tokio::spawn(async move {
        // Whoever waits for a response learns of an error there; an idle
        // connection that ends is nothing to report.
        let _ = connection.await;
    });
    Ok(sender)
}

/// The failure of an upstream that took longer than it may.
pub fn late(settings: &UpstreamSettings, what: &str, limit: Duration) -> Failure {
    Failure::new(
        Refusal::UpstreamTimeout,
        format_args!(
            "upstream {:?} at {} {what} within {limit:?}",
            settings.name,
            settings.address.authority()
        ),
    )
}
