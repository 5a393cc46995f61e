//! Layer 7: the one TOML file: found, read, checked and compiled.
//!
//! [`keys`] is the table of every key; [`tree`] and [`environment`] read;
//! [`shape`] checks each key by itself; [`compile`] checks what must fit
//! together and fills in the defaults. All problems are collected, so that one
//! run shows all of them ([`problem`]).

pub mod compile;
pub mod compiled;
pub mod environment;
pub mod keys;
pub mod locate;
pub mod mask;
pub mod problem;
pub mod reference;
pub mod schema;
pub mod settings;
pub mod shape;
pub mod suggest;
pub mod tree;
pub mod value;

#[cfg(test)]
mod tests;

pub use compiled::Compiled;
pub use environment::Environment;
pub use locate::locate;
pub use problem::{Problem, Severity};

use std::path::{Path, PathBuf};

use crate::base::secret::Secret;
use problem::Place;
use tree::{Node, Value};
use value::Context;

/// A configuration as text, and what it is called.
#[derive(Clone, Debug)]
pub struct Source {
    /// How messages call it.
    pub name: String,
    /// The TOML.
    pub text: String,
    /// The folder from which its relative paths are counted.
    pub folder: PathBuf,
    /// Whether others than the owner and its group may read the file.
    pub readable_by_all: bool,
}

/// More is not a configuration.
const LARGEST: u64 = 4 << 20;

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// It cannot be read, is too large, or is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        use std::io::Read;
        use std::os::unix::fs::PermissionsExt;
        let fail = |reason: String, help: &str| {
            Problem::error(&Place::Whole, format!("this file cannot be read: {reason}")).help(help)
        };
        let check = "check the path, and that Cloakroom's user may read the file";
        let plain = |error: std::io::Error| fail(value::secret::plain_reason(&error), check);
        let file = std::fs::File::open(path).map_err(plain)?;
        let metadata = file.metadata().map_err(plain)?;
        if metadata.is_dir() {
            return Err(fail("it is a folder".into(), "name the file in it"));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(plain)?;
        if bytes.len() as u64 > LARGEST {
            return Err(fail("it is larger than 4 MiB".into(), check));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let line = error
                .as_bytes()
                .iter()
                .take(at)
                .filter(|b| **b == b'\n')
                .count()
                + 1;
            fail(
                format!("line {line} is not UTF-8"),
                "save the file as UTF-8",
            )
        })?;
        Ok(Self {
            name: path.display().to_string(),
            text,
            folder: path.parent().map(Path::to_path_buf).unwrap_or_default(),
            readable_by_all: metadata.permissions().mode() & 0o004 != 0,
        })
    }

    /// A configuration that is not a file. Relative paths are counted from the
    /// current folder.
    pub fn inline(name: &str, text: &str) -> Self {
        Self {
            name: name.to_string(),
            text: text.to_string(),
            folder: PathBuf::new(),
            readable_by_all: false,
        }
    }

    /// Problems of this source as text.
    pub fn render(&self, problems: &[Problem], colour: bool) -> String {
        problem::render(problems, &self.name, &self.text, colour)
    }
}

/// What the command line says, which counts more than anything else.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--listen ADDR`, which replaces `server.listen`.
    pub listen: Vec<String>,
    /// `--upstream URL`, which replaces the URL of the only upstream, or makes
    /// one called `app`.
    pub upstream: Option<String>,
    /// A secret for where the configuration has none.
    pub fallback_secret: Option<Secret>,
}

/// A configuration that can be run, and its warnings.
pub type Loaded = (Compiled, Vec<Problem>);

/// Reads, checks and compiles. A key on the command line counts before one in
/// the environment, and that before the file.
///
/// # Errors
///
/// Every problem, warnings included, in the order of the file; at least one of
/// them is an error.
pub fn load(
    source: &Source,
    environment: &Environment,
    overrides: &Overrides,
) -> Result<Loaded, Vec<Problem>> {
    let (mut root, mut problems) = tree::parse_file(&source.text);
    let readable = problems.is_empty();
    environment::apply(environment, &mut root, &mut problems);
    apply_overrides(overrides, &mut root, &mut problems);

    let context = Context {
        folder: &source.folder,
        environment: Some(environment),
    };
    let mut found = Vec::new();
    let settings = shape::check(&root, &context, &mut found);
    if !readable {
        // What stands beside a violation of the syntax may have been read as
        // something else than was meant, and what is missing may only be out
        // of reach.
        found.retain(|problem| !shares_a_line(problem, &problems, &source.text));
        problems.append(&mut found);
        problem::sort(&mut problems);
        return Err(problems);
    }
    problems.append(&mut found);

    let compiled = compile::compile(
        &settings,
        &compile::Surroundings {
            fallback_secret: overrides.fallback_secret.as_ref(),
            readable_by_all: source.readable_by_all,
            inline_secret: compile::has_inline_secret(&root),
        },
        &mut problems,
    );
    problem::sort(&mut problems);
    match compiled {
        Some(compiled) if !problems.iter().any(Problem::is_error) => Ok((compiled, problems)),
        _ => Err(problems),
    }
}

fn apply_overrides(
    overrides: &Overrides,
    root: &mut Vec<tree::Entry>,
    problems: &mut Vec<Problem>,
) {
    let path = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let list = |place: &Place, items: &[String]| Node {
        place: place.clone(),
        value: Value::Array(
            items
                .iter()
                .map(|item| Node {
                    place: place.clone(),
                    value: Value::String(item.clone()),
                })
                .collect(),
        ),
    };
    if !overrides.listen.is_empty() {
        let node = list(&Place::Option("--listen"), &overrides.listen);
        environment::set(root, &path(&["server", "listen"]), node);
    }
    if let Some(url) = &overrides.upstream {
        let place = Place::Option("--upstream");
        let names: Vec<String> = root
            .iter()
            .filter(|entry| entry.key == "upstreams")
            .flat_map(|entry| match &entry.node.value {
                Value::Table(upstreams) => upstreams.iter().map(|u| u.key.clone()).collect(),
                _ => Vec::new(),
            })
            .collect();
        let name = match names.as_slice() {
            [] => "app",
            [name] => name,
            _ => {
                let what = format!(
                    "the configuration has several upstreams ({}), so it is unclear which one is meant",
                    names.join(", ")
                );
                problems.push(Problem::error(&place, what).help(
                    "set the one that is meant in the environment, as in CLOAKROOM__UPSTREAMS__APP__URLS='[\"http://127.0.0.1:3000\"]'",
                ));
                return;
            }
        };
        let node = list(&place, std::slice::from_ref(url));
        environment::set(root, &path(&["upstreams", name, "urls"]), node);
    }
}

fn shares_a_line(problem: &Problem, others: &[Problem], text: &str) -> bool {
    let line = |problem: &Problem| match &problem.place {
        Place::File(span) => text
            .as_bytes()
            .get(..span.start.min(text.len()))
            .map(|before| before.iter().filter(|b| **b == b'\n').count()),
        _ => None,
    };
    let here = line(problem);
    here.is_some() && others.iter().any(|other| line(other) == here)
}
