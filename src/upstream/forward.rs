//! A permitted request goes out, and the head of its answer comes back.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::connect::{connect, late};
use super::pool::{Lease, Pool};
use super::request::Outbound;
use super::settings::UpstreamSettings;
use crate::base::refusal::{Failure, Refusal};
use crate::wire::body::{Body, BodyWatch};
use crate::wire::hop::{check_response_framing, remove_hop_by_hop, write_length_anew};

/// A worker's connections to all upstreams.
pub struct Upstreams(Vec<Upstream>);

struct Upstream {
    settings: UpstreamSettings,
    pool: Pool,
}

/// The application's answer, as far as it has come.
pub struct Answer {
    /// Its head, without hop-by-hop fields, and its body, still streaming.
    pub response: Response<Incoming>,
    /// Its connection. To be given back at the end of the body.
    pub lease: Lease,
    /// From sending the request to the head of the answer.
    pub took: Duration,
}

impl Upstreams {
    /// Empty pools for each upstream.
    pub fn new(settings: &[UpstreamSettings]) -> Self {
        Self(
            settings
                .iter()
                .map(|settings| Upstream {
                    pool: Pool::new(settings.pool_idle, settings.pool_idle_timeout),
                    settings: settings.clone(),
                })
                .collect(),
        )
    }

    /// Sends a request that policy let pass.
    ///
    /// A request that a connection took nothing of is sent again, on a fresh
    /// connection, up to `retries` times. Nothing else is: the application may
    /// have acted on it.
    ///
    /// `sent` watches the request's body, if it has one: the time to answer does
    /// not run out while it is still being sent.
    ///
    /// # Errors
    ///
    /// [`Refusal::UpstreamConnectFailed`], [`Refusal::UpstreamTimeout`],
    /// [`Refusal::UpstreamProtocolError`], and what rewriting the head refuses.
    pub async fn forward(
        &self,
        outbound: &Outbound<'_>,
        request: Request<Body>,
        sent: Option<&BodyWatch>,
    ) -> Result<Answer, Failure> {
        let upstream = self
            .0
            .get(outbound.permit.upstream())
            .ok_or_else(|| Failure::new(Refusal::InternalError, "no such upstream"))?;
        let request = outbound.rewrite(request, &upstream.settings)?;
        upstream.send(request, sent).await
    }
}

impl Upstream {
    async fn send(
        &self,
        mut request: Request<Body>,
        sent: Option<&BodyWatch>,
    ) -> Result<Answer, Failure> {
        let mut retries = self.settings.retries;
        loop {
            let pooled = self.pool.take();
            let mut lease = match pooled {
                Some(lease) => lease,
                None => self.pool.lend(connect(&self.settings).await?),
            };
            let start = Instant::now();
            let Some(sender) = lease.sender() else {
                return Err(Failure::new(
                    Refusal::InternalError,
                    "a lease without connection",
                ));
            };
            let mut answered = pin!(sender.try_send_request(request));
            match self.wait(answered.as_mut(), sent).await? {
                Ok(response) => return self.accept(response, lease, start.elapsed()),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if retries > 0 => {
                        retries -= 1;
                        request = unsent;
                    }
                    _ => return Err(self.broken(&error.into_error())),
                },
            }
        }
    }

    /// Waits for `answered`, `response_timeout` long from the moment when the
    /// request's body has been sent, more or less.
    async fn wait<F: Future>(
        &self,
        mut answered: Pin<&mut F>,
        sent: Option<&BodyWatch>,
    ) -> Result<F::Output, Failure> {
        let limit = self.settings.response_timeout;
        loop {
            let sending = || sent.is_some_and(|body| !body.is_complete());
            let was_sending = sending();
            match timeout(limit, answered.as_mut()).await {
                Ok(output) => return Ok(output),
                // A body that stops coming has a timeout of its own.
                Err(_) if was_sending || sending() => {}
                Err(_) => return Err(late(&self.settings, "gave no response", limit)),
            }
        }
    }

    fn accept(
        &self,
        mut response: Response<Incoming>,
        lease: Lease,
        took: Duration,
    ) -> Result<Answer, Failure> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.invalid("switched protocols without being asked to"));
        }
        check_response_framing(response.headers(), response.version())
            .map_err(|_| self.invalid("framed its response ambiguously"))?;
        remove_hop_by_hop(response.headers_mut());
        write_length_anew(response.headers_mut());
        Ok(Answer {
            response,
            lease,
            took,
        })
    }

    fn broken(&self, error: &hyper::Error) -> Failure {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        self.invalid(&text)
    }

    fn invalid(&self, what: &str) -> Failure {
        Failure::new(
            Refusal::UpstreamProtocolError,
            format_args!(
                "upstream {:?} at {}: {what}",
                self.settings.name,
                self.settings.address.authority()
            ),
        )
    }
}
