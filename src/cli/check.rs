//! `cloakroom check`: every problem of the configuration, and nothing else.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::problem::Place;
use crate::config::{self, Environment, Overrides, Problem, Source, locate};
use crate::server::tls;

/// Checks the configuration. Problems go to standard error, the verdict to
/// standard output. Exit code 0 if Cloakroom would start with it, warnings or
/// not; else 1.
///
/// # Errors
///
/// The output cannot be written.
pub fn run(file: Option<&Path>, environment: &Environment) -> io::Result<ExitCode> {
    let colour = io::stderr().is_terminal() && environment.value("NO_COLOR").is_none();
    let report = check(file, environment, colour);
    io::stderr().lock().write_all(report.problems.as_bytes())?;
    writeln!(io::stdout().lock(), "{}", report.verdict)?;
    Ok(match report.fine {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

struct Report {
    problems: String,
    verdict: String,
    fine: bool,
}

fn check(file: Option<&Path>, environment: &Environment, colour: bool) -> Report {
    let source = match locate(file, environment) {
        None => {
            return Report {
                problems: String::new(),
                verdict: no_file(),
                fine: false,
            };
        }
        Some(path) => Source::read(&path).map_err(|problem| {
            config::problem::render(&[problem], &path.display().to_string(), "", colour)
        }),
    };
    let source = match source {
        Ok(source) => source,
        Err(problems) => {
            return Report {
                problems,
                verdict: "the configuration cannot be read".into(),
                fine: false,
            };
        }
    };
    let (problems, fine) = match config::load(&source, environment, &Overrides::default()) {
        Ok((compiled, mut problems)) => {
            let tls = compiled.server.tls.as_ref().map(tls::check);
            let faults = tls.and_then(Result::err).into_iter();
            let faults: Vec<_> = faults.map(|f| Problem::error(&Place::Whole, f)).collect();
            let fine = faults.is_empty();
            problems.extend(faults);
            (problems, fine)
        }
        Err(problems) => (problems, false),
    };
    Report {
        problems: source.render(&problems, colour),
        verdict: verdict(&source.name, &problems),
        fine,
    }
}

/// What is said where nobody named a file and none is at the usual places.
pub fn no_file() -> String {
    format!(
        "no configuration: there is no {}; name the file with -c FILE or in ${}",
        locate::PLACES.join(" and no "),
        locate::VARIABLE
    )
}

fn verdict(name: &str, problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.is_error()).count();
    let warnings = problems.len() - errors;
    let count = |number: usize, word: &str| match number {
        1 => format!("1 {word}"),
        _ => format!("{number} {word}s"),
    };
    match (errors, warnings) {
        (0, 0) => format!("{name}: fine"),
        (0, _) => format!("{name}: fine, with {}", count(warnings, "warning")),
        (_, 0) => format!("{name}: {}", count(errors, "error")),
        _ => format!(
            "{name}: {} and {}",
            count(errors, "error"),
            count(warnings, "warning")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Report {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cloakroom.toml");
        std::fs::write(&path, text).unwrap();
        let environment = [("CLOAKROOM_SECRET", "Vh2zlk0Wq8VXb4mJgk5uYc1rTn7dEoPs")];
        check(Some(&path), &environment.into_iter().collect(), false)
    }

    const FINE: &str = "[upstreams.app]\nurls = [\"http://127.0.0.1:3000\"]\n\
         [session]\nsecrets = [ { env = \"CLOAKROOM_SECRET\" } ]\n\
         [[routes]]\naccess = \"public\"\n";

    #[test]
    fn a_fine_file_has_no_output_but_the_verdict() {
        let report = checked(FINE);
        assert!(report.fine, "{}", report.problems);
        assert_eq!(report.problems, "");
        assert!(report.verdict.ends_with("cloakroom.toml: fine"));
    }

    #[test]
    fn warnings_are_shown_and_counted_and_no_reason_to_fail() {
        let report = checked(&format!("{FINE}[csrf]\nmode = \"off\"\n"));
        assert!(report.fine);
        assert!(report.problems.contains(":8:8: warning: "));
        assert!(report.verdict.ends_with("fine, with 1 warning"));
    }

    #[test]
    fn errors_fail() {
        let report = checked("[servr]\n");
        assert!(!report.fine);
        assert!(report.problems.contains("did you mean `server`?"));
        assert!(report.verdict.contains("errors"), "{}", report.verdict);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let report = check(
            Some(Path::new("/nowhere/c.toml")),
            &Environment::default(),
            false,
        );
        assert!(!report.fine);
        assert!(report.problems.starts_with("/nowhere/c.toml: error: "));
    }
}
