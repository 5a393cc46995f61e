//! Users files of both kinds: no panic, places inside the file, no hash in a
//! message, and users that can be found by their names.
//!
//! `@HASH@` stands for a bcrypt hash, `@ARGON@` for one of argon2id.

use cloakroom::login::users_file::{MAX_NAME, parse};

use crate::replace;

const BCRYPT: &str = "$2y$04$UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96";
const ARGON: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$\
    aU5jJmYlKBqe1ZDhEKqLyL5lPEqAXuAMpbWM9/6tlQg";

/// Parts of the hashes that no message may hold.
const PARTS: [&str; 3] = ["UuTkLRZZ6Qof", "SjsVsyO1tDU96", "aU5jJmYlKBqe"];

pub fn run(input: &[u8]) {
    let hidden = keeps_hashes_in_place(input);
    let input = replace(input, b"@HASH@", BCRYPT.as_bytes());
    let input = replace(&input, b"@ARGON@", ARGON.as_bytes());
    let Ok(text) = std::str::from_utf8(&input) else {
        return;
    };
    match parse(text) {
        Ok(users) => {
            assert_eq!(users.is_empty(), users.iter().next().is_none());
            for user in users.iter() {
                let found = users.find(&user.name).expect("in the list, and not found");
                assert_eq!(found.identity, user.identity);
                let identity = &user.identity;
                for name in [&user.name, &identity.user]
                    .into_iter()
                    .chain(&identity.roles)
                {
                    assert!((1..=MAX_NAME).contains(&name.len()), "{name:?}");
                    assert!(!name.chars().any(char::is_control), "{name:?}");
                }
                assert!(!identity.roles.iter().any(|role| role.contains(',')));
                let shown = format!("{:?}", user.hash);
                assert!(!PARTS.iter().any(|part| shown.contains(part)));
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            let lines: Vec<&str> = text.split('\n').collect();
            for problem in problems {
                if let Some((line, column)) = problem.place {
                    let place = line.checked_sub(1).and_then(|line| lines.get(line));
                    let place = place.unwrap_or_else(|| panic!("line {line} of {}", lines.len()));
                    let characters = place.chars().count();
                    assert!(
                        (1..=characters + 1).contains(&column),
                        "{problem} of {place:?}"
                    );
                }
                let message = &problem.message;
                let told = PARTS.iter().any(|part| message.contains(part));
                assert!(!(hidden && told), "{message}");
            }
        }
    }
}

/// Whether hashes stand only where hashes belong. In the place of a name or a key
/// they are one, and names and keys are shown.
fn keeps_hashes_in_place(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let in_place = |before: &str| {
        ["password = \"", "hash = \"", ":"]
            .iter()
            .any(|key| before.ends_with(key))
    };
    let places = text
        .match_indices("@HASH@")
        .chain(text.match_indices("@ARGON@"));
    // What comparisons are made with finds its way into inputs.
    !PARTS.iter().any(|part| text.contains(part))
        && places.into_iter().all(|(at, _)| in_place(&text[..at]))
}
