//! Cross-origin resource sharing (the Fetch standard): which pages of other
//! origins may read our answers, and the preflights that ask.
//!
//! Where origins are configured, the policy is the proxy's own: it stands on
//! refusals as well, so that a page learns that it got a 401 instead of a
//! network error.

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use crate::wire::client::Origin;

/// What answers of other origins' requests say.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Exactly these origins, unless `any`.
    pub origins: Vec<Origin>,
    /// Every origin, without credentials.
    pub any: bool,
    /// Whether the cookie may be sent.
    pub credentials: bool,
    /// The methods that may be used, as one field value.
    pub methods: HeaderValue,
    /// The request fields that may be sent, as one field value.
    pub headers: HeaderValue,
    /// The response fields that may be read, as one field value; empty: none
    /// but those that always may.
    pub expose: HeaderValue,
    /// How long a browser may remember the answer to a preflight.
    pub max_age: Duration,
    /// Whether preflights go to the application, which does its own CORS: then
    /// its answers are left alone too.
    pub forward: bool,
}

/// What answers to one request may say: the value of
/// `Access-Control-Allow-Origin`, if its origin is listed.
#[derive(Clone, Debug)]
pub struct Grant(Option<HeaderValue>);

/// The fields that an application may have set and that are ours to set.
const OURS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

impl Cors {
    /// Whether any origin is configured at all.
    pub fn is_on(&self) -> bool {
        self.any || !self.origins.is_empty()
    }

    /// Whether a request is a preflight that is answered here. Browsers send no
    /// cookie with it, so no session is ever looked up for one.
    pub fn answers(&self, method: &Method, headers: &HeaderMap) -> bool {
        self.is_on()
            && !self.forward
            && *method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// What answers to a request may say; to be asked while its head is there.
    /// `None` where no origin is configured.
    pub fn grant(&self, request: &HeaderMap) -> Option<Grant> {
        self.is_on().then(|| Grant(self.allowed(request)))
    }

    /// Removes what the application said: two policies in one answer are none.
    pub fn strip(&self, response: &mut HeaderMap) {
        for name in &OURS {
            response.remove(name);
        }
    }

    /// Writes the fields of an answer. Nothing but `Vary` for an origin that is
    /// not listed.
    pub fn write(&self, grant: &Grant, response: &mut HeaderMap) {
        // An answer depends on the origin even where it has none of the fields.
        response.append(VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = &grant.0 else {
            return;
        };
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if !self.expose.is_empty() {
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone());
        }
    }

    /// The further fields of the answer to a preflight.
    pub fn write_preflight(&self, grant: &Grant, response: &mut HeaderMap) {
        if grant.0.is_none() {
            return;
        }
        response.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        if !self.headers.is_empty() {
            response.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
        }
        response.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.as_secs().into());
    }

    /// What `Access-Control-Allow-Origin` says, if the request's origin is
    /// listed. `null` never is, and several never are.
    fn allowed(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let mut lines = request.get_all(ORIGIN).iter();
        let origin = lines.next()?;
        if lines.next().is_some() {
            return None;
        }
        let text = origin.to_str().ok()?;
        if self.origins.iter().any(|listed| listed.is(text)) {
            return Some(origin.clone());
        }
        self.any.then(|| HeaderValue::from_static("*"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        Cors {
            origins: origins.iter().filter_map(|o| Origin::parse(o)).collect(),
            any: origins.contains(&"*"),
            credentials: !origins.contains(&"*"),
            methods: HeaderValue::from_static("GET, POST"),
            headers: HeaderValue::from_static("content-type"),
            expose: HeaderValue::from_static("x-total"),
            max_age: Duration::from_secs(600),
            forward: false,
        }
    }

    fn from(origin: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        headers
    }

    fn answer(cors: &Cors, request: &HeaderMap) -> HeaderMap {
        let mut response = HeaderMap::new();
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        if let Some(grant) = cors.grant(request) {
            cors.strip(&mut response);
            cors.write(&grant, &mut response);
            cors.write_preflight(&grant, &mut response);
        }
        response
    }

    /// S-65: an exact list, never `*` or `null` with credentials, `Vary` always.
    #[test]
    fn only_listed_origins_get_any_field() {
        let cors = cors(&["https://app.example.com", "http://localhost:5173"]);
        for listed in ["https://app.example.com", "http://localhost:5173"] {
            let response = answer(&cors, &from(listed));
            assert_eq!(response[ACCESS_CONTROL_ALLOW_ORIGIN], listed);
            assert_eq!(response[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
            assert_eq!(response[ACCESS_CONTROL_MAX_AGE], "600");
            assert_eq!(response[ACCESS_CONTROL_EXPOSE_HEADERS], "x-total");
            assert_eq!(response[VARY], "Origin");
        }
        for other in [
            "https://evil.example.com",
            "https://app.example.com.evil.com",
            "http://app.example.com",
            "https://app.example.com:8443",
            "null",
            "*",
        ] {
            let response = answer(&cors, &from(other));
            assert_eq!(response.len(), 1, "{other}: {response:?}");
            assert_eq!(response[VARY], "Origin");
        }
        let mut twice = from("https://app.example.com");
        twice.append(ORIGIN, HeaderValue::from_static("https://evil.example.com"));
        assert_eq!(answer(&cors, &twice).len(), 1);
        assert_eq!(answer(&cors, &HeaderMap::new()).len(), 1);
    }

    #[test]
    fn any_origin_comes_without_credentials() {
        let response = answer(&cors(&["*"]), &from("https://anybody.example"));
        assert_eq!(response[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!response.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    #[test]
    fn without_origins_the_application_does_as_it_likes() {
        let response = answer(&cors(&[]), &from("https://app.example.com"));
        assert_eq!(response[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert!(!response.contains_key(VARY));
    }

    #[test]
    fn only_real_preflights_are_answered() {
        let cors = cors(&["https://app.example.com"]);
        let mut headers = from("https://app.example.com");
        assert!(!cors.answers(&Method::OPTIONS, &headers));
        headers.insert(
            ACCESS_CONTROL_REQUEST_METHOD,
            HeaderValue::from_static("PUT"),
        );
        assert!(cors.answers(&Method::OPTIONS, &headers));
        assert!(!cors.answers(&Method::GET, &headers));
        let forward = Cors {
            forward: true,
            ..cors
        };
        assert!(!forward.answers(&Method::OPTIONS, &headers));
    }
}
