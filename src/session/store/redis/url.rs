//! `store.url` for Redis.
//!
//! The messages name what is wrong and quote nothing: where a password has
//! characters that belong to the URL, any part may be a piece of it.

use redis::{ConnectionInfo, IntoConnectionInfo};

use crate::base::secret::Secret;

const ENCODE: &str =
    "characters such as / ? # @ : % in the user name or password must be percent-encoded";

/// Understands a URL.
pub(super) fn parse(url: &Secret) -> Result<ConnectionInfo, String> {
    let text = std::str::from_utf8(url.expose()).map_err(|_| "it is not UTF-8 text")?;
    let known: &[&str] = match text.split_once("://").map(|(scheme, _)| scheme) {
        Some("redis") => &["protocol"],
        Some("redis+unix") => &["db", "user", "pass", "protocol"],
        Some("rediss") => return Err("TLS to Redis (rediss://) is not supported".into()),
        _ => return Err("it begins neither with redis:// nor with redis+unix://".into()),
    };
    if text.contains('#') {
        return Err(format!(
            "it has a # part, which means nothing here; {ENCODE}"
        ));
    }
    if let Some((_, query)) = text.split_once('?') {
        for (name, _) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&&*name) {
                return Err(format!(
                    "after the ? only these names are known: {}; {ENCODE}",
                    known.join(", ")
                ));
            }
        }
    }
    let info = text.into_connection_info().map_err(|e| {
        // Its detail is dropped: only the fixed part is known to be harmless.
        format!("{}; {ENCODE}", category(&e.to_string()))
    })?;
    if info.redis_settings().db() < 0 {
        return Err("the database number is negative".into());
    }
    // Commands are small and wait for their answers: Nagle's algorithm would
    // only delay them.
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    Ok(info.set_tcp_settings(tcp))
}

fn category(message: &str) -> &str {
    message.split(" - ").next().unwrap_or(message)
}
