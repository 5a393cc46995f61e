//! The configuration as JSON Schema (draft 2020-12), for editors.

use serde_json::{Map, Value, json};

use super::keys::{self, Availability, Key, Kind};
use super::reference::availability;

/// The schema of the whole file.
pub fn schema() -> Value {
    let mut root = object("");
    root.insert(
        "$schema".into(),
        "https://json-schema.org/draft/2020-12/schema".into(),
    );
    root.insert("title".into(), "Cloakroom configuration".into());
    Value::Object(root)
}

/// A section, given by its path in the key table.
fn object(pattern: &str) -> Map<String, Value> {
    let mut object = Map::new();
    if let Some(section) = keys::find_section(pattern) {
        let mut doc = section.doc.to_string();
        if section.later {
            doc.push_str(" Not available in this version.");
        }
        object.insert("description".into(), doc.into());
    }
    object.insert("type".into(), "object".into());
    let mut properties = Map::new();
    let mut others = Value::Bool(false);
    for name in keys::names_in(pattern) {
        let path = match pattern {
            "" => name.to_string(),
            _ => format!("{pattern}.{name}"),
        };
        let value = match keys::find(&path) {
            Some(key) => leaf(key),
            None => Value::Object(object_or_array(&path)),
        };
        if name == "*" {
            others = value;
        } else {
            properties.insert(name.trim_end_matches("[]").into(), value);
        }
    }
    if !properties.is_empty() {
        object.insert("properties".into(), Value::Object(properties));
    }
    object.insert("additionalProperties".into(), others);
    if pattern == "upstreams" {
        object.insert(
            "propertyNames".into(),
            json!({ "pattern": "^[A-Za-z0-9_-]{1,64}$" }),
        );
    }
    object
}

fn object_or_array(path: &str) -> Map<String, Value> {
    let object = object(path);
    if !path.ends_with("[]") {
        return object;
    }
    let mut array = Map::new();
    if let Some(doc) = object.get("description") {
        array.insert("description".into(), doc.clone());
    }
    array.insert("type".into(), "array".into());
    array.insert("items".into(), Value::Object(object));
    array
}

fn leaf(key: &Key) -> Value {
    let mut schema = of_kind(&key.kind);
    let mut doc = key.doc.to_string();
    if key.availability != Availability::Now {
        doc.push(' ');
        doc.push_str(&availability(key));
    }
    schema.insert("description".into(), doc.into());
    if let Some(default) = key.default.and_then(to_json) {
        schema.insert("default".into(), default);
    }
    Value::Object(schema)
}

/// A default, which is written as TOML in the table, as JSON.
fn to_json(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    serde_json::to_value(table.get("value")?).ok()
}

fn of_kind(kind: &Kind) -> Map<String, Value> {
    let secret = || {
        json!([
            { "type": "string" },
            reference_to("env", "The environment variable that holds it."),
            reference_to("file", "The file that holds it; a trailing newline is dropped."),
        ])
    };
    let schema = match kind {
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Integer(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Kind::Word(words) => json!({ "type": "string", "enum": words }),
        Kind::Secure => json!({ "enum": ["auto", true, false] }),
        Kind::Duration(_) => json!({ "type": "string", "pattern": "^[0-9]+ *(ms|s|m|h|d)$" }),
        Kind::Size(true) => {
            json!({ "type": "string", "pattern": "^(none|[0-9]+ *([KkMmGg][Ii]?)?[Bb])$" })
        }
        Kind::Size(false) => {
            json!({ "type": "string", "pattern": "^[0-9]+ *([KkMmGg][Ii]?)?[Bb]$" })
        }
        Kind::Rate => json!({ "type": "string", "pattern": "^(none|[0-9]+/[smh])$" }),
        Kind::RoutePath | Kind::Prefix | Kind::CookiePath => {
            json!({ "type": "string", "pattern": "^/" })
        }
        Kind::Method => json!({ "type": "string", "pattern": "^[A-Z0-9!#$%&'*+.^_`|~-]+$" }),
        Kind::OriginOrAny => {
            json!({ "type": "string", "pattern": "^([Hh][Tt][Tt][Pp][Ss]?://.*|\\*)$" })
        }
        Kind::Origin => json!({ "type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://" }),
        Kind::Secret | Kind::Store => json!({ "oneOf": secret() }),
        Kind::List(item) => json!({ "type": "array", "items": of_kind(item) }),
        Kind::Text
        | Kind::Listen
        | Kind::Address
        | Kind::ListenOrOff
        | Kind::Network
        | Kind::Upstream
        | Kind::UpstreamHost
        | Kind::HostPattern
        | Kind::CookieName
        | Kind::CookieDomain
        | Kind::Location
        | Kind::Host
        | Kind::Header
        | Kind::RecordPath
        | Kind::File
        | Kind::StorePrefix => json!({ "type": "string" }),
    };
    match schema {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn reference_to(name: &str, doc: &str) -> Value {
    json!({
        "type": "object",
        "properties": { name: { "type": "string", "description": doc } },
        "required": [name],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_schema_with_its_default() {
        let schema = schema();
        for key in keys::KEYS {
            let mut at = &schema;
            for segment in key.path.split('.') {
                at = match segment {
                    "*" => &at["additionalProperties"],
                    _ => &at["properties"][segment.trim_end_matches("[]")],
                };
                if segment.ends_with("[]") {
                    at = &at["items"];
                }
            }
            assert!(at["description"].as_str().is_some(), "{}", key.path);
            assert_eq!(
                at.get("default").is_some(),
                key.default.is_some(),
                "{}",
                key.path
            );
        }
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(
            schema["properties"]["server"]["properties"]["workers"]["default"],
            0
        );
    }
}
