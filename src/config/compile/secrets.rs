//! Which secrets are fit to sign sessions.

use super::Surroundings;
use crate::base::secret::Secret;
use crate::config::problem::Problem;
use crate::config::settings::{At, Defect, Settings};
use crate::config::value::secret::HOW_TO_MAKE;

/// The fewest bytes of a secret.
pub const SHORTEST_SECRET: usize = 32;

/// Secrets that stand in documentation everywhere, so that they are none.
/// Compared without regard to case, blanks, `-`, `_` and `.`; one of them
/// repeated several times is refused as well. There is no guessing beyond
/// this list.
pub const PLACEHOLDERS: &[&str] = &[
    "secret",
    "mysecret",
    "yoursecret",
    "yoursecrethere",
    "yoursecretkey",
    "sessionsecret",
    "supersecret",
    "supersecretkey",
    "secretkey",
    "topsecret",
    "keyboardcat",
    "changeme",
    "changethis",
    "changemeinproduction",
    "changethissecret",
    "replaceme",
    "replacethis",
    "replacewitharandomsecret",
    "replacethiswithalongrandomsecret",
    "alongrandomsecret",
    "averylongrandomstring",
    "averylongsecretthatnobodycanguess",
    "atleast32byteslong",
    "thisisasecret",
    "thisisnotasecret",
    "notasecret",
    "insecure",
    "default",
    "example",
    "development",
    "password",
    "test",
    "testing",
    "foobar",
    "todo",
    "0123456789",
    "1234567890",
    "0123456789abcdef",
    "abcdefghijklmnopqrstuvwxyz",
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "12345678901234567890123456789012",
    "00000000",
    "xxxxxxxx",
    "aaaaaaaa",
];

/// Compiles `session.secrets`. Empty only beside an error.
pub fn compile(
    settings: &Settings,
    surroundings: &Surroundings<'_>,
    problems: &mut Vec<Problem>,
) -> Result<Vec<Secret>, Defect> {
    let session = settings.section("session", "session");
    let place = session.place("secrets");
    let Some(given) = session.optional::<Vec<At<Secret>>>("secrets")? else {
        if session.is_faulty("secrets") {
            return Ok(Vec::new());
        }
        if let Some(secret) = surroundings.fallback_secret {
            return Ok(vec![secret.clone()]);
        }
        problems.push(
            Problem::error(&place, "there is no session secret")
                .why("session cookies are signed with it; it must be the same on every replica and after every restart")
                .help("add secrets = [ { env = \"CLOAKROOM_SECRET\" } ] to [session], and set that variable to the output of `openssl rand -base64 32`"),
        );
        return Ok(Vec::new());
    };
    if given.is_empty() && !session.is_faulty("secrets") {
        problems.push(
            Problem::error(&place, "the list of session secrets is empty").help(
                "write secrets = [ { env = \"CLOAKROOM_SECRET\" } ], and set that variable to the output of `openssl rand -base64 32`",
            ),
        );
    }
    for (index, at) in given.iter().enumerate() {
        problems.extend(judge(at));
        let earlier = given.get(..index).unwrap_or_default();
        if earlier.iter().any(|other| other.value == at.value) {
            problems.push(
                Problem::error(&at.place, "this secret stands in the list twice")
                    .help("remove one of the two"),
            );
        }
    }
    if surroundings.readable_by_all && surroundings.inline_secret {
        problems.push(
            Problem::warning(&place, "everybody on this machine can read this file, and a secret stands in it")
                .help("make the file readable by Cloakroom's user only (chmod 600), or move the secret to { file = \"/run/secrets/name\" }"),
        );
    }
    Ok(given.into_iter().map(|at| at.value).collect())
}

fn judge(at: &At<Secret>) -> Option<Problem> {
    if is_placeholder(at.value.expose()) {
        return Some(
            Problem::error(&at.place, "this secret is a well-known placeholder")
                .why("whoever knows the secret can sign session cookies, and everybody knows this one")
                .help(HOW_TO_MAKE),
        );
    }
    if at.value.len() < SHORTEST_SECRET {
        let what = format!(
            "this secret is {} bytes long, and {SHORTEST_SECRET} are needed",
            at.value.len()
        );
        return Some(
            Problem::error(&at.place, what)
                .why("a short secret can be found by trying, and then anybody's session be forged")
                .help(HOW_TO_MAKE),
        );
    }
    None
}

fn is_placeholder(secret: &[u8]) -> bool {
    let plain: zeroize::Zeroizing<Vec<u8>> = secret
        .iter()
        .filter(|b| !b" -_.\t".contains(b))
        .map(u8::to_ascii_lowercase)
        .collect::<Vec<u8>>()
        .into();
    PLACEHOLDERS.iter().any(|known| {
        let known = known.as_bytes();
        !plain.is_empty()
            && plain
                .chunks(known.len())
                .all(|piece| known.starts_with(piece))
            && plain.len() >= known.len()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_known_in_any_spelling() {
        for text in [
            "keyboard cat",
            "CHANGE-ME",
            "change_me-change_me-change_me-change_me",
            "0123456789abcdef0123456789abcdef",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "Secret.Secret",
        ] {
            assert!(is_placeholder(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "s",
            "secretive",
            "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmE=",
        ] {
            assert!(!is_placeholder(text.as_bytes()), "{text}");
        }
    }
}
