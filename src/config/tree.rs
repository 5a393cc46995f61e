//! The file as a tree of values, each of which knows where it stands.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where the value stands; of a `[section]`, where its header does.
    pub place: Place,
    /// The value.
    pub value: Value,
}

/// A TOML value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A string.
    String(String),
    /// An integer that fits, as all of ours do.
    Integer(i64),
    /// `true` or `false`.
    Boolean(bool),
    /// A table, inline or not.
    Table(Vec<Entry>),
    /// An array, or an array of tables.
    Array(Vec<Node>),
    /// What no key takes: a float, a date, a huge integer; with its TOML name.
    Other(&'static str),
}

/// A key of a table, and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub key_place: Place,
    /// Its value.
    pub node: Node,
}

impl Value {
    /// What TOML calls it, with its article.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::Table(_) => "a table",
            Self::Array(_) => "a list",
            Self::Other(name) => name,
        }
    }
}

/// Reads a file. The tree holds whatever could be understood; the problems are
/// all violations of the syntax.
pub fn parse_file(text: &str) -> (Vec<Entry>, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let entries = entries(table.into_inner(), &Place::File);
    let problems = errors
        .iter()
        .map(|error| syntax_problem(error, text))
        .collect();
    (entries, problems)
}

/// Reads one value, all of which stands at one place.
///
/// # Errors
///
/// What the parser says of it.
pub fn parse_value(text: &str, place: &Place) -> Result<Node, String> {
    match DeValue::parse(text) {
        Ok(value) => Ok(node(value, &|_| place.clone())),
        Err(error) => Err(error.message().to_string()),
    }
}

fn node(value: Spanned<DeValue<'_>>, place: &dyn Fn(Range<usize>) -> Place) -> Node {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("an integer that is too large"),
        },
        DeValue::Boolean(flag) => Value::Boolean(flag),
        DeValue::Array(items) => {
            Value::Array(items.into_iter().map(|item| node(item, place)).collect())
        }
        DeValue::Table(table) => Value::Table(entries(table, place)),
        DeValue::Float(_) => Value::Other("a floating-point number"),
        DeValue::Datetime(_) => Value::Other("a date or time"),
    };
    Node {
        place: place(span),
        value,
    }
}

fn entries(table: DeTable<'_>, place: &dyn Fn(Range<usize>) -> Place) -> Vec<Entry> {
    table
        .into_iter()
        .map(|(key, value)| Entry {
            key_place: place(key.span()),
            key: key.into_inner().into_owned(),
            node: node(value, place),
        })
        .collect()
}

fn syntax_problem(error: &toml::de::Error, text: &str) -> Problem {
    let message = error.message();
    let message = message
        .strip_suffix(", expected nothing")
        .unwrap_or(message);
    let place = error.span().map_or(Place::Whole, Place::File);
    let line = error
        .span()
        .and_then(|span| text.get(..span.start)?.rsplit('\n').next());
    if message == "duplicate key" && line.is_some_and(|before| before.starts_with('[')) {
        return Problem::error(&place, "this section stands in the file already")
            .help("put the keys of both below one header");
    }
    let problem = Problem::error(&place, message);
    match help_for(message) {
        Some(help) => problem.help(help),
        None => problem,
    }
}

/// The parser says what it met; this says what to do about it.
fn help_for(message: &str) -> Option<&'static str> {
    let hints = [
        (
            "duplicate key",
            "a key may stand only once in a section: keep one of the two lines",
        ),
        (
            "string values must be quoted",
            "put the value between double quotes, as in `listen = [\"127.0.0.1:8080\"]`",
        ),
        (
            "invalid basic string",
            "a string ends on the line it began on, with the same quote; a backslash in it is written `\\\\`",
        ),
        (
            "key with no value",
            "a line is `key = value`, a section is `[name]`",
        ),
        ("missing value", "write a value after the `=`"),
        ("unclosed array", "close the list with `]`"),
        ("unclosed table", "close the section's name with `]`"),
        ("unclosed inline table", "close the table with `}`"),
        ("extra `=`", "a comparison or assignment has one `=`"),
        ("missing comma", "put a comma between the two"),
    ];
    hints
        .iter()
        .find(|(start, _)| message.starts_with(start))
        .map(|(_, help)| *help)
}
