//! The fields of a session record: a JSON object that is kept as text.
//!
//! Fields are looked up in the text, without building a tree: an application's
//! records may hold lone surrogates, deep nesting and any key order, and must
//! go through unharmed.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::members::{check, member, members};

/// The most levels that a dotted path may have.
pub const MAX_PATH_DEPTH: usize = 16;

/// A JSON object, as text.
#[derive(Clone, PartialEq, Eq)]
pub struct Data(String);

/// The members of a JSON object, wherever its text is kept.
#[derive(Clone, Copy)]
pub struct Fields<'a>(&'a str);

/// What stands at a path, as far as identity needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A string, or the text of a number or boolean.
    One(String),
    /// An array of such.
    Many(Vec<String>),
}

/// The text is not a JSON object.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a JSON object: {0}")]
pub struct NotAnObject(String);

impl Data {
    /// Takes a text if it is a JSON object.
    ///
    /// # Errors
    ///
    /// [`NotAnObject`], with what the parser said; never with the text.
    pub fn parse(text: String) -> Result<Self, NotAnObject> {
        if members(&text).is_some() {
            return Ok(Self(text));
        }
        check(&text).map_err(NotAnObject)?;
        Err(NotAnObject("it is another kind of value".to_owned()))
    }

    /// The fields of a new record: `claims`, and over them each of `placed` at
    /// its dotted path.
    pub fn new<'p>(
        claims: Map<String, Value>,
        placed: impl IntoIterator<Item = (&'p str, Value)>,
    ) -> Self {
        let record = placed
            .into_iter()
            .fold(Value::Object(claims), |record, (path, value)| {
                place(record, Some(path), value)
            });
        Self(record.to_string())
    }

    /// Only the members of these names, as they are written.
    pub fn only<'n>(&self, names: impl Iterator<Item = &'n str> + Clone) -> Self {
        let mut text = String::from("{");
        for member in members(&self.0).unwrap_or_default() {
            if !names.clone().any(|name| member.name.is(name)) {
                continue;
            }
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(member.written);
            text.push(':');
            text.push_str(member.value);
        }
        text.push('}');
        Self(text)
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The members.
    pub fn fields(&self) -> Fields<'_> {
        Fields(&self.0)
    }

    /// As [`Fields::raw`].
    pub fn raw(&self, path: &str) -> Option<&str> {
        self.fields().raw(path)
    }

    /// As [`Fields::user`].
    pub fn user(&self, path: &str) -> Option<String> {
        self.fields().user(path)
    }

    /// As [`Fields::at`].
    pub fn at(&self, path: &str) -> Option<Field> {
        self.fields().at(path)
    }
}

impl<'a> Fields<'a> {
    /// Of the text of a [`Data`].
    pub(super) fn of(text: &'a str) -> Self {
        Self(text)
    }

    /// The text.
    pub fn text(self) -> &'a str {
        self.0
    }

    /// The text of the value at a dotted path.
    pub fn raw(self, path: &str) -> Option<&'a str> {
        path.split('.')
            .take(MAX_PATH_DEPTH)
            .try_fold(self.0, member)
    }

    /// The user id at a dotted path: a string that is not empty, or a number. What else
    /// JavaScript takes for true names nobody.
    pub fn user(self, path: &str) -> Option<String> {
        let text = self.raw(path)?;
        match text.as_bytes().first()? {
            b'"' => serde_json::from_str(text)
                .ok()
                .filter(|user: &String| !user.is_empty()),
            b'-' | b'0'..=b'9' => Some(text.to_owned()),
            _ => None,
        }
    }

    /// What stands at a dotted path; `None` for nothing, `null`, objects, and
    /// arrays that hold anything but plain values.
    pub fn at(self, path: &str) -> Option<Field> {
        let text = self.raw(path)?;
        plain(text).map(Field::One).or_else(|| {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let items: Option<Vec<String>> = items.into_iter().map(|i| plain(i.get())).collect();
            items.map(Field::Many)
        })
    }
}

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fields({} bytes)", self.0.len())
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}

impl Field {
    /// The values, one or many.
    pub fn into_values(self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

fn split(path: &str) -> (&str, Option<&str>) {
    match path.split_once('.') {
        Some((head, rest)) => (head, Some(rest)),
        None => (path, None),
    }
}

/// Puts `value` at `path` below `current`; what is in the way gives way.
fn place(current: Value, path: Option<&str>, value: Value) -> Value {
    let Some(path) = path else {
        return value;
    };
    let mut object = match current {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    let (head, rest) = split(path);
    let below = object.remove(head).unwrap_or(Value::Null);
    object.insert(head.to_owned(), place(below, rest, value));
    Value::Object(object)
}

/// A string, or a number or boolean as it is written.
fn plain(text: &str) -> Option<String> {
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str(text).ok(),
        b'-' | b'0'..=b'9' | b't' | b'f' => Some(text.to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other} is not an object"),
        }
    }

    #[test]
    fn the_user_id_stands_where_the_application_looks_for_it() {
        let user = || json!("u1");
        let flat = Data::new(object(json!({"email": "a@b"})), [("userId", user())]);
        assert_eq!(flat.text(), r#"{"email":"a@b","userId":"u1"}"#);
        let deep = Data::new(
            object(json!({"passport": {"x": 1}})),
            [("passport.user", user())],
        );
        assert_eq!(deep.text(), r#"{"passport":{"x":1,"user":"u1"}}"#);
    }

    #[test]
    fn fields_are_found_by_path() {
        let data = Data::parse(r#"{"a":{"b":["x",2,true]},"n":7,"z":null,"o":{}}"#.into()).unwrap();
        assert_eq!(
            data.at("a.b"),
            Some(Field::Many(vec!["x".into(), "2".into(), "true".into()]))
        );
        assert_eq!(data.at("n"), Some(Field::One("7".into())));
        for nothing in ["z", "o", "a.c", "a.b.c", "", "n.x"] {
            assert_eq!(data.at(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_the_tree_parser_refuses_goes_through() {
        let deep = format!("{}1{}", "[".repeat(9999), "]".repeat(9999));
        let text = format!(r#"{{"cut":"\ud83d","\udc69":0,"deep":{deep},"userId":"u1"}}"#);
        let data = Data::parse(text.clone()).unwrap();
        assert_eq!(data.at("userId"), Some(Field::One("u1".into())));
        assert_eq!(data.at("cut"), None);
        assert_eq!(data.text(), text);
    }

    #[test]
    fn members_of_some_names_are_kept_as_they_are_written() {
        let text =
            r#" {"cookie": {"a":1} , "u\u0073er" : { "id":"\ud83d" },"cart":[0],"user":1.0e0} "#;
        let only = |names: &[&str]| {
            let data = Data::parse(text.into()).unwrap();
            data.only(names.iter().copied()).text().to_owned()
        };
        assert_eq!(
            only(&["user", "roles"]),
            r#"{"u\u0073er":{ "id":"\ud83d" },"user":1.0e0}"#
        );
        assert_eq!(only(&[]), "{}");
        assert_eq!(only(&["cart", "cart"]), r#"{"cart":[0]}"#);
    }

    #[test]
    fn only_objects_are_records() {
        for text in ["", "[]", "1", "null", "{", "{\"a\":}"] {
            assert!(Data::parse(text.into()).is_err(), "{text}");
        }
    }
}
