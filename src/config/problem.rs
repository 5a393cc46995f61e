//! What is wrong with a configuration, where, why, and how to mend it.
//!
//! The first line of a rendered problem is made for machines as well as for
//! people: `cloakroom.toml:12:9: error: …`. Below it stand the line of the
//! file with a caret, the reason and the fix. Secrets are masked.

use std::cmp::Ordering;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::mask;

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// These bytes of the file.
    File(Range<usize>),
    /// The environment variable of this name.
    Variable(String),
    /// This option of the command line, with its dashes.
    Option(&'static str),
    /// The file as a whole, or nowhere: a default, or something that is
    /// missing.
    Whole,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Cloakroom does not start with this.
    Error,
    /// It starts, but this usually goes wrong.
    Warning,
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Where it is.
    pub place: Place,
    /// What is wrong, in one line without a full stop. Holds no secret.
    pub what: String,
    /// Why it cannot work, where that is not plain.
    pub why: Option<String>,
    /// How to mend it.
    pub help: Option<String>,
}

impl Problem {
    /// An error at a place.
    pub fn error(place: &Place, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place: place.clone(),
            what: what.into(),
            why: None,
            help: None,
        }
    }

    /// A warning at a place.
    pub fn warning(place: &Place, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(place, what)
        }
    }

    /// The same with the reason.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// The same with the way to mend it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether Cloakroom refuses to start with it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Puts problems into the order of the file; then those of the environment and
/// the command line, then those of the whole.
pub fn sort(problems: &mut [Problem]) {
    problems.sort_by(|a, b| compare(&a.place, &b.place));
}

fn compare(a: &Place, b: &Place) -> Ordering {
    fn rank(place: &Place) -> (u8, usize, &str) {
        match place {
            Place::File(span) => (0, span.start, ""),
            Place::Variable(name) => (1, 0, name),
            Place::Option(name) => (2, 0, name),
            Place::Whole => (3, 0, ""),
        }
    }
    rank(a).cmp(&rank(b))
}

/// All problems as text, with an empty line between two, and one at the end of
/// each. `name` is how the file is called, `text` what it holds.
pub fn render(problems: &[Problem], name: &str, text: &str, colour: bool) -> String {
    let masked = mask::mask(text);
    let renderer = match colour {
        true => Renderer::styled(),
        false => Renderer::plain(),
    }
    .decor_style(DecorStyle::Ascii);
    let mut out = String::new();
    for problem in problems {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&render_one(problem, name, &masked, &renderer));
        out.push('\n');
    }
    out
}

/// How the place of a problem is written: `cloakroom.toml:12:9`, the variable's
/// name, the option, or the file's name alone.
pub fn locate(place: &Place, name: &str, text: &str) -> String {
    match place {
        Place::File(span) => {
            let (line, column) = position(text, span.start);
            format!("{name}:{line}:{column}")
        }
        Place::Variable(variable) => variable.clone(),
        Place::Option(option) => (*option).to_string(),
        Place::Whole => name.to_string(),
    }
}

fn render_one(problem: &Problem, name: &str, masked: &str, renderer: &Renderer) -> String {
    let (level, word) = match problem.severity {
        Severity::Error => (Level::ERROR, "error"),
        Severity::Warning => (Level::WARNING, "warning"),
    };
    let title = format!("{}: {word}", locate(&problem.place, name, masked));
    let mut group = Group::with_title(
        level
            .with_name(title)
            .primary_title(mask::mask_random(&problem.what)),
    );
    if let Place::File(span) = &problem.place {
        let span = first_line(masked, span);
        group =
            group.element(Snippet::source(masked).annotation(AnnotationKind::Primary.span(span)));
    }
    if let Some(why) = &problem.why {
        group = group.element(Level::NOTE.message(mask::mask_random(why)));
    }
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(mask::mask_random(help)));
    }
    // Trailing blanks would make recorded output brittle.
    renderer
        .render(&[group])
        .lines()
        .map(str::trim_end)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The part of a span that lies on its first line, inside the text and on
/// character boundaries.
fn first_line(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = floor(text, span.start);
    let end = floor(text, span.end).max(start);
    let shown = text
        .get(start..end)
        .and_then(|part| part.split(['\n', '\r']).next())
        .map_or(0, str::len);
    start..start + shown
}

/// Line and column, both from 1; the column counts characters.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..floor(text, at)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default();
    (line, column.chars().count() + 1)
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_for_machines() {
        let text = "[server]\nworker = 3\n";
        let problem = Problem::error(&Place::File(9..15), "unknown key `worker`")
            .why("there is no such key")
            .help("did you mean `workers`?");
        assert_eq!(
            render(&[problem], "cloakroom.toml", text, false),
            "cloakroom.toml:2:1: error: unknown key `worker`\n  |\n2 | worker = 3\n  | ^^^^^^\n  |\n  \
             = note: there is no such key\n  = help: did you mean `workers`?\n"
        );
    }

    #[test]
    fn columns_count_characters_and_odd_spans_are_harmless() {
        assert_eq!(position("é = 1", 3), (1, 3));
        assert_eq!(position("é", 1), (1, 1));
        for span in [0..99, 50..60, 1..2] {
            let problem = Problem::error(&Place::File(span), "x");
            assert!(render(&[problem], "f", "é\n\n", false).starts_with("f:"));
        }
    }

    #[test]
    fn the_order_is_that_of_the_file() {
        let mut problems = vec![
            Problem::error(&Place::Whole, "d"),
            Problem::error(&Place::Variable("V".into()), "c"),
            Problem::warning(&Place::File(9..10), "b"),
            Problem::error(&Place::File(1..2), "a"),
        ];
        sort(&mut problems);
        let order: String = problems.iter().map(|p| p.what.as_str()).collect();
        assert_eq!(order, "abcd");
    }
}
