//! The `cookie` object of a record (express-session's `session/cookie.js`), and the
//! `Set-Cookie` that Express makes of it (`cookie` 0.7, `serialize`).

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use super::record::Damaged;
use crate::base::clock::{Timestamp, millis};
use crate::session::members::member;
use crate::wire::cookie::{CookieSpec, SameSite};

/// How long connect-redis and connect-pg-simple keep a record whose cookie has no age.
const DEFAULT_SPAN: Duration = Duration::from_secs(86_400);

/// Browsers keep no cookie for longer (RFC 6265bis section 5.5).
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

/// The last moment that has four digits for its year.
const LAST: u64 = 253_402_300_799_999;

/// The `cookie` of a record: how long the session lasts, and the attributes with which
/// the browser holds its token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredCookie {
    max_age: Option<Duration>,
    domain: Option<String>,
    path: Option<String>,
    http_only: bool,
    secure: bool,
    partitioned: bool,
    /// In lower case.
    priority: Option<String>,
    same_site: Option<SameSite>,
    /// Express cannot make a `Set-Cookie` of it, so it never sends one.
    unsendable: bool,
}

impl StoredCookie {
    /// The cookie of a new record, as Cloakroom's own `Set-Cookie` is.
    pub fn new(spec: &CookieSpec, idle_timeout: Duration, secure: bool) -> Self {
        Self {
            max_age: Some(idle_timeout),
            domain: spec.domain.clone(),
            path: Some(spec.path.clone()),
            http_only: true,
            secure: spec.is_secure(secure),
            partitioned: spec.partitioned,
            priority: None,
            same_site: Some(spec.same_site),
            unsendable: false,
        }
    }

    /// Reads the `cookie` of a record, as `createSession` and `touch` do.
    ///
    /// # Errors
    ///
    /// [`Damaged`] where one of these throws.
    pub fn read(text: &str) -> Result<Self, Damaged> {
        match text.as_bytes().first() {
            Some(b'{' | b'[') => {}
            _ if text == "null" => return Err(Damaged("its cookie is null")),
            // `new Cookie(0)` is one without options.
            _ if is_truthy(text) => return Err(Damaged("its cookie is no object")),
            _ => {}
        }
        let at = |name: &str| member(text, name);
        let max_age = match at("originalMaxAge") {
            Some(age) if is_number(age) => Some(span(age)),
            Some(age) if is_truthy(age) => return Err(Damaged("its originalMaxAge is no number")),
            _ => None,
        };
        if at("maxAge").is_some_and(|age| is_truthy(age) && !is_number(age)) {
            return Err(Damaged("its maxAge is no number"));
        }
        let given = |name: &str| at(name).filter(|value| is_truthy(value));
        let mut unsendable = false;
        let mut text_of = |name: &str| {
            let value = given(name)?;
            let text: Option<String> = serde_json::from_str(value).ok();
            unsendable |= text.is_none();
            text
        };
        let (domain, priority) = (text_of("domain"), text_of("priority"));
        let path = match at("path") {
            Some(_) => text_of("path"),
            None => Some("/".to_owned()),
        };
        let same_site = match given("sameSite") {
            None => None,
            Some("true") => Some(SameSite::Strict),
            Some(value) => {
                let word: Option<String> = serde_json::from_str(value).ok();
                match word.map(|word| word.to_lowercase()).as_deref() {
                    Some("lax") => Some(SameSite::Lax),
                    Some("strict") => Some(SameSite::Strict),
                    Some("none") => Some(SameSite::None),
                    _ => {
                        unsendable = true;
                        None
                    }
                }
            }
        };
        let priority = priority.map(|word| word.to_lowercase());
        let known = |word: &String| matches!(word.as_str(), "low" | "medium" | "high");
        unsendable |= priority.as_ref().is_some_and(|word| !known(word));
        Ok(Self {
            max_age,
            domain,
            path,
            http_only: at("httpOnly").is_none_or(is_truthy),
            secure: given("secure").is_some(),
            partitioned: given("partitioned").is_some(),
            priority,
            same_site,
            unsendable,
        })
    }

    /// The age that each use gives the cookie anew. `None`: it ends with the browser.
    /// Zero: the session is over with its next use.
    pub fn max_age(&self) -> Option<Duration> {
        self.max_age
    }

    /// How long each use makes the session last.
    pub fn span(&self) -> Duration {
        self.max_age.unwrap_or(DEFAULT_SPAN)
    }

    /// As express-session writes it: in its order, without what is not set.
    pub fn to_json(&self, now: Timestamp) -> String {
        let mut json = String::with_capacity(160);
        // Writing to a string cannot fail.
        let _ = match self.max_age {
            Some(age) => write!(json, r#"{{"originalMaxAge":{}"#, millis(age)),
            None => write!(json, r#"{{"originalMaxAge":null"#),
        };
        if self.partitioned {
            json.push_str(r#","partitioned":true"#);
        }
        if let Some(priority) = &self.priority {
            let _ = write!(json, r#","priority":{}"#, quoted(priority));
        }
        let _ = match self.max_age {
            Some(age) => write!(json, r#","expires":"{}""#, iso(now.after(age))),
            None => write!(json, r#","expires":null"#),
        };
        if self.secure {
            json.push_str(r#","secure":true"#);
        }
        let _ = write!(json, r#","httpOnly":{}"#, self.http_only);
        if let Some(domain) = &self.domain {
            let _ = write!(json, r#","domain":{}"#, quoted(domain));
        }
        if let Some(path) = &self.path {
            let _ = write!(json, r#","path":{}"#, quoted(path));
        }
        if let Some(same_site) = self.same_site {
            let word = match same_site {
                SameSite::Strict => "strict",
                SameSite::Lax => "lax",
                SameSite::None => "none",
            };
            let _ = write!(json, r#","sameSite":"{word}""#);
        }
        json.push('}');
        json
    }

    /// The `Set-Cookie` with which Express would prolong the browser's cookie at `now`.
    /// `value` is signed and percent-encoded; `secure` says whether the browser's
    /// connection is, `lasting` whether it may outlive the browser. `None` where Express
    /// sends nothing: a `secure` cookie over a plain connection, or attributes that no
    /// header can hold.
    pub fn set(
        &self,
        name: &str,
        value: &str,
        now: Timestamp,
        secure: bool,
        lasting: bool,
    ) -> Option<HeaderValue> {
        if self.unsendable || (self.secure && !secure) {
            return None;
        }
        let mut line = format!("{name}={value}");
        let mut attribute = |name: &str, value: Option<&str>| {
            line.push_str("; ");
            line.push_str(name);
            if let Some(value) = value {
                line.push('=');
                line.push_str(value);
            }
        };
        for (name, value) in [("Domain", &self.domain), ("Path", &self.path)] {
            match value {
                Some(value) if is_attribute(value) => attribute(name, Some(value)),
                Some(_) => return None,
                None => {}
            }
        }
        if let Some(age) = self.max_age.filter(|_| lasting) {
            let end = now.after(age.min(LONGEST)).min(Timestamp(LAST));
            attribute("Expires", Some(&httpdate::fmt_http_date(end.system())));
        }
        for (name, given) in [
            ("HttpOnly", self.http_only),
            ("Secure", self.secure),
            ("Partitioned", self.partitioned),
        ] {
            if given {
                attribute(name, None);
            }
        }
        match self.priority.as_deref() {
            Some("low") => attribute("Priority", Some("Low")),
            Some("medium") => attribute("Priority", Some("Medium")),
            Some(_) => attribute("Priority", Some("High")),
            None => {}
        }
        match self.same_site {
            Some(SameSite::Strict) => attribute("SameSite", Some("Strict")),
            Some(SameSite::Lax) => attribute("SameSite", Some("Lax")),
            Some(SameSite::None) => attribute("SameSite", Some("None")),
            None => {}
        }
        HeaderValue::from_maybe_shared(Bytes::from(line)).ok()
    }
}

/// What JavaScript takes for true, of the text of a JSON value.
pub(super) fn is_truthy(text: &str) -> bool {
    match text {
        "null" | "false" | "\"\"" => false,
        text if is_number(text) => !text.parse().is_ok_and(|number: f64| number == 0.0),
        _ => true,
    }
}

fn is_number(text: &str) -> bool {
    matches!(text.as_bytes().first(), Some(b'-' | b'0'..=b'9'))
}

/// A number of milliseconds. What is not above zero ends the session; what is beyond
/// all reckoning never does.
fn span(text: &str) -> Duration {
    let age: f64 = text.parse().unwrap_or_default();
    Duration::try_from_secs_f64((age / 1000.0).max(0.0)).unwrap_or(Duration::MAX)
}

/// Neither the end of an attribute nor of the line (RFC 6265 section 4.1.1).
fn is_attribute(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && byte != b';')
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// As `Date.prototype.toISOString` writes it, to the year 9999.
fn iso(at: Timestamp) -> String {
    let at = i64::try_from(at.0.min(LAST)).unwrap_or_default();
    jiff::Timestamp::from_millisecond(at).map_or_else(|_| String::new(), |at| format!("{at:.3}"))
}
