//! What is said and noted of heads that the parser refuses: they never become
//! a request, and have a reason and an access line all the same.

use std::sync::Arc;

use bytes::Bytes;
use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderMap, Response};

use super::record::Record;
use super::request_id;
use super::respond::{self, Form};
use super::state::Worker;
use crate::base::refusal::Refusal;
use crate::upstream::request::REQUEST_ID;
use crate::wire::body::Body;
use crate::wire::client::ConnInfo;

/// The answer to a head that could not be parsed, which is counted and noted in
/// the access log with it. Nothing is known of the client but its connection.
pub fn unparsed(worker: &Arc<Worker>, conn: &ConnInfo, refusal: Refusal) -> Response<Bytes> {
    let state = worker.state.load_full();
    let id = request_id::of(conn, &state, &HeaderMap::new());
    let mut response = respond::refusal(&state, refusal, Form::Json, &id);
    let mut record = Record::unparsed(worker, &state, id.clone());
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if let Some(hsts) = state.hsts.as_ref().filter(|_| conn.tls) {
        headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    let response = response.map(|body| match body {
        Body::Full(bytes) => bytes,
        Body::Empty | Body::Incoming(_) => Bytes::new(),
    });
    // A trusted proxy's request is somebody else's, and it is not known whose.
    if !state.trust.trusts_peer(conn)
        && let Some(limiter) = &worker.limiter
    {
        let _ = limiter.count(conn.peer.ip());
    }
    record.client = Some(conn.peer.ip());
    record.answered(&response, Some(refusal));
    response
}
