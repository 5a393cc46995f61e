//! The environment as a value: secrets by name, and overrides of keys.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;

use super::keys::{self, Kind};
use super::problem::{Place, Problem};
use super::suggest;
use super::tree::{self, Entry, Node, Value};

/// What the names of overriding variables begin with.
pub const PREFIX: &str = "CLOAKROOM__";

/// Environment variables, by name.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, Vec<u8>>);

impl Environment {
    /// The process's own. Variables whose names are not UTF-8 are left out,
    /// since no configuration can name them.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_vec())))
                .collect(),
        )
    }

    /// A variable's value, byte for byte.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }
}

impl<N: Into<String>, V: Into<Vec<u8>>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(
            variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Writes every overriding variable into the tree. Lists are replaced whole.
pub fn apply(environment: &Environment, root: &mut Vec<Entry>, problems: &mut Vec<Problem>) {
    for (variable, value) in &environment.0 {
        let Some(rest) = variable.strip_prefix(PREFIX) else {
            continue;
        };
        let place = Place::Variable(variable.clone());
        match read_override(rest, value, &place) {
            Ok((path, node)) => set(root, &path, node),
            Err(problem) => problems.push(problem),
        }
    }
}

/// Puts a value at a path, making the sections on the way. Where the file has
/// something else than a section on the way, it stays: that is reported there.
pub fn set(entries: &mut Vec<Entry>, path: &[String], node: Node) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    let index = match entries.iter().position(|entry| entry.key == *first) {
        Some(index) => index,
        None => {
            entries.push(Entry {
                key: first.clone(),
                key_place: node.place.clone(),
                node: Node {
                    place: node.place.clone(),
                    value: Value::Table(Vec::new()),
                },
            });
            entries.len() - 1
        }
    };
    let Some(entry) = entries.get_mut(index) else {
        return;
    };
    if rest.is_empty() {
        entry.key_place = node.place.clone();
        entry.node = node;
    } else if let Value::Table(inner) = &mut entry.node.value {
        set(inner, rest, node);
    }
}

fn read_override(rest: &str, value: &[u8], place: &Place) -> Result<(Vec<String>, Node), Problem> {
    let path: Vec<String> = rest.split("__").map(str::to_ascii_lowercase).collect();
    let target = resolve(&path).ok_or_else(|| unknown(rest, &path, place))?;
    let text = std::str::from_utf8(value)
        .map_err(|_| Problem::error(place, "the value of this variable is not UTF-8"))?;
    let node = read_value(&target, text, place)?;
    Ok((path, node))
}

/// What a variable's name leads to.
enum Target {
    Key(Kind),
    Section,
    Tables,
}

fn resolve(path: &[String]) -> Option<Target> {
    let mut pattern = String::new();
    let mut left = path.iter().peekable();
    while let Some(segment) = left.next() {
        let names = keys::names_in(&pattern);
        let array = format!("{segment}[]");
        let name = if names.contains(&segment.as_str()) {
            segment.as_str()
        } else if names.contains(&array.as_str()) {
            return left.peek().is_none().then_some(Target::Tables);
        } else if pattern == "upstreams" && !segment.is_empty() {
            "*"
        } else {
            return None;
        };
        if !pattern.is_empty() {
            pattern.push('.');
        }
        pattern.push_str(name);
    }
    Some(match keys::find(&pattern) {
        Some(key) => Target::Key(key.kind),
        None => Target::Section,
    })
}

/// Reads the value as TOML. Where the key takes a string, what is not TOML, or
/// is a number or a date, is that string.
fn read_value(target: &Target, text: &str, place: &Place) -> Result<Node, Problem> {
    let bare = || Node {
        place: place.clone(),
        value: Value::String(text.to_string()),
    };
    let structured = text.trim_start().starts_with(['"', '\'', '[', '{']);
    let parsed = tree::parse_value(text.trim(), place);
    match target {
        Target::Key(Kind::List(item)) if !structured => {
            let example = match **item {
                Kind::Secret => "'[\"…\"]'".to_string(),
                _ => format!("'[\"{}\"]'", text.trim()),
            };
            Err(Problem::error(place, "this key takes a list")
                .help(format!("write it as a TOML list: {example}")))
        }
        Target::Key(Kind::Boolean | Kind::Integer(..) | Kind::Secure) if !structured => {
            Ok(parsed.unwrap_or_else(|_| bare()))
        }
        Target::Key(_) if !structured => Ok(bare()),
        _ => match parsed {
            Ok(node) => Ok(node),
            Err(error) => Err(Problem::error(
                place,
                format!("the value is not valid TOML: {error}"),
            )
            .help("a list is written '[\"a\", \"b\"]', a table '{ key = \"value\" }'; a plain word needs no quotes")),
        },
    }
}

fn unknown(rest: &str, path: &[String], place: &Place) -> Problem {
    let problem = Problem::error(place, "this variable names no key of the configuration");
    if path.first().is_some_and(|first| first == "routes")
        || path.starts_with(&["login".to_string(), "methods".to_string()])
    {
        return problem
            .help("a list is replaced as a whole, as in CLOAKROOM__ROUTES='[{ path = \"/\" }]'");
    }
    if path.starts_with(&["identity".to_string(), "headers".to_string()]) {
        return problem.help("the table is replaced as a whole, as in CLOAKROOM__IDENTITY__HEADERS='{ \"X-User-Id\" = \"userId\" }'");
    }
    let upper = rest.to_ascii_uppercase();
    let candidates: Vec<String> = keys::KEYS
        .iter()
        .filter(|key| !key.path.contains("[]") && !key.path.starts_with("identity.headers"))
        .map(|key| {
            let name = key.path.replace('.', "__").to_ascii_uppercase();
            match path.get(1) {
                Some(upstream) => name.replace('*', &upstream.to_ascii_uppercase()),
                None => name.replace('*', "APP"),
            }
        })
        .collect();
    match suggest::closest(&upper, candidates.iter().map(String::as_str)) {
        Some(name) => problem.help(format!("did you mean `{PREFIX}{name}`?")),
        None => problem.help(
            "names are CLOAKROOM__SECTION__KEY, with two underscores between levels, as in CLOAKROOM__SERVER__LISTEN",
        ),
    }
}
