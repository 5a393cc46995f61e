//! Cookies as a browser keeps them, as far as the tests need it.

use std::time::SystemTime;

/// One `Set-Cookie`, in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetCookie {
    pub name: String,
    pub value: String,
    /// Names in lower case; flags have an empty value.
    pub attributes: Vec<(String, String)>,
}

impl SetCookie {
    /// Parses a field value.
    ///
    /// # Panics
    /// If it has no `=` before the first `;`.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let (name, value) = parts
            .next()
            .and_then(|pair| pair.split_once('='))
            .unwrap_or_else(|| panic!("{text:?}"));
        let attributes = parts.map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Self {
            name: name.to_owned(),
            value: value.to_owned(),
            attributes: attributes.collect(),
        }
    }

    /// The value of an attribute; `Some("")` for a flag.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let found = self
            .attributes
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    /// Whether it removes the cookie (RFC 6265 section 5.3: `Max-Age` wins over
    /// `Expires`).
    pub fn removes(&self) -> bool {
        if let Some(age) = self.attribute("max-age") {
            return age.parse::<i64>().is_ok_and(|age| age <= 0);
        }
        let expires = self
            .attribute("expires")
            .and_then(|date| httpdate::parse_http_date(date).ok());
        expires.is_some_and(|date| date <= SystemTime::now())
    }
}

/// The cookies of one visitor at one site. Paths and domains are not told
/// apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieJar(Vec<(String, String)>);

impl CookieJar {
    pub fn new() -> Self {
        Self::default()
    }

    /// Does what a response's `Set-Cookie` fields say.
    pub fn store(&mut self, response: &super::http::Response) {
        for cookie in response.set_cookies() {
            self.remove(&cookie.name);
            if !cookie.removes() {
                self.0.push((cookie.name, cookie.value));
            }
        }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the `Cookie` field; `None` without cookies.
    pub fn header(&self) -> Option<String> {
        let pairs: Vec<_> = self.0.iter().map(|(n, v)| format!("{n}={v}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}
