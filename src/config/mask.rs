//! Hides secrets in the lines of the file that messages show.
//!
//! This reads the text, not the parsed tree: a secret must stay hidden in a
//! file that cannot be parsed, and under a key that is misspelt. Three things
//! are hidden: every value on a line that speaks of a secret, key, token or
//! password (up to the end of the list that begins there), the user
//! information of every URL, and every long word that looks random.
//! `{ env = … }` and `{ file = … }` stay readable. The result has the same
//! length in bytes, so spans keep their meaning.

use super::value::secret::looks_like_a_variable;

/// The text with its secrets replaced by asterisks.
pub fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        // A section's header ends what was never closed.
        inside &= !line.starts_with('[');
        if inside || speaks_of_secrets(line) {
            out.push_str(&mask_values(line, inside));
            inside = continues(line, inside);
        } else {
            out.push_str(&mask_random(&mask_user_info(line)));
        }
    }
    out
}

fn speaks_of_secrets(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    let key = lower.split('=').next().unwrap_or_default();
    let name = key
        .rsplit(['.', '[', '{', ' ', '"'])
        .find(|part| !part.is_empty());
    lower.contains("secret")
        || ["passw", "token", "key"]
            .iter()
            .any(|word| key.contains(word))
        || name.is_some_and(|name| strsim::osa_distance(name.trim(), "secrets") <= 2)
}

/// Whether an array or a multi-line string goes on after this line.
fn continues(line: &str, inside: bool) -> bool {
    if inside {
        return !(line.contains(']') || line.contains("\"\"\"") || line.contains("'''"));
    }
    let value = line.split_once('=').map_or("", |(_, value)| value);
    let opened = value.matches('[').count() > value.matches(']').count();
    opened || value.matches("\"\"\"").count() == 1 || value.matches("'''").count() == 1
}

/// Hides every quoted string, except one that `env =` or `file =` introduces,
/// and every bare word that is not one of these two: a value that lacks its
/// quotes is a secret all the same. The key before the first `=` stays, if it
/// can be one: in `secret: dGhl…=` the sign belongs to the secret.
fn mask_values(line: &str, inside: bool) -> String {
    let (key, values) = match line.find('=') {
        Some(at) if !inside => line.split_at(at),
        _ => ("", line),
    };
    let (key, values) = if looks_like_a_key(key) {
        (key, values)
    } else {
        ("", line)
    };
    let mut out = String::with_capacity(line.len());
    out.push_str(&mask_random(key));
    let mut word = String::new();
    let mut quote: Option<(char, Introduced)> = None;
    for c in values.chars() {
        match &quote {
            Some((mark, by)) if c == *mark => {
                flush(&mut word, &mut out, by);
                quote = None;
                out.push(c);
            }
            Some(_) if c != '\n' && c != '\r' => word.push(c),
            None if !c.is_whitespace() && !"[]{},#=\"'".contains(c) => word.push(c),
            inside => {
                let by = inside.as_ref().map_or(&Introduced::Bare, |(_, by)| by);
                flush(&mut word, &mut out, by);
                if quote.is_none() && (c == '"' || c == '\'') {
                    quote = Some((c, introduced(&out)));
                }
                out.push(c);
            }
        }
    }
    flush(
        &mut word,
        &mut out,
        &quote.map_or(Introduced::Nothing, |(_, by)| by),
    );
    out
}

/// One word, as far as TOML allows it without quotes, dots between its parts.
fn looks_like_a_key(text: &str) -> bool {
    text.trim()
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'"' | b'\''))
}

/// What a value is introduced by.
enum Introduced {
    /// It has no quotes.
    Bare,
    /// `env =`
    Env,
    /// `file =`
    File,
    /// Anything else.
    Nothing,
}

fn introduced(before: &str) -> Introduced {
    let key = before
        .trim_end()
        .strip_suffix('=')
        .unwrap_or_default()
        .trim_end();
    if key.ends_with("env") {
        Introduced::Env
    } else if key.ends_with("file") {
        Introduced::File
    } else {
        Introduced::Nothing
    }
}

/// A secret may have been put where the name of its variable belongs.
fn flush(word: &mut String, out: &mut String, by: &Introduced) {
    let shown = match by {
        Introduced::Bare => matches!(word.as_str(), "env" | "file"),
        Introduced::Env => looks_like_a_variable(word),
        Introduced::File => true,
        Introduced::Nothing => false,
    };
    if shown {
        out.push_str(word);
    } else {
        word.chars().for_each(|c| hide(c, out));
    }
    word.clear();
}

/// Hides what stands between `://` and `@`.
pub fn mask_user_info(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        // Not up to a comma: it may be a part of the password.
        let end = after
            .find(['"', '\'', ' ', '\t', '\n'])
            .unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rfind('@') {
            Some(at) => {
                let (user_info, host) = authority.split_at(at);
                user_info.chars().for_each(|c| hide(c, &mut out));
                mask_query(host, &mut out);
            }
            None => mask_query(authority, &mut out),
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

/// Hides what a URL's query says of passwords.
fn mask_query(text: &str, out: &mut String) {
    for part in text.split_inclusive(['?', '&']) {
        match part.split_once('=') {
            Some((name, value)) if name.to_ascii_lowercase().contains("pass") => {
                out.push_str(name);
                out.push('=');
                let value = value.strip_suffix('&').unwrap_or(value);
                value.chars().for_each(|c| hide(c, out));
                out.push_str(if part.ends_with('&') { "&" } else { "" });
            }
            _ => out.push_str(part),
        }
    }
}

/// Hides long words that look as if they were made at random, wherever they
/// stand: a key may have been lost or misspelt beyond recognition.
pub fn mask_random(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_of_a_word) {
        let (before, from) = rest.split_at(start);
        let end = from.find(|c| !is_of_a_word(c)).unwrap_or(from.len());
        let (word, tail) = from.split_at(end);
        out.push_str(before);
        if looks_random(word) {
            word.chars().for_each(|c| hide(c, &mut out));
        } else {
            out.push_str(word);
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}

fn is_of_a_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_')
}

/// Letters of both cases and digits in base64, or hexadecimal.
fn looks_random(word: &str) -> bool {
    let any = |test: fn(&u8) -> bool| word.as_bytes().iter().any(test);
    let digits = any(u8::is_ascii_digit);
    let mixed = any(u8::is_ascii_uppercase) && any(u8::is_ascii_lowercase);
    let hexadecimal = word.bytes().all(|b| b.is_ascii_hexdigit());
    digits && (word.len() >= 24 && mixed || word.len() >= 32 && hexadecimal)
}

fn hide(c: char, out: &mut String) {
    for _ in 0..c.len_utf8() {
        out.push('*');
    }
}

#[cfg(test)]
mod tests {
    use super::mask;
    use proptest::prelude::*;

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        for (line, expected) in [
            ("secrets = [\"abc\", 'de']", "secrets = [\"***\", '**']"),
            ("secrest = [\"abc\"]", "secrest = [\"***\"]"),
            ("secrets = [abc, \"d\"", "secrets = [***, \"*\""),
            ("secret = \"é\"", "secret = \"**\""),
            (
                "secrets = [ { env = \"NAME\" }, \"x\" ]",
                "secrets = [ { env = \"NAME\" }, \"*\" ]",
            ),
            (
                "secrets = [ { env = \"a+b=\" } ]",
                "secrets = [ { env = \"****\" } ]",
            ),
            ("secrets = [ \"abc", "secrets = [ \"***"),
            ("secrets = abc", "secrets = ***"),
            ("secret: YWJjZA==", "******* ******=="),
            ("secret: two words = x", "******* *** ***** = *"),
            ("a.\"secret\" = \"x\"", "a.\"secret\" = \"*\""),
            (
                "secret.Vh2zlk0Wq8VXb4mJgk5uYc1rTn7dEoPs = \"x\"",
                "secret.******************************** = \"*\"",
            ),
            (
                "secrets = [\n  \"abc\",\n]\nname = \"a\"",
                "secrets = [\n  \"***\",\n]\nname = \"a\"",
            ),
            (
                "secrets = [\"\"\"\nabc\n\"\"\"]\na = \"b\"",
                "secrets = [\"\"\"\n***\n\"\"\"*\na = \"b\"",
            ),
            ("url = \"redis://u:p@h/0\"", "url = \"redis://***@h/0\""),
            ("url = \"redis://u:p,q@h/0\"", "url = \"redis://*****@h/0\""),
            (
                "url = \"redis+unix:///s?user=a&pass=abc&db=1\"",
                "url = \"redis+unix:///s?user=a&pass=***&db=1\"",
            ),
            (
                "url = \"redis+sentinel://u:p@a,b?master=m&sentinel_password=abc\"",
                "url = \"redis+sentinel://***@a,b?master=m&sentinel_password=***\"",
            ),
            (
                "x = \"Vh2zlk0Wq8VXb4mJgk5uYc1rTn7dEoPs\"",
                "x = \"********************************\"",
            ),
            (
                "x = \"/etc/cloakroom/certificates/2026/all.pem\"",
                "x = \"/etc/cloakroom/certificates/2026/all.pem\"",
            ),
            ("url = \"redis://h/0\"", "url = \"redis://h/0\""),
            (
                "url = \"postgres://h/d?password=p&user=u\"",
                "url = \"postgres://h/d?password=*&user=u\"",
            ),
            (
                "url = \"redis+unix:///s?pass=p\"",
                "url = \"redis+unix:///s?pass=*\"",
            ),
        ] {
            assert_eq!(mask(line), expected);
        }
    }

    proptest! {
        #[test]
        fn the_length_stays(text in "\\PC*([\\n\"'=\\[\\]]|secret|://|@|\\PC)*") {
            prop_assert_eq!(mask(&text).len(), text.len());
        }
    }
}
