//! Values: from what stands in the file to what it means.

pub mod http;
pub mod net;
pub mod quantity;
pub mod secret;

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::keys::Kind;
use super::mask::mask_user_info;
use super::problem::{Place, Problem};
use super::settings::{At, CorsOrigin, Setting};
use super::suggest;
use super::tree::{Node, Value};

/// What values are understood in.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The folder of the configuration file, from which paths are counted.
    pub folder: &'a Path,
    /// Where `{ env = … }` looks.
    pub environment: Option<&'a Environment>,
}

impl Context<'_> {
    /// A path of the configuration, counted from its folder.
    pub fn path(&self, text: &str) -> PathBuf {
        self.folder.join(text).components().collect()
    }
}

/// What is wrong with a value, without its place.
#[derive(Clone, Debug)]
pub struct Fault {
    what: String,
    why: Option<String>,
    help: Option<String>,
}

impl Fault {
    /// What is wrong and how to mend it, for where there is no file to show.
    pub fn sentence(&self) -> String {
        match &self.help {
            Some(help) => format!("{}; {help}", self.what),
            None => self.what.clone(),
        }
    }

    /// The same fault, mended another way.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// A fault and the way to mend it.
    pub fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: None,
            help: Some(help.into()),
        }
    }

    /// The same with the reason.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// The same at a place.
    pub fn at(self, place: &Place) -> Problem {
        Problem {
            why: self.why,
            help: self.help,
            ..Problem::error(place, self.what)
        }
    }
}

/// A value, as far as it could be understood.
#[derive(Debug)]
pub struct Reading {
    /// The value; of a list, those items that are right.
    pub value: Option<Setting>,
    /// Everything that is wrong with it.
    pub problems: Vec<Problem>,
}

impl Reading {
    fn failed(fault: Fault, place: &Place) -> Self {
        Self {
            value: None,
            problems: vec![fault.at(place)],
        }
    }
}

/// Understands a value.
pub fn read(kind: &Kind, node: &Node, context: &Context<'_>) -> Reading {
    if let Kind::List(item) = kind {
        return read_list(item, node, context);
    }
    match read_one(kind, &node.value, context) {
        Ok(value) => Reading {
            value: Some(value),
            problems: Vec::new(),
        },
        Err(fault) => Reading::failed(fault, &node.place),
    }
}

fn read_list(kind: &Kind, node: &Node, context: &Context<'_>) -> Reading {
    let Value::Array(items) = &node.value else {
        let help = match (&node.value, kind) {
            (_, Kind::Secret) => {
                "put it between brackets: secrets = [ { env = \"CLOAKROOM_SECRET\" } ]".to_string()
            }
            (Value::String(text), _) => format!("put it between brackets: [{}]", quoted(text)),
            _ => format!("write {} between brackets", expected(kind)),
        };
        let what = format!("expected a list, found {}", node.value.describe());
        return Reading::failed(Fault::new(what, help), &node.place);
    };
    let mut settings = Vec::with_capacity(items.len());
    let mut problems = Vec::new();
    for item in items {
        let reading = read(kind, item, context);
        problems.extend(reading.problems);
        settings.extend(reading.value.map(|value| At {
            place: item.place.clone(),
            value,
        }));
    }
    Reading {
        value: Some(Setting::List(settings)),
        problems,
    }
}

fn read_one(kind: &Kind, value: &Value, context: &Context<'_>) -> Result<Setting, Fault> {
    match (kind, value) {
        (Kind::Boolean, Value::Boolean(flag)) => Ok(Setting::Boolean(*flag)),
        (Kind::Secure, Value::Boolean(flag)) => Ok(Setting::Secure(Some(*flag))),
        (Kind::Secure, Value::String(text)) if text == "auto" => Ok(Setting::Secure(None)),
        (Kind::Integer(least, most), Value::Integer(number)) => {
            if (least..=most).contains(&number) {
                return Ok(Setting::Integer(*number));
            }
            Err(Fault::new(
                format!("{number} is out of range"),
                format!("write an integer from {least} to {most}"),
            ))
        }
        (Kind::Secret, _) => secret::read(value, context).map(Setting::Secret),
        (Kind::Store, _) => secret::read_store(value, context).map(Setting::Store),
        (Kind::Duration(_), Value::Integer(number)) => Err(Fault::new(
            format!("{number} has no unit"),
            format!("say which unit is meant: \"{number}s\", \"{number}m\" or \"{number}ms\""),
        )),
        (Kind::Size(_), Value::Integer(number)) => Err(Fault::new(
            format!("{number} has no unit"),
            format!("say which unit is meant: \"{number}B\", \"{number}KiB\" or \"{number}MiB\""),
        )),
        (Kind::Boolean | Kind::Integer(..) | Kind::Secure, Value::String(text))
            if unquotable(kind, text) =>
        {
            Err(Fault::new(
                format!("expected {}, found a string", short(kind)),
                format!("leave out the quotes: {text}"),
            ))
        }
        (Kind::Boolean | Kind::Integer(..), _) => Err(mismatch(kind, value)),
        (_, Value::String(text)) => read_text(kind, text, context),
        _ => Err(mismatch(kind, value)),
    }
}

fn unquotable(kind: &Kind, text: &str) -> bool {
    match kind {
        Kind::Integer(..) => text.parse::<i64>().is_ok(),
        _ => matches!(text, "true" | "false"),
    }
}

fn read_text(kind: &Kind, text: &str, context: &Context<'_>) -> Result<Setting, Fault> {
    match kind {
        Kind::Text => plain(text).map(Setting::Text),
        Kind::Word(words) => word(text, words),
        Kind::Duration(least) => quantity::duration(text, *least).map(Setting::Duration),
        Kind::Size(none) => quantity::size(text, *none).map(Setting::Size),
        Kind::Listen => net::listen(text).map(Setting::Listen),
        Kind::Address => net::address(text).map(|address| Setting::Socket(Some(address))),
        Kind::ListenOrOff if text == "off" => Ok(Setting::Socket(None)),
        Kind::ListenOrOff => net::address(text).map(|address| Setting::Socket(Some(address))),
        Kind::Rate => quantity::rate(text).map(Setting::Rate),
        Kind::Network => net::network(text).map(Setting::Network),
        Kind::Origin => net::origin(text).map(Setting::Origin),
        Kind::OriginOrAny if text == "*" => Ok(Setting::CorsOrigin(CorsOrigin::Any)),
        Kind::OriginOrAny => net::origin(text).map(|url| Setting::CorsOrigin(CorsOrigin::One(url))),
        Kind::Upstream => net::upstream(text).map(Setting::Upstream),
        Kind::UpstreamHost => net::upstream_host(text).map(Setting::HostHeader),
        Kind::HostPattern => http::host_pattern(text).map(Setting::Host),
        Kind::RoutePath => http::route_path(text).map(Setting::Text),
        Kind::Prefix => http::prefix(text).map(Setting::Text),
        Kind::CookiePath => http::cookie_path(text).map(Setting::Text),
        Kind::CookieName => http::cookie_name(text).map(Setting::Text),
        Kind::CookieDomain => http::cookie_domain(text).map(Setting::Domain),
        Kind::Location => http::location(text).map(Setting::Text),
        Kind::Host => http::host(text).map(Setting::Text),
        Kind::Method => http::method(text).map(Setting::Method),
        Kind::Header => http::header(text).map(Setting::Header),
        Kind::RecordPath => record_path(text).map(Setting::Text),
        Kind::StorePrefix => store_prefix(text).map(Setting::Text),
        Kind::File if text == "none" => Ok(Setting::File(None)),
        Kind::File => {
            let text = plain(text)?;
            Ok(Setting::File(Some(context.path(&text))))
        }
        Kind::Secure => Err(Fault::new(
            format!(
                "{} is not one of the words that this key takes",
                quoted(text)
            ),
            "write \"auto\", or true or false without quotes",
        )),
        Kind::Boolean | Kind::Integer(..) | Kind::Secret | Kind::Store | Kind::List(_) => {
            Err(mismatch(kind, &Value::String(String::new())))
        }
    }
}

fn mismatch(kind: &Kind, value: &Value) -> Fault {
    let help = match (value, kind) {
        (Value::Array(_), _) => format!("write {} without brackets", expected(kind)),
        _ => format!("write {}", expected(kind)),
    };
    Fault::new(
        format!("expected {}, found {}", short(kind), value.describe()),
        help,
    )
}

fn short(kind: &Kind) -> &'static str {
    match kind {
        Kind::Boolean => "a boolean",
        Kind::Integer(..) => "an integer",
        Kind::List(_) => "a list",
        Kind::Secure => "\"auto\" or a boolean",
        _ => "a string",
    }
}

/// What a key takes, in words with an example.
pub fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Boolean => "true or false".into(),
        Kind::Integer(least, most) => format!("an integer from {least} to {most}"),
        Kind::Text => "a string".into(),
        Kind::Word(words) => suggest::one_of(words.iter().copied(), '"'),
        Kind::Secure => "\"auto\", true or false".into(),
        Kind::Duration(_) => "a duration such as \"30s\"".into(),
        Kind::Size(true) => "a size such as \"64KiB\", or \"none\"".into(),
        Kind::Size(false) => "a size such as \"64KiB\"".into(),
        Kind::Listen => {
            "an address such as \"127.0.0.1:8080\", or a socket such as \"unix:/run/cloakroom.sock\"".into()
        }
        Kind::Address => "an address such as \"127.0.0.1:8080\"".into(),
        Kind::Rate => "a rate such as \"100/s\", or \"none\"".into(),
        Kind::ListenOrOff => "an address such as \"127.0.0.1:9180\", or \"off\"".into(),
        Kind::Network => {
            "a network such as \"10.0.0.0/8\", or \"loopback\", \"private\" or \"unix\"".into()
        }
        Kind::Origin | Kind::OriginOrAny => "an origin such as \"https://app.example.com\"".into(),
        Kind::Upstream => "a URL such as \"http://127.0.0.1:3000\"".into(),
        Kind::UpstreamHost => "\"preserve\", \"upstream\" or a host".into(),
        Kind::HostPattern => "a host such as \"app.example.com\" or \"*.example.com\"".into(),
        Kind::RoutePath => "a path such as \"/admin\"".into(),
        Kind::Prefix => "a path such as \"/auth\"".into(),
        Kind::CookiePath => "a path such as \"/\"".into(),
        Kind::CookieName => "a name such as \"cloakroom.sid\"".into(),
        Kind::CookieDomain => "a domain such as \"example.com\", or \"none\"".into(),
        Kind::Location => "a path such as \"/welcome\", or a URL".into(),
        Kind::Host => "a host such as \"www.example.com\"".into(),
        Kind::Method => "a method such as \"GET\"".into(),
        Kind::Header => "a header's name such as \"X-User-Id\"".into(),
        Kind::RecordPath => "a path in the session record such as \"userId\"".into(),
        Kind::File => "a path".into(),
        Kind::Secret => "a string, { env = \"NAME\" } or { file = \"/run/secrets/name\" }".into(),
        Kind::Store => {
            "a URL such as \"file:./cloakroom-data\" or \"redis://127.0.0.1:6379\"".into()
        }
        Kind::StorePrefix => "a string such as \"sess:\"".into(),
        Kind::List(item) => format!("a list, each {}", expected(item)),
    }
}

fn word(text: &str, words: &[&str]) -> Result<Setting, Fault> {
    if words.contains(&text) {
        return Ok(Setting::Text(text.to_string()));
    }
    let help = match suggest::closest(text, words.iter().copied()) {
        Some(word) => format!("did you mean \"{word}\"?"),
        None => format!("write {}", suggest::one_of(words.iter().copied(), '"')),
    };
    Err(Fault::new(
        format!(
            "{} is not one of the words that this key takes",
            quoted(text)
        ),
        help,
    ))
}

fn plain(text: &str) -> Result<String, Fault> {
    if text.is_empty() {
        return Err(Fault::new(
            "this is empty",
            "write a value, or leave out the key",
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(Fault::new(
            "this holds a control character",
            "remove it; in a TOML string a backslash begins an escape and is itself written `\\\\`",
        ));
    }
    Ok(text.to_string())
}

fn record_path(text: &str) -> Result<String, Fault> {
    let text = plain(text)?;
    if text.split('.').any(str::is_empty) {
        return Err(Fault::new(
            format!("{} is not a path in the session record", quoted(&text)),
            "write names separated by single dots, such as \"userId\" or \"passport.user\"",
        ));
    }
    Ok(text)
}

fn store_prefix(text: &str) -> Result<String, Fault> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Fault::new(
            "a prefix of keys holds no blanks or control characters",
            "write a prefix such as \"sess:\"",
        ));
    }
    if text.starts_with("cloakroom:") {
        return Err(Fault::new(
            "the prefix of session keys must not begin with \"cloakroom:\"",
            "write another one, such as \"sess:\"",
        )
        .why("keys that are not sessions begin with it, and the two must not be mixed"));
    }
    Ok(text.to_string())
}

/// A value as messages quote it: shortened, without control characters and
/// without the user information of a URL.
pub fn quoted(text: &str) -> String {
    const MOST: usize = 60;
    let text = mask_user_info(text);
    let mut shown: String = text
        .chars()
        .take(MOST)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().count() > MOST {
        shown.push('…');
    }
    format!("\"{shown}\"")
}
