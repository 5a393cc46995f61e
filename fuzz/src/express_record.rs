//! Records of Express applications: what Express would take for a session is one, its
//! text is never changed, and what a login takes over of it makes nobody somebody else.
//!
//! The first line is the dotted path of the user, the second the fields of a login, as
//! JSON; the rest is what the store holds.

use cloakroom::session::layout::express::{Record, moved};
use serde_json::{Map, Value};

use crate::line;

pub fn run(input: &[u8]) {
    let (path, rest) = line(input);
    let (login, stored) = line(rest);
    let (Ok(path), Ok(login)) = (std::str::from_utf8(path), std::str::from_utf8(login)) else {
        return;
    };
    let found = Record::read(stored);
    let text = String::from_utf8_lossy(stored);
    if let Ok(Some(record)) = &found {
        let whole = text.trim_matches([' ', '\t', '\r', '\n']);
        assert_eq!(record.data().text(), whole, "changed");
        // No age makes a header that cannot be sent.
        let now = cloakroom::base::clock::Timestamp(1_800_000_000_000);
        for secure in [false, true] {
            if let Some(line) = record.cookie().set("sid", "value", now, secure, true) {
                let line = line.to_str().expect("text");
                assert!(line.starts_with("sid=value"), "{line}");
            }
        }
    }
    let Ok(tree) = serde_json::from_str::<Value>(&text) else {
        // No JSON, or such as a tree cannot hold: lone surrogates, depth, large numbers.
        return;
    };
    judged(&found, &tree);
    if let Ok(Some(record)) = &found {
        whose(record, &tree, path);
        taken_over(record.data().text(), &tree, login, path);
    }
}

/// What express-session does with it: nothing, 500, or a session.
fn judged(found: &Result<Option<Record>, impl std::fmt::Debug>, tree: &Value) {
    if !truthy(tree) {
        assert!(matches!(found, Ok(None)), "{found:?} for nothing");
        return;
    }
    let works = match tree.get("cookie") {
        None | Some(Value::Null) => false,
        Some(Value::Object(cookie)) => ["originalMaxAge", "maxAge"].iter().all(|name| {
            let age = cookie.get(*name).unwrap_or(&Value::Null);
            age.is_number() || !truthy(age)
        }),
        Some(Value::Array(_)) => true,
        Some(other) => !truthy(other),
    };
    assert_eq!(matches!(found, Ok(Some(_))), works, "{found:?}");
    assert_eq!(found.is_err(), !works);
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

fn whose(record: &Record, tree: &Value, path: &str) {
    if path.split('.').count() > 16 {
        return;
    }
    let at = path.split('.').try_fold(tree, |value, step| match value {
        Value::Object(members) => members.get(step),
        _ => None,
    });
    match (record.user(path), at) {
        (Some(user), Some(Value::String(text))) => assert_eq!(user, *text),
        (Some(user), Some(Value::Number(_))) => {
            assert!(user.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']));
        }
        (None, Some(Value::String(text))) => assert!(text.is_empty()),
        (None, Some(Value::Number(_))) => panic!("a number is nobody"),
        (None, _) => {}
        (Some(user), other) => panic!("{user:?} of {other:?}"),
    }
}

fn taken_over(text: &str, tree: &Value, login: &str, path: &str) {
    let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(login) else {
        return;
    };
    let merged = moved(text, login, &[path.to_owned()]).expect("two objects");
    let merged: Value = serde_json::from_str(&merged).expect("JSON");
    let Value::Object(mut expected) = tree.clone() else {
        return;
    };
    without(&mut expected, path);
    expected.remove("cookie");
    over(&mut expected, fields);
    assert_eq!(merged, Value::Object(expected));
}

fn without(members: &mut Map<String, Value>, path: &str) {
    match path.split_once('.') {
        None => drop(members.remove(path)),
        Some((step, rest)) => {
            if let Some(Value::Object(below)) = members.get_mut(step) {
                without(below, rest);
            }
        }
    }
}

fn over(old: &mut Map<String, Value>, new: Map<String, Value>) {
    for (name, value) in new {
        match (old.get_mut(&name), value) {
            (Some(Value::Object(below)), Value::Object(value)) => over(below, value),
            (_, value) => drop(old.insert(name, value)),
        }
    }
}
