//! htpasswd files: one `name:hash` a line, as Apache and nginx read them.
//!
//! Only bcrypt hashes are taken (`htpasswd -B`); every other kind is an error
//! of its line. Comments begin with `#`. A third field (`name:hash:comment`,
//! as nginx allows it) is ignored.

use super::password::hash::Hash;
use super::users_file::{Problem, User, Users};

/// Whether a file that is given as either TOML or htpasswd is the latter: its
/// first line that says anything is `name:…`, where TOML would have a table's
/// head or `key = value`.
pub fn is_htpasswd(text: &str) -> bool {
    let first = text
        .trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim_start)
        .find(|line| !line.is_empty() && !line.starts_with('#'));
    let Some(line) = first else {
        return false;
    };
    if line.starts_with('[') {
        return false;
    }
    match (line.find(':'), line.find('=')) {
        (Some(colon), Some(equals)) => colon < equals || line.contains(":$2"),
        (colon, _) => colon.is_some(),
    }
}

/// Reads an htpasswd file.
///
/// # Errors
///
/// Every line that is not one of a user, with what to do about it.
pub fn parse(text: &str) -> Result<Users, Vec<Problem>> {
    let mut users = Users::default();
    let mut problems = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_end_matches([' ', '\t', '\r']);
        if line.trim_start().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let number = index.saturating_add(1);
        let Some((name, rest)) = line.split_once(':') else {
            problems.push(Problem::at(
                number,
                1,
                "there is no `:` between name and hash",
            ));
            continue;
        };
        let text = rest.split(':').next().unwrap_or(rest);
        let column = name.chars().count().saturating_add(2);
        let user = match Hash::parse(text) {
            Ok(hash) => User::named(name, hash),
            Err(message) => {
                problems.push(Problem::at(number, column, message));
                continue;
            }
        };
        if let Err(message) = user.and_then(|user| users.add(user, number)) {
            problems.push(Problem::at(number, 1, message));
        }
    }
    if problems.is_empty() {
        Ok(users)
    } else {
        Err(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;

    const HASH: &str = "$2y$04$UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96";

    #[test]
    fn the_two_formats_are_told_apart_by_the_first_line() {
        for text in [
            "bob:$2y$04$abc",
            "# users\n\n  \nbob:{SHA}abc=\n",
            "a=b:$2y$04$abc",
            "\u{feff}bob:x",
        ] {
            assert!(is_htpasswd(text), "{text:?}");
        }
        for text in [
            "",
            "# nothing: here\n",
            "[[user]]\nname = \"a:b\"",
            "user = [ { name = \"a:b\" } ]",
            "broken toml",
            "\u{feff}[[user]]",
        ] {
            assert!(!is_htpasswd(text), "{text:?}");
        }
    }

    #[test]
    fn comments_blank_lines_and_line_ends_are_of_no_matter() {
        let text =
            format!("\u{feff}# staff\r\n\r\nbob:{HASH}\r\n  # more\nal ice:{HASH}:Alice  \n");
        let users = parse(&text).unwrap();
        assert_eq!(users.len(), 2);
        let alice = users.find("al ice").unwrap();
        assert_eq!(alice.identity.user, "al ice");
        assert!(alice.identity.roles.is_empty());
        assert_eq!(alice.identity.claims.get("name"), Some(&"al ice".into()));
        assert!(alice.hash.verify(&Secret::new("password")).unwrap());
        assert!(users.find("Bob").is_none());
    }

    #[test]
    fn every_bad_line_is_named_with_its_place() {
        let text = format!(
            "bob:{HASH}\nno colon\nold:$apr1$x$y\nsha:{{SHA}}abc=\ncrypt:rqXexS6ZhobKA\n:{HASH}\nbob:{HASH}\nempty:\n"
        );
        let problems = parse(&text).unwrap_err();
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), 7, "{shown:#?}");
        assert!(shown[0].starts_with("line 2, column 1: there is no `:`"));
        assert!(shown[1].starts_with("line 3, column 5: this is Apache's MD5 hash"));
        assert!(shown[1].contains("htpasswd -B"));
        assert!(shown[2].starts_with("line 4, column 5: this is an unsalted SHA-1"));
        assert!(shown[3].starts_with("line 5, column 7: this is a crypt(3) hash"));
        assert!(shown[4].starts_with("line 6, column 1: the name is empty"));
        assert!(shown[5].contains("already in line 1"), "{}", shown[5]);
        assert!(shown[6].contains("hash is empty"));
        assert!(!shown.concat().contains("rqXexS6"));
    }

    #[test]
    fn an_empty_file_has_no_users() {
        assert_eq!(parse("# none yet\n").unwrap().len(), 0);
    }
}
