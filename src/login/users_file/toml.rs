//! The TOML form: `[[user]]` tables.

use std::ops::Range;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Problem, User, Users, name_problem, place, role_problem};
use crate::base::identity::Identity;
use crate::login::password::hash::{ADVICE, Hash};

/// Reads the whole text and reports every problem in it.
pub(super) fn parse(text: &str) -> Result<Users, Vec<Problem>> {
    let mut reader = Reader {
        text,
        problems: Vec::new(),
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        reader.problem(error.span().unwrap_or(0..0), error.message());
    }
    // What was recovered from a text that is not TOML says nothing reliable.
    if !errors.is_empty() {
        return Err(reader.problems);
    }
    let mut users = Users::default();
    for (key, value) in in_order(root.get_ref()) {
        if key.get_ref() != "user" {
            let message = format!(
                "unknown key `{}`; users are written as [[user]] tables",
                key.get_ref().escape_debug()
            );
            reader.problem(key.span(), message);
            continue;
        }
        let DeValue::Array(list) = value.get_ref() else {
            reader.problem(key.span(), "write [[user]], with two brackets");
            continue;
        };
        for item in list.iter() {
            let Some((user, span)) = reader.user(item) else {
                continue;
            };
            let (line, _) = place(text, span.start);
            if let Err(message) = users.add(user, line) {
                reader.problem(span, message);
            }
        }
    }
    if reader.problems.is_empty() {
        Ok(users)
    } else {
        reader.problems.sort_by_key(|problem| problem.place);
        Err(reader.problems)
    }
}

/// A table's entries as they stand in the file; the parser sorts by key.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(
    &'t Spanned<toml::de::DeString<'i>>,
    &'t Spanned<DeValue<'i>>,
)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

struct Reader<'t> {
    text: &'t str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, span: Range<usize>, message: impl Into<String>) {
        let (line, column) = place(self.text, span.start);
        self.problems.push(Problem::at(line, column, message));
    }

    /// One user, with the span of the name; `None` after reporting why not.
    fn user(&mut self, item: &Spanned<DeValue<'_>>) -> Option<(User, Range<usize>)> {
        let DeValue::Table(table) = item.get_ref() else {
            self.problem(item.span(), "a user is a table; write [[user]]");
            return None;
        };
        let before = self.problems.len();
        let mut claims = Map::new();
        let (mut name, mut id, mut hash) = (None, None, None);
        let mut roles = Vec::new();
        for (key, value) in in_order(table) {
            let span = value.span();
            match key.get_ref().as_ref() {
                "name" => name = self.short("name", value).map(|text| (text, span)),
                "id" => id = self.short("id", value),
                "password" => hash = self.password(value),
                "roles" => roles = self.roles(value),
                "email" => {
                    if let Some(email) = self.short("email", value) {
                        claims.insert("email".to_owned(), email.into());
                    }
                }
                // express-session keeps the cookie's facts under this name.
                "cookie" => self.problem(
                    key.span(),
                    "the key `cookie` is taken in a session record; choose another name",
                ),
                other => match to_json(value) {
                    Ok(json) => {
                        claims.insert(other.to_owned(), json);
                    }
                    Err((span, message)) => self.problem(span, message),
                },
            }
        }
        if !table.contains_key("name") {
            self.problem(item.span(), "this user has no `name`");
        }
        if !table.contains_key("password") {
            self.problem(
                item.span(),
                format!("this user has no `password`; {ADVICE}"),
            );
        }
        let ((name, span), hash) = (name?, hash?);
        if self.problems.len() > before {
            return None;
        }
        claims.insert("name".to_owned(), name.clone().into());
        if table.contains_key("roles") {
            claims.insert("roles".to_owned(), roles.clone().into());
        }
        let user = User {
            identity: Identity {
                user: id.unwrap_or_else(|| name.clone()),
                roles,
                claims,
            },
            name,
            hash,
        };
        Some((user, span))
    }

    fn string<'v>(&mut self, what: &str, value: &'v Spanned<DeValue<'_>>) -> Option<&'v str> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.as_ref()),
            DeValue::Integer(_) | DeValue::Float(_) => {
                let message = format!("the {what} must be a string; put it in quotes");
                self.problem(value.span(), message);
                None
            }
            _ => {
                self.problem(value.span(), format!("the {what} must be a string"));
                None
            }
        }
    }

    fn short(&mut self, what: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.string(what, value)?;
        if let Some(message) = name_problem(what, text) {
            self.problem(value.span(), message);
            return None;
        }
        Some(text.to_owned())
    }

    fn password(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Hash> {
        let text = self.string("password", value)?;
        match Hash::parse(text) {
            Ok(hash) => Some(hash),
            Err(message) => {
                self.problem(value.span(), message);
                None
            }
        }
    }

    fn roles(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<String> {
        let DeValue::Array(list) = value.get_ref() else {
            self.problem(value.span(), "roles are a list: roles = [\"admin\"]");
            return Vec::new();
        };
        let mut roles = Vec::new();
        for item in list.iter() {
            let Some(role) = self.string("role", item) else {
                continue;
            };
            match role_problem(role) {
                Some(message) => self.problem(item.span(), message),
                None => roles.push(role.to_owned()),
            }
        }
        roles
    }
}

/// The same value in JSON. Dates become strings; a number that JSON does not
/// have is an error.
fn to_json(value: &Spanned<DeValue<'_>>) -> Result<Value, (Range<usize>, &'static str)> {
    let cannot = |message| (value.span(), message);
    Ok(match value.get_ref() {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Value::from)
            .map_err(|_| cannot("this number is too large"))?,
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .ok()
            .and_then(Number::from_f64)
            .map(Value::Number)
            .ok_or_else(|| cannot("this number cannot be written in JSON"))?,
        DeValue::Boolean(yes) => Value::from(*yes),
        DeValue::Datetime(when) => Value::from(when.to_string()),
        DeValue::Array(list) => list.iter().map(to_json).collect::<Result<_, _>>()?,
        DeValue::Table(table) => {
            let mut map = Map::new();
            for (key, value) in in_order(table) {
                map.insert(key.get_ref().to_string(), to_json(value)?);
            }
            Value::Object(map)
        }
    })
}
