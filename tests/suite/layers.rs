//! The direction of imports, which one crate has no other guard for.
//!
//! A file may name lower layers and its own folder; two layers of the same
//! height do not know each other; only `app` and `cli` know everything.

use std::fs;
use std::path::{Path, PathBuf};

/// The height of each layer. `lib.rs` and `main.rs` only name the parts.
const LAYERS: &[(&str, u32)] = &[
    ("base", 0),
    ("wire", 1),
    ("session", 2),
    ("login", 2),
    ("policy", 3),
    ("upstream", 4),
    ("proxy", 5),
    ("server", 6),
    ("config", 7),
    ("admin", 7),
    ("app", 8),
    ("cli", 8),
];

/// The layers that may name all others.
const TOP: u32 = 8;

/// The most lines that a file may have, its tests aside.
const LONGEST: usize = 450;

#[test]
fn imports_point_downwards() {
    let files = sources();
    let wrong: Vec<_> = files
        .iter()
        .flat_map(|(path, text)| wrong_imports(path, text))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_short() {
    let too_long = |(path, text): &(PathBuf, String)| {
        let lines = production(text)
            .lines()
            .filter(|line| *line != REMOVED)
            .count();
        (lines > LONGEST && !is_test(path)).then(|| format!("{}: {lines} lines", path.display()))
    };
    let long: Vec<_> = sources().iter().filter_map(too_long).collect();
    assert!(
        long.is_empty(),
        "over {LONGEST} lines:\n{}",
        long.join("\n")
    );
}

/// Every source file, by its path below `src`.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(files.len() > 10, "only {} source files found", files.len());
    files.sort();
    files
}

fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "tests.rs")
        || path.components().any(|c| c.as_os_str() == "tests")
}

fn height(layer: &str) -> Option<u32> {
    LAYERS
        .iter()
        .find(|(name, _)| *name == layer)
        .map(|(_, height)| *height)
}

/// What is wrong with the imports of a file, one line each.
fn wrong_imports(path: &Path, text: &str) -> Vec<String> {
    let names: Vec<_> = path
        .iter()
        .map(|c| c.to_string_lossy().into_owned())
        .collect();
    if is_test(path) || matches!(names[0].as_str(), "lib.rs" | "main.rs") {
        return Vec::new();
    }
    let own = names[0].trim_end_matches(".rs");
    let Some(own_height) = height(own) else {
        return vec![format!(
            "{}: `{own}` has no place among the layers",
            path.display()
        )];
    };
    let mut wrong = Vec::new();
    for (number, other) in named_layers(path, &production(text)) {
        let allowed = other == own
            || match height(&other) {
                Some(height) => height < own_height || own_height == TOP,
                // Not a layer: a macro or an item at the root of the crate.
                None => false,
            };
        if !allowed {
            wrong.push(format!(
                "src/{}:{number}: `{own}` names `{other}`",
                path.display()
            ));
        }
    }
    wrong
}

/// The first names of all paths that begin at the root of the crate, with their
/// lines, counted from 1.
fn named_layers(path: &Path, code: &str) -> Vec<(usize, String)> {
    // `src/a.rs` and `src/a/mod.rs` are one step below the root, `src/a/b.rs` two.
    let last_is_module = path.file_name().is_some_and(|name| name != "mod.rs");
    let depth = path.components().count() - usize::from(!last_is_module);
    let from_depth = vec!["super"; depth].join("::");
    let mut found = Vec::new();
    for start in ["crate", from_depth.as_str()] {
        for (at, _) in code.match_indices(&format!("{start}::")) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + start.len() + 2..];
            found.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// `a` of `a::b`; `a` and `c` of `{a::b, c::{d, e}}`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let part = text.trim_start().trim_start_matches("r#");
        part.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = rest.trim_start().strip_prefix('{') else {
        return vec![name(rest)];
    };
    let mut names = Vec::new();
    let (mut level, mut begin) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => level += 1,
            '}' if level > 0 => level -= 1,
            ',' | '}' if level == 0 => {
                names.push(name(&group[begin..at]));
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// What stands in place of a line of a test.
const REMOVED: &str = "\u{0}";

/// The code without what is only compiled for tests. Comments and the contents
/// of strings are blank, so that nothing in them is taken for code; the number
/// of lines stays.
fn production(text: &str) -> String {
    let mut code = blank(text);
    while let Some(begin) = code
        .find("#[cfg(test)]")
        .or_else(|| code.find("#[cfg(all(test"))
    {
        let end = begin + item_length(&code[begin..]);
        let lines = code[begin..end].matches('\n').count();
        let mut gap = REMOVED.to_owned();
        gap.push_str(&format!("\n{REMOVED}").repeat(lines));
        code.replace_range(begin..end, &gap);
    }
    code
}

/// How long an item with its attributes is: to its `;`, or its closing brace.
fn item_length(code: &str) -> usize {
    let (mut braces, mut brackets) = (0, 0);
    for (at, c) in code.char_indices() {
        match c {
            '[' | '(' => brackets += 1,
            ']' | ')' => brackets -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        let ends = (c == ';' && brackets == 0) || c == '}';
        if ends && braces == 0 {
            return at + c.len_utf8();
        }
    }
    code.len()
}

/// Replaces comments and the contents of literals by spaces.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = literal_length(rest, out.chars().next_back());
        let (piece, after) = rest.split_at(length.unwrap_or(c.len_utf8()));
        match length {
            Some(_) => out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
            None => out.push(c),
        }
        rest = after;
    }
    out
}

/// The length of the comment, string or character that begins here.
fn literal_length(text: &str, before: Option<char>) -> Option<usize> {
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        let mut level = 0;
        for (at, _) in text.char_indices() {
            if text[at..].starts_with("/*") {
                level += 1;
            } else if text[at..].starts_with("*/") {
                level -= 1;
                if level == 0 {
                    return Some(at + 2);
                }
            }
        }
        return Some(text.len());
    }
    if text.starts_with('"') {
        return Some(quoted_length(text, '"'));
    }
    if let Some(after) = text
        .strip_prefix('r')
        .filter(|_| !in_word || before == Some('b'))
    {
        let hashes = after.len() - after.trim_start_matches('#').len();
        if after[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = 1 + hashes + 1;
            return Some(
                text[body..]
                    .find(&end)
                    .map_or(text.len(), |at| body + at + end.len()),
            );
        }
    }
    if let Some(after) = text.strip_prefix('\'') {
        // `'a'` and `'\n'` are characters, `'a` is a lifetime.
        let mut chars = after.chars();
        let (first, second) = (chars.next()?, chars.next()?);
        return (first == '\\' || second == '\'').then(|| quoted_length(text, '\''));
    }
    None
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[test]
fn an_upward_import_is_found() {
    let wrong = |path: &str, text: &str| wrong_imports(Path::new(path), text).len();
    assert_eq!(wrong("wire/hop.rs", "use crate::base::secret::Secret;"), 0);
    assert_eq!(wrong("wire/hop.rs", "use crate::wire::target;"), 0);
    assert_eq!(wrong("wire/hop.rs", "use crate::policy::Route;"), 1);
    assert_eq!(
        wrong(
            "wire/hop.rs",
            "use crate::{base::clock, proxy::{a, b}, login};"
        ),
        2
    );
    assert_eq!(
        wrong("wire/hop.rs", "fn f() -> crate::server::X { todo() }"),
        1
    );
    assert_eq!(wrong("wire/hop.rs", "use super::super::policy::Route;"), 1);
    assert_eq!(
        wrong(
            "session/store/file.rs",
            "use super::super::super::login::X;"
        ),
        1
    );
    assert_eq!(
        wrong("session/store/file.rs", "use super::super::record;"),
        0
    );
    assert_eq!(wrong("session/mod.rs", "use super::login::X;"), 1);
    assert_eq!(wrong("session/data.rs", "use crate::login::Outcome;"), 1);
    assert_eq!(wrong("admin/mod.rs", "use crate::config::File;"), 1);
    assert_eq!(wrong("server/serve.rs", "use crate::config::File;"), 1);
    assert_eq!(
        wrong("app.rs", "use crate::{cli::Run, config::File, base};"),
        0
    );
    assert_eq!(wrong("cli/run.rs", "use crate::app;"), 0);
    assert_eq!(wrong("elsewhere/x.rs", ""), 1);
}

#[test]
fn tests_comments_and_strings_are_no_imports() {
    let text = r##"
        // use crate::proxy::X;
        /* crate::proxy /* nested crate::proxy:: */ crate::proxy::Y */
        const A: &str = "crate::proxy::Z \" crate::proxy::Z";
        const B: &str = r#"crate::proxy::Z " "#;
        const C: char = '"';
        fn f<'a>(x: &'a str) -> &'a str { x }
        #[cfg(test)]
        mod tests {
            use crate::proxy::T;
            fn g() { { } }
        }
        #[cfg(test)]
        use crate::proxy::U;
    "##;
    assert_eq!(
        wrong_imports(Path::new("wire/x.rs"), text),
        Vec::<String>::new()
    );
    let after = format!("{text}\nuse crate::proxy::V;");
    assert_eq!(
        wrong_imports(Path::new("wire/x.rs"), &after),
        ["src/wire/x.rs:16: `wire` names `proxy`"]
    );
}
