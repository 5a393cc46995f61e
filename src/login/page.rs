//! Cloakroom's own pages: signing in, refusals shown to people, and the page
//! for a cookie that does not stick.
//!
//! They are whole documents without any script, font or image from elsewhere,
//! so they work while everything behind Cloakroom is down. All values are
//! escaped by the template engine. The one stylesheet is inside the page, and
//! the policy of [`Pages::csp`] allows exactly it, by its hash (CSP Level 3
//! section 2.3.1).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

const STYLE: &str = include_str!("templates/style.css");
const MARK: &str = include_str!("templates/mark.html");
const LOGIN: &str = concat!(
    include_str!("templates/head.html"),
    include_str!("templates/login.html")
);
const MESSAGE: &str = concat!(
    include_str!("templates/head.html"),
    include_str!("templates/message.html")
);
const DEVICES: &str = concat!(
    include_str!("templates/head.html"),
    include_str!("templates/devices.html")
);
const MISMATCH: &str = concat!(
    include_str!("templates/head.html"),
    include_str!("templates/mismatch.html")
);

/// The pages, compiled once, with their Content-Security-Policy.
pub struct Pages {
    templates: Environment<'static>,
    title: String,
    csp: HeaderValue,
}

/// What the login page shows. Nothing of it is trusted to be harmless.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LoginPage<'a> {
    /// Where to afterwards; goes with the form as `rd`.
    pub rd: &'a str,
    /// The name to begin with, such as that of the last attempt.
    pub username: &'a str,
    /// Why the last attempt failed, as a sentence.
    pub error: Option<&'a str>,
    /// How often the browser has come back without the cookie; goes with the
    /// form as `round`.
    pub round: u32,
    /// Where the form is posted, as a path.
    pub action: &'a str,
}

/// What a page about a refusal shows.
#[derive(Clone, Copy, Debug)]
pub struct MessagePage<'a> {
    /// What happened, in a few words.
    pub heading: &'a str,
    /// The same in a sentence or two, with what to do.
    pub text: &'a str,
    /// The reason code.
    pub reason: &'a str,
    /// The request's id, by which the log has the details; may be empty.
    pub request_id: &'a str,
    /// Label and target of a link to go on with.
    pub link: Option<(&'a str, &'a str)>,
}

/// What the page about a cookie that does not stick shows.
#[derive(Clone, Copy, Debug)]
pub struct MismatchPage<'a> {
    /// Label and finding each, such as `("Scheme", "this request came over
    /// http")`.
    pub findings: &'a [(String, String)],
    /// The reason code.
    pub reason: &'a str,
    /// The request's id; may be empty.
    pub request_id: &'a str,
    /// Label and target of a link to try again.
    pub link: Option<(&'a str, &'a str)>,
}

/// What the page about a user's sessions shows. Nothing of it is trusted to be
/// harmless.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DevicesPage<'a> {
    /// Whose they are, as people know it.
    pub user: &'a str,
    /// The sessions.
    pub devices: &'a [DeviceEntry],
    /// What the paths of our own endpoints begin with.
    pub prefix: &'a str,
}

/// One session on that page.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceEntry {
    /// Its handle, for the form that ends it.
    pub handle: String,
    /// Browser and system, in a few words.
    pub name: String,
    /// What the client called itself; may be empty.
    pub user_agent: String,
    /// The client's address at login.
    pub address: String,
    /// When the login was: in words, and for machines.
    pub created: (String, String),
    /// When it was last used: in words, and for machines.
    pub seen: (String, String),
    /// Whether it is the one that asks.
    pub current: bool,
}

/// A page could not be made, which is a defect of its template.
#[derive(Debug, thiserror::Error)]
#[error("page {page}: {cause}")]
pub struct PageError {
    page: &'static str,
    cause: String,
}

impl Pages {
    /// Compiles the pages. `title` heads the login page. Browsers apply
    /// `form-action` to the redirect that answers a form as well, so the hosts
    /// that may be returned to (`host` or `host:port`) are named there. The
    /// policy cannot name an IPv6 address: returning to one is not possible
    /// from the page's form.
    ///
    /// # Errors
    ///
    /// When a template is broken.
    pub fn new(title: &str, redirect_hosts: &[String]) -> Result<Self, PageError> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, source) in [
            ("login.html", LOGIN),
            ("message.html", MESSAGE),
            ("mismatch.html", MISMATCH),
            ("devices.html", DEVICES),
        ] {
            templates
                .add_template(name, source)
                .map_err(|cause| PageError::of(name, cause))?;
        }
        let csp = HeaderValue::from_str(&policy(redirect_hosts))
            .map_err(|cause| PageError::of("policy", cause))?;
        Ok(Self {
            templates,
            title: title.to_owned(),
            csp,
        })
    }

    /// The value of `Content-Security-Policy` that every page needs.
    pub fn csp(&self) -> &HeaderValue {
        &self.csp
    }

    /// The login page. Its form posts `username`, `password`, `rd` and `round`.
    ///
    /// # Errors
    ///
    /// When the template fails.
    pub fn login(&self, page: &LoginPage<'_>) -> Result<String, PageError> {
        #[derive(Serialize)]
        struct Context<'a> {
            style: &'a str,
            mark: &'a str,
            title: &'a str,
            #[serde(flatten)]
            page: LoginPage<'a>,
        }
        self.render(
            "login.html",
            &Context {
                style: STYLE,
                mark: MARK,
                title: &self.title,
                page: *page,
            },
        )
    }

    /// A page about a refusal.
    ///
    /// # Errors
    ///
    /// When the template fails.
    pub fn message(&self, page: &MessagePage<'_>) -> Result<String, PageError> {
        #[derive(Serialize)]
        struct Context<'a> {
            style: &'a str,
            mark: &'a str,
            heading: &'a str,
            text: &'a str,
            reason: &'a str,
            request_id: &'a str,
            label: Option<&'a str>,
            href: Option<&'a str>,
        }
        self.render(
            "message.html",
            &Context {
                style: STYLE,
                mark: MARK,
                heading: page.heading,
                text: page.text,
                reason: page.reason,
                request_id: page.request_id,
                label: page.link.map(|(label, _)| label),
                href: page.link.map(|(_, href)| href),
            },
        )
    }

    /// The page instead of yet another redirect, when the browser keeps coming
    /// back without the cookie.
    ///
    /// # Errors
    ///
    /// When the template fails.
    pub fn mismatch(&self, page: &MismatchPage<'_>) -> Result<String, PageError> {
        #[derive(Serialize)]
        struct Finding<'a> {
            label: &'a str,
            text: &'a str,
        }
        #[derive(Serialize)]
        struct Context<'a> {
            style: &'a str,
            mark: &'a str,
            findings: Vec<Finding<'a>>,
            reason: &'a str,
            request_id: &'a str,
            label: Option<&'a str>,
            href: Option<&'a str>,
        }
        let findings = page
            .findings
            .iter()
            .map(|(label, text)| Finding { label, text })
            .collect();
        self.render(
            "mismatch.html",
            &Context {
                style: STYLE,
                mark: MARK,
                findings,
                reason: page.reason,
                request_id: page.request_id,
                label: page.link.map(|(label, _)| label),
                href: page.link.map(|(_, href)| href),
            },
        )
    }

    /// The page about a user's sessions, with a form to end each.
    ///
    /// # Errors
    ///
    /// When the template fails.
    pub fn devices(&self, page: &DevicesPage<'_>) -> Result<String, PageError> {
        #[derive(Serialize)]
        struct Context<'a> {
            style: &'a str,
            mark: &'a str,
            others: usize,
            #[serde(flatten)]
            page: DevicesPage<'a>,
        }
        self.render(
            "devices.html",
            &Context {
                style: STYLE,
                mark: MARK,
                others: page.devices.iter().filter(|d| !d.current).count(),
                page: *page,
            },
        )
    }

    fn render(&self, name: &'static str, context: &impl Serialize) -> Result<String, PageError> {
        self.templates
            .get_template(name)
            .and_then(|template| template.render(Serde(context)))
            .map_err(|cause| PageError::of(name, cause))
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages")
            .field("title", &self.title)
            .field("csp", &self.csp)
            .finish_non_exhaustive()
    }
}

impl PageError {
    fn of(page: &'static str, cause: impl fmt::Display) -> Self {
        Self {
            page,
            cause: cause.to_string(),
        }
    }
}

/// Nothing may be loaded but the stylesheet (and the empty icon, which keeps
/// browsers from asking for `/favicon.ico`); forms go to us.
fn policy(redirect_hosts: &[String]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
    let mut forms = String::from("'self'");
    for host in redirect_hosts {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
        if !host.is_empty() && host.bytes().all(plain) {
            forms.push_str(&format!(" https://{host} http://{host}"));
        }
    }
    format!(
        "default-src 'none'; style-src 'sha256-{}'; img-src data:; form-action {forms}; frame-ancestors 'none'; base-uri 'none'",
        STANDARD.encode(hash)
    )
}

#[cfg(test)]
mod tests;
