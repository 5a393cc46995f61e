//! The configuration: no panic, places inside the file, and no secret in any
//! message.
//!
//! `@RANDOM@` stands for a random secret, which nothing may repeat wherever it
//! stands. `@SECRETS@` stands for a line with a secret in words, which is one
//! only there. What follows a line `%%` are variables of the environment, as
//! `NAME=value`.

use std::path::PathBuf;

use cloakroom::config::problem::Place;
use cloakroom::config::{Environment, Overrides, Problem, Source, load};

use crate::{contains, replace};

const RANDOM: &str = "Vh2zlk0Wq8VXb4mJgk5uYc1rTn7dEoPsK3xA9wQ6";
const WORDS: &str = "correct horse battery staple of mine";

pub fn run(input: &[u8]) {
    // What comparisons are made with finds its way into inputs, anywhere.
    if contains(input, &WORDS.as_bytes()[..8]) {
        return;
    }
    let input = replace(input, b"@RANDOM@", RANDOM.as_bytes());
    let line = format!("\nsecrets = [\"{WORDS}\"]\n");
    let input = replace(&input, b"@SECRETS@", line.as_bytes());
    let Ok(input) = String::from_utf8(input) else {
        return;
    };
    let (text, variables) = input.split_once("\n%%\n").unwrap_or((&input, ""));
    // No file is read that happens to have a name in an input.
    if text.contains("file") && (text.contains("/proc") || text.contains("/dev")) {
        return;
    }
    let environment: Environment = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(_, value)| !value.contains("/proc") && !value.contains("/dev"))
        // A variable is called by its name, whatever that is.
        .filter(|(name, _)| !name.contains(RANDOM))
        .collect();
    let source = Source {
        name: "cloakroom.toml".into(),
        text: text.into(),
        folder: PathBuf::from("/nonexistent"),
        readable_by_all: true,
    };
    let loaded = load(&source, &environment, &Overrides::default());
    // A string over several lines may hold that line as part of another value.
    let in_words = !text.contains(r#"""""#) && !text.contains("'''");
    let keeps_secrets = |shown: &str| {
        assert!(!shown.contains(RANDOM), "{shown}");
        assert!(!(in_words && shown.contains(WORDS)), "{shown}");
    };
    let problems = match &loaded {
        Ok((compiled, warnings)) => {
            assert!(!warnings.iter().any(Problem::is_error));
            assert!(!compiled.routes.is_empty() && !compiled.session.secrets.is_empty());
            for route in &compiled.routes {
                let denied = route.access == cloakroom::policy::Access::Deny;
                assert!(denied || route.upstream < compiled.upstreams.len());
            }
            let secrets = format!("{:?}", compiled.session);
            keeps_secrets(&secrets);
            assert!(!format!("{compiled:?}").contains(WORDS) || !in_words);
            compiled.summary().iter().for_each(|line| {
                assert!(!(in_words && line.contains(WORDS)), "{line}");
            });
            warnings
        }
        Err(problems) => {
            assert!(problems.iter().any(Problem::is_error));
            problems
        }
    };
    for problem in problems {
        if let Place::File(span) = &problem.place {
            assert!(
                span.start <= span.end && span.end <= text.len(),
                "{problem:?}"
            );
            assert!(
                text.get(span.clone()).is_some(),
                "{problem:?} in a character"
            );
        }
        if let Place::Variable(name) = &problem.place {
            assert!(environment.value(name).is_some());
        }
        assert!(
            !problem.what.is_empty() && !problem.what.contains('\n'),
            "{problem:?}"
        );
    }
    keeps_secrets(&source.render(problems, false));
}
