//! Active health checks: one task for each address, in one runtime of the
//! process, whatever the number of workers.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request};
use tokio::time::timeout;

use super::pool::{Address, Want};
use super::settings::{HealthCheck, HostHeader, UpstreamSettings};
use super::standing::{Fleet, Group};
use crate::base::refusal::Failure;
use crate::wire::body::Body;

/// Failed checks in a row that make an address unhealthy. One that succeeds
/// makes it healthy again.
const FAILURES: u32 = 2;

/// The longest that one check may take, whatever the interval.
const LONGEST: Duration = Duration::from_secs(5);

/// Starts the checks that the settings ask for. They run until the runtime
/// ends, in which this must be called.
pub fn start(upstreams: &[UpstreamSettings], fleet: &Fleet) {
    for (settings, group) in upstreams.iter().zip(fleet.groups()) {
        let Some(check) = &settings.health else {
            continue;
        };
        let settings = Arc::new(settings.clone());
        for (number, address) in settings.addresses.iter().enumerate() {
            let address = Address::new(number, settings.clone(), address.clone(), group.clone());
            tokio::spawn(watch(Arc::new(address), check.clone(), group.clone()));
        }
    }
}

async fn watch(address: Arc<Address>, check: HealthCheck, group: Arc<Group>) {
    let patience = check.interval.min(LONGEST);
    let mut failures = 0_u32;
    loop {
        let healthy = matches!(
            timeout(patience, ask(&address, &check.path)).await,
            Ok(Ok(true))
        );
        failures = match healthy {
            true => 0,
            false => failures.saturating_add(1),
        };
        if healthy || failures >= FAILURES {
            group.checked(address.number, healthy);
        }
        tokio::time::sleep(check.interval).await;
    }
}

/// Whether the address answers with 2xx or 3xx. Each check has a connection of
/// its own, so that it also finds out whether one can be made.
async fn ask(address: &Arc<Address>, path: &str) -> Result<bool, Failure> {
    let own_host = !matches!(address.settings.host, HostHeader::Literal(_));
    let mut lease = address.lease(Want::Alone).await?;
    let mut request = Request::new(Body::Empty);
    if let Ok(uri) = path.parse() {
        *request.uri_mut() = uri;
    }
    let headers = request.headers_mut();
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!(
            "cloakroom/",
            env!("CARGO_PKG_VERSION"),
            " (health)"
        )),
    );
    if let HostHeader::Literal(host) = &address.settings.host
        && let Ok(host) = HeaderValue::from_str(host)
    {
        headers.insert(HOST, host);
    }
    address
        .dress
        .put_on(&mut request, lease.is_http2(), own_host, None)?;
    let answered = lease.ask(request).await;
    Ok(answered
        .is_ok_and(|response| response.status().is_success() || response.status().is_redirection()))
}
