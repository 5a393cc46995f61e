use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::base::secret::Secret;

const HASH: &str = "$2y$04$UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96";

fn messages(text: &str) -> Vec<String> {
    let problems = parse(text).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

fn one(name: &str) -> String {
    format!("[[user]]\nname = {name:?}\npassword = \"{HASH}\"\n")
}

#[test]
fn all_keys_but_the_password_are_claims() {
    let text = format!(
        r#"
# People
[[user]]
name = "alice"
id = "u-1"
password = "{HASH}"
roles = ["admin", "ops"]
email = "alice@example.com"
zone = 7
score = 1.5
active = true
born = 1990-02-03
team = {{ b = [1, 2], a = "x" }}

[[user]]
name = "bob"
password = "{HASH}"
"#
    );
    let users = parse(&text).unwrap();
    let alice = users.find("alice").unwrap();
    assert_eq!(alice.identity.user, "u-1");
    assert_eq!(alice.identity.roles, ["admin", "ops"]);
    assert_eq!(
        Value::Object(alice.identity.claims.clone()),
        json!({
            "name": "alice", "email": "alice@example.com", "roles": ["admin", "ops"],
            "zone": 7, "score": 1.5, "active": true, "born": "1990-02-03",
            "team": {"b": [1, 2], "a": "x"},
        })
    );
    let order: Vec<_> = alice.identity.claims.keys().map(String::as_str).collect();
    assert_eq!(order[..2], ["email", "zone"], "as in the file");
    assert!(alice.hash.verify(&Secret::new("password")).unwrap());
    let bob = users.find("bob").unwrap();
    assert_eq!(bob.identity.user, "bob");
    assert_eq!(
        Value::Object(bob.identity.claims.clone()),
        json!({"name": "bob"})
    );
    let names: Vec<_> = users.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(names, ["alice", "bob"]);
}

#[test]
fn inline_tables_and_an_empty_file_are_fine() {
    let text = format!("user = [ {{ name = \"a\", password = \"{HASH}\" }} ]\n");
    assert_eq!(parse(&text).unwrap().len(), 1);
    assert!(parse("").unwrap().is_empty());
    assert!(parse("# nobody yet\n").unwrap().is_empty());
}

#[test]
fn names_are_bytes() {
    // "é" composed and decomposed.
    let text = format!("{}{}", one("caf\u{e9}"), one("cafe\u{301}"));
    let users = parse(&text.replace("\\u{301}", "\u{301}")).unwrap();
    assert_eq!(users.len(), 2);
    assert!(users.find("CAF\u{e9}").is_none());
}

#[test]
fn every_problem_is_reported_with_its_place() {
    let text = format!(
        r#"[[users]]
[[user]]
name = "a"
password = "$apr1$x$y"
roles = "admin"
[[user]]
name = 5
id = 42
password = "{HASH}"
cookie = 1
limit = inf
[[user]]
name = "b"
[[user]]
password = "{HASH}"
roles = ["x,y", ""]
[[user]]
name = "c"
password = "{HASH}"
[[user]]
name = "c"
password = "{HASH}"
[[user]]
name = "d\u0007"
email = ""
password = "{HASH}"
"#
    );
    let shown = messages(&text);
    let expected = [
        "line 1, column 3: unknown key `users`",
        "line 4, column 12: this is Apache's MD5 hash",
        "line 5, column 9: roles are a list",
        "line 7, column 8: the name must be a string; put it in quotes",
        "line 8, column 6: the id must be a string; put it in quotes",
        "line 10, column 1: the key `cookie` is taken",
        "line 11, column 9: this number cannot be written in JSON",
        "line 12, column 1: this user has no `password`",
        "line 14, column 1: this user has no `name`",
        "line 16, column 10: a role must not hold a comma",
        "line 16, column 17: the role is empty",
        "line 21, column 8: the user \"c\" is already in line 18",
        "line 24, column 8: the name holds a control character",
        "line 25, column 9: the email is empty",
    ];
    assert_eq!(shown.len(), expected.len(), "{shown:#?}");
    for (shown, expected) in shown.iter().zip(expected) {
        assert!(shown.starts_with(expected), "{shown}\n{expected}");
    }
}

#[test]
fn broken_toml_has_a_place_and_shows_no_hash() {
    let shown = messages("[[user]]\nname = \"a\"\npassword = \"$2y$sEcReT\n");
    assert!(shown[0].starts_with("line 3, column "), "{shown:?}");
    assert!(!shown.concat().contains("sEcReT"), "{shown:?}");
    assert!(messages("[user]\nname = \"a\"\n")[0].contains("two brackets"));
    assert!(messages("user = [1]")[0].contains("a user is a table"));
    assert!(messages("not toml at all")[0].starts_with("line 1"));
}

#[test]
fn check_counts_or_complains() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    assert!(
        check(&path).unwrap_err()[0]
            .message
            .contains("no such file")
    );
    assert!(
        check(dir.path()).unwrap_err()[0]
            .message
            .contains("regular file")
    );
    write(&path, &format!("bob:{HASH}\n"));
    assert_eq!(check(&path), Ok(1));
    write(&path, &one("a"));
    assert_eq!(check(&path), Ok(1));
    fs::write(&path, b"ok:x\n\xc3\xa4\xff").unwrap();
    assert_eq!(check(&path).unwrap_err()[0].place, Some((2, 2)));
}

#[test]
fn a_change_is_noticed_even_within_the_same_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    write(&path, &one("a"));
    let mut file = UsersFile::open(&path).unwrap();
    assert!(!file.refresh());
    // Same length, and most likely the same time of change.
    write(&path, &one("b"));
    assert!(file.refresh());
    assert!(file.users().find("b").is_some());
    assert!(file.users().find("a").is_none());
    assert!(!file.refresh());
}

#[test]
fn a_settled_file_is_only_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    write(&path, &one("a"));
    let past = SystemTime::now() - Duration::from_secs(60);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(past)
        .unwrap();
    let mut file = UsersFile::open(&path).unwrap();
    assert!(file.settled);
    // A digest that is wrong would show as a change if the file were read.
    file.bytes = [0; 32];
    assert!(!file.refresh());
    assert_eq!(file.bytes, [0; 32]);
}

#[test]
fn a_broken_or_vanished_file_keeps_the_users() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    write(&path, &one("a"));
    let mut file = UsersFile::open(&path).unwrap();

    write(&path, "[[user]]\nname = 1\n");
    assert!(!file.refresh());
    assert!(
        file.complaint
            .as_ref()
            .unwrap()
            .contains("line 2, column 8")
    );
    assert!(file.users().find("a").is_some());

    fs::remove_file(&path).unwrap();
    assert!(!file.refresh());
    assert!(file.complaint.as_ref().unwrap().contains("no such file"));
    assert!(file.users().find("a").is_some());

    // Coming back as it was is no change, but ends the complaint.
    write(&path, &one("a"));
    assert!(!file.refresh());
    assert!(file.complaint.is_none());

    write(&path, &one("b"));
    assert!(file.refresh());
    assert!(file.users().find("b").is_some());
}

#[test]
fn symbolic_links_are_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (one_file, two_file) = (dir.path().join("1"), dir.path().join("2"));
    let link = dir.path().join("users.toml");
    write(&one_file, &one("a"));
    write(&two_file, &one("b"));
    std::os::unix::fs::symlink(&one_file, &link).unwrap();
    let mut file = UsersFile::open(&link).unwrap();
    // As a mounted secret is exchanged: a new link renamed over the old one.
    let fresh = dir.path().join("fresh");
    std::os::unix::fs::symlink(&two_file, &fresh).unwrap();
    fs::rename(&fresh, &link).unwrap();
    assert!(file.refresh());
    assert!(file.users().find("b").is_some());
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    let head = one("a");
    for tail in [
        format!("{} = 1\n", vec!["x"; 50_000].join(".")),
        format!("x = {}{}\n", "[".repeat(50_000), "]".repeat(50_000)),
        format!("x = {}1{}\n", "{ y = ".repeat(50_000), " }".repeat(50_000)),
        format!("[user.{}]\n", vec!["x"; 50_000].join(".")),
    ] {
        assert!(parse(&format!("{head}{tail}")).is_err());
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config {
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn no_text_is_too_strange(text in "(\\[\\[user\\]\\]\n|name = |password = |[a-z]+:|[\"'=#{}.,$\\[\\]\n]|\\PC){0,40}") {
        // Whatever it is, it is read or refused with a reason.
        if let Err(problems) = parse(&text) {
            proptest::prop_assert!(!problems.is_empty());
        }
    }
}
