//! From the tree to settings: are the keys known, and is each value of its
//! type and available? Whatever is wrong is reported; what is right is kept.

use super::keys::{self, Availability, Key};
use super::problem::{Place, Problem};
use super::settings::{At, Given, Settings, default_of};
use super::suggest;
use super::tree::{Entry, Node, Value};
use super::value::{self, Context, Reading, quoted};

/// Checks each key by itself.
pub fn check(root: &[Entry], context: &Context<'_>, problems: &mut Vec<Problem>) -> Settings {
    let mut walk = Walk {
        context,
        problems,
        settings: Settings::new(context.folder),
    };
    walk.table(root, "", "");
    walk.settings
}

struct Walk<'a> {
    context: &'a Context<'a>,
    problems: &'a mut Vec<Problem>,
    settings: Settings,
}

fn join(section: &str, name: &str) -> String {
    match section {
        "" => name.to_string(),
        _ => format!("{section}.{name}"),
    }
}

impl Walk<'_> {
    /// Checks the entries of a section. `pattern` is its path in the key
    /// table, `path` its path in the file.
    fn table(&mut self, entries: &[Entry], pattern: &str, path: &str) {
        let names = keys::names_in(pattern);
        // Where the kind itself is not available, its other keys are not worth
        // a message each.
        for entry in entries.iter().filter(|entry| entry.key == "kind") {
            if let Some(key) = keys::find(&join(pattern, "kind"))
                && !self.leaf(key, entry, &join(path, "kind"))
            {
                return;
            }
        }
        for entry in entries {
            let array = format!("{}[]", entry.key);
            let name = if names.contains(&entry.key.as_str()) && entry.key != "*" {
                entry.key.as_str()
            } else if names.contains(&array.as_str()) {
                self.array(entry, &join(pattern, &array), &join(path, &entry.key));
                continue;
            } else if names.contains(&"*") {
                let name = At {
                    place: entry.key_place.clone(),
                    value: entry.key.clone(),
                };
                if pattern == "upstreams" && !self.upstream_name(&name) {
                    continue;
                }
                self.settings.name(path, name);
                "*"
            } else {
                self.unknown(entry, pattern, &names);
                continue;
            };
            let inner_pattern = join(pattern, name);
            let inner_path = join(path, &entry.key);
            match keys::find(&inner_pattern) {
                Some(_) if name == "kind" => {}
                Some(key) => {
                    self.leaf(key, entry, &inner_path);
                }
                None => self.section(entry, &inner_pattern, &inner_path),
            }
        }
    }

    fn section(&mut self, entry: &Entry, pattern: &str, path: &str) {
        self.settings
            .place_section(path.to_string(), entry.key_place.clone());
        let Value::Table(inner) = &entry.node.value else {
            let what = format!("expected a section, found {}", entry.node.value.describe());
            let problem = Problem::error(&entry.node.place, what);
            self.problems.push(problem.help(match pattern {
                "upstreams.*" => format!("write [{path}] on a line of its own, and below it urls = [\"http://127.0.0.1:3000\"]"),
                _ => format!("write [{path}] on a line of its own, and its keys below it"),
            }));
            return;
        };
        if self.refuse_section(&entry.key_place, pattern, path) {
            return;
        }
        self.table(inner, pattern, path);
    }

    fn array(&mut self, entry: &Entry, pattern: &str, path: &str) {
        self.settings
            .place_section(path.to_string(), entry.key_place.clone());
        if self.refuse_section(&entry.key_place, pattern, path) {
            return;
        }
        let tables = match &entry.node.value {
            Value::Array(items) => items,
            other => {
                let what = format!("expected a list of sections, found {}", other.describe());
                self.problems
                    .push(Problem::error(&entry.key_place, what).help(format!(
                        "write [[{path}]] with two brackets: there can be several"
                    )));
                return;
            }
        };
        for (index, item) in tables.iter().enumerate() {
            self.element(item, index, pattern, path);
        }
    }

    fn element(&mut self, item: &Node, index: usize, pattern: &str, path: &str) {
        let Value::Table(inner) = &item.value else {
            let what = format!("expected a section, found {}", item.value.describe());
            self.problems
                .push(Problem::error(&item.place, what).help(format!(
                    "write [[{path}]] on a line of its own, and its keys below it"
                )));
            return;
        };
        let element = format!("{path}[{index}]");
        self.settings
            .place_section(element.clone(), item.place.clone());
        self.settings.name(
            path,
            At {
                place: item.place.clone(),
                value: index.to_string(),
            },
        );
        self.table(inner, pattern, &element);
    }

    /// Refuses a section whose presence asks for what this version lacks.
    fn refuse_section(&mut self, place: &Place, pattern: &str, path: &str) -> bool {
        if !keys::find_section(pattern).is_some_and(|section| section.later) {
            return false;
        }
        self.problems.push(
            Problem::error(place, format!("[{path}] is not available in this version"))
                .help("remove the section"),
        );
        true
    }

    /// Checks one key. Says whether its value is of use.
    fn leaf(&mut self, key: &Key, entry: &Entry, path: &str) -> bool {
        let reading = value::read(&key.kind, &entry.node, self.context);
        let reading = match key.availability {
            Availability::Now => reading,
            Availability::Only(values) => available(key, entry, values, reading, self.context),
        };
        let fine = reading.problems.is_empty();
        self.problems.extend(reading.problems);
        self.settings.insert(
            path.to_string(),
            Given {
                place: entry.node.place.clone(),
                value: reading.value,
                faulty: !fine,
            },
        );
        fine
    }

    /// Names of upstreams appear in metrics, logs and variables.
    fn upstream_name(&mut self, name: &At<String>) -> bool {
        let fine = !name.value.is_empty()
            && name.value.len() <= 64
            && name
                .value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !fine {
            self.problems.push(
                Problem::error(
                    &name.place,
                    format!("{} is not a name for an upstream", quoted(&name.value)),
                )
                .help("use letters, digits, `-` and `_`, as in [upstreams.app]"),
            );
        }
        fine
    }

    fn unknown(&mut self, entry: &Entry, pattern: &str, names: &[&str]) {
        let is_table = matches!(entry.node.value, Value::Table(_));
        let what = match (pattern, is_table) {
            ("", true) => format!("unknown section [{}]", shown(&entry.key)),
            ("", false) => format!("unknown key `{}` outside of any section", shown(&entry.key)),
            _ => format!(
                "unknown key `{}` in [{}]",
                shown(&entry.key),
                plain(pattern)
            ),
        };
        let problem = Problem::error(&entry.key_place, what);
        let bare = || names.iter().map(|name| name.trim_end_matches("[]"));
        let homes: Vec<String> = keys::KEYS
            .iter()
            .map(Key::split)
            .filter(|(section, name)| {
                *name == entry.key && *section != pattern && !section.starts_with("server.tls")
            })
            .map(|(section, _)| bracketed(section))
            .collect();
        let help = if let Some(name) = suggest::closest(&entry.key, bare()) {
            format!("did you mean `{name}`?")
        } else if !homes.is_empty() && homes.len() <= 3 {
            format!("`{}` belongs below {}", entry.key, homes.join(" or "))
        } else {
            let kind = if pattern.is_empty() {
                "sections"
            } else {
                "keys"
            };
            format!(
                "the {kind} here are {}",
                bare().collect::<Vec<_>>().join(", ")
            )
        };
        self.problems.push(problem.help(help));
    }
}

/// Whether this version can do what the value asks for.
fn available(
    key: &Key,
    entry: &Entry,
    values: &[&str],
    reading: Reading,
    context: &Context<'_>,
) -> Reading {
    let mut allowed: Vec<&str> = values.to_vec();
    allowed.extend(key.default.filter(|default| !values.contains(default)));
    if reading.problems.is_empty() {
        let fine = allowed
            .iter()
            .any(|text| default_of(&key.kind, text, context.folder).ok() == reading.value);
        if fine {
            return reading;
        }
    } else if !values.is_empty() {
        return reading;
    }
    let (_, name) = key.split();
    let what = match values {
        [] => format!("`{name}` is not available in this version"),
        _ => format!("this value of `{name}` is not available in this version"),
    };
    let lines: Vec<String> = allowed
        .iter()
        .map(|value| format!("`{name} = {value}`"))
        .collect();
    let help = match (allowed.as_slice(), key.default) {
        ([], _) => "remove the line".to_string(),
        (_, Some(_)) => format!("remove the line, or write {}", lines.join(" or ")),
        (_, None) => format!("write {}", lines.join(" or ")),
    };
    Reading {
        value: None,
        problems: vec![Problem::error(&entry.node.place, what).help(help)],
    }
}

fn shown(key: &str) -> String {
    quoted(key).trim_matches('"').to_string()
}

/// A section of the key table as people write it.
pub fn plain(pattern: &str) -> String {
    pattern.replace("[]", "").replace(".*", ".NAME")
}

/// The same with the brackets of its header.
pub fn bracketed(pattern: &str) -> String {
    match pattern.strip_suffix("[]") {
        Some(array) => format!("[[{}]]", plain(array)),
        None => format!("[{}]", plain(pattern)),
    }
}
