use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use clap::Parser;

use super::*;

const HASH: &str = "$2y$04$UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96";

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: UserCommand,
}

fn parse(line: &str) -> Result<UserCommand, clap::Error> {
    Cli::try_parse_from(["user"].into_iter().chain(line.split(' '))).map(|cli| cli.command)
}

fn add_user(file: &Path, name: &str) -> AddUser {
    AddUser {
        name: name.to_owned(),
        id: None,
        email: None,
        roles: Vec::new(),
        password_stdin: true,
        file: file.to_owned(),
    }
}

fn secret(text: &str) -> impl FnOnce() -> Result<Secret, String> {
    let password = Secret::new(text);
    || Ok(password)
}

fn unasked() -> Result<Secret, String> {
    panic!("the password must not be asked for")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn right(path: &Path, name: &str, password: &str) -> bool {
    let users = users_file::parse(&fs::read_to_string(path).unwrap()).unwrap();
    let user = users.find(name).unwrap();
    user.hash.verify(&Secret::new(password)).unwrap()
}

fn remove_user(file: &Path, name: &str) -> Result<String, String> {
    remove(&RemoveUser {
        name: name.to_owned(),
        file: file.to_owned(),
    })
}

fn change(file: &Path, name: &str, password: &str) -> Result<String, String> {
    let args = SetPassword {
        name: name.to_owned(),
        password_stdin: true,
        file: file.to_owned(),
    };
    set_password(&args, secret(password))
}

#[test]
fn the_command_line_is_as_documented() {
    let add = parse("add alice --id 7 --email a@b.c --role x --role y --password-stdin --file f");
    let UserCommand::Add(args) = add.unwrap() else {
        panic!("another command")
    };
    assert_eq!(args.name, "alice");
    assert_eq!(args.id.as_deref(), Some("7"));
    assert_eq!(args.email.as_deref(), Some("a@b.c"));
    assert_eq!(args.roles, ["x", "y"]);
    assert!(args.password_stdin);
    assert_eq!(args.file, Path::new("f"));
    assert!(matches!(
        parse("set-password a --file f"),
        Ok(UserCommand::SetPassword(_))
    ));
    assert!(matches!(
        parse("remove a --file f"),
        Ok(UserCommand::Remove(_))
    ));
    assert!(matches!(parse("list --file f"), Ok(UserCommand::List(_))));
    for bad in [
        "add alice",
        "add --file f",
        "list",
        "set-password --file f",
        "add a b --file f",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_new_file_is_private_and_readable_by_the_login() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let args = AddUser {
        id: Some("u-1".to_owned()),
        email: Some("alice@example.com".to_owned()),
        roles: vec!["admin".to_owned(), "ops".to_owned()],
        ..add_user(&path, "alice \"A\"")
    };
    let done = add(&args, secret("pass word")).unwrap();
    assert!(done.starts_with("Added"), "{done}");
    assert_eq!(mode(&path), 0o600);
    add(&add_user(&path, "bob"), secret("x")).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# Users of Cloakroom"), "{text}");
    assert_eq!(text.matches("\n\n[[user]]\n").count(), 2, "{text}");
    let users = users_file::parse(&text).unwrap();
    let alice = users.find("alice \"A\"").unwrap();
    assert_eq!(alice.identity.user, "u-1");
    assert_eq!(alice.identity.roles, ["admin", "ops"]);
    assert_eq!(alice.identity.claims["email"], "alice@example.com");
    assert!(right(&path, "alice \"A\"", "pass word"));
    assert!(right(&path, "bob", "x"));
    // Nothing is left beside it.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn comments_layout_mode_and_links_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real.toml"), dir.path().join("users.toml"));
    let text = format!(
        "# Head.\n\n# Alice is on leave.\n[[user]]\nname='alice'   # odd\npassword = \"{HASH}\" # old\n\n# Bob.\n[[user]]\nname = \"bob\"\npassword = \"{HASH}\"\n# The end.\n"
    );
    fs::write(&real, &text).unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    symlink(&real, &link).unwrap();

    change(&link, "alice", "new").unwrap();
    let changed = fs::read_to_string(&real).unwrap();
    let (before, after) = text.split_once(HASH).unwrap();
    assert!(
        changed.starts_with(before) && changed.ends_with(after),
        "{changed}"
    );
    assert!(right(&link, "alice", "new") && right(&link, "bob", "password"));

    add(&add_user(&link, "carol"), secret("x")).unwrap();
    let added = fs::read_to_string(&real).unwrap();
    assert!(
        added.contains("# Bob.\n[[user]]") && added.contains("# The end."),
        "{added}"
    );
    remove_user(&link, "carol").unwrap();
    assert_eq!(fs::read_to_string(&real).unwrap(), changed);

    assert_eq!(mode(&real), 0o640);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn removing_keeps_the_head_and_takes_the_users_own_comment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let user = |name: &str| format!("[[user]]\nname = \"{name}\"\npassword = \"{HASH}\"\n");
    let text = format!(
        "# Head.\n\n# About a.\n{}\n# About b.\n{}",
        user("a"),
        user("b")
    );
    fs::write(&path, &text).unwrap();
    remove_user(&path, "a").unwrap();
    let left = fs::read_to_string(&path).unwrap();
    assert_eq!(left, format!("# Head.\n\n# About b.\n{}", user("b")));
    remove_user(&path, "b").unwrap();
    let left = fs::read_to_string(&path).unwrap();
    assert_eq!(left.trim_end(), "# Head.");
    add(&add_user(&path, "c"), secret("x")).unwrap();
    assert!(right(&path, "c", "x"));

    // A head without an empty line after it stays too.
    fs::write(&path, format!("# Head.\n{}{}", user("a"), user("b"))).unwrap();
    remove_user(&path, "a").unwrap();
    let left = fs::read_to_string(&path).unwrap();
    assert_eq!(left, format!("# Head.\n\n{}", user("b")));
}

#[test]
fn what_cannot_be_done_is_said_before_asking_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let text = format!("[[user]]\nname = \"a\"\nid = \"u-1\"\npassword = \"{HASH}\"\n");
    fs::write(&path, &text).unwrap();
    let bad = |change: fn(&mut AddUser)| {
        let mut args = add_user(&path, "new");
        change(&mut args);
        add(&args, unasked).unwrap_err()
    };
    assert!(bad(|a| a.name = "a".to_owned()).contains("already in"));
    assert!(bad(|a| a.id = Some("u-1".to_owned())).contains("belongs to the user \"a\""));
    assert!(bad(|a| a.name = "u-1".to_owned()).contains("belongs to the user \"a\""));
    assert!(bad(|a| a.name = String::new()).contains("name is empty"));
    assert!(bad(|a| a.name = "a\nb".to_owned()).contains("control character"));
    assert!(bad(|a| a.roles = vec!["x,y".to_owned()]).contains("comma"));
    assert!(bad(|a| a.email = Some("\r".to_owned())).contains("email"));
    assert!(
        remove_user(&path, "nobody")
            .unwrap_err()
            .contains("there is no user \"nobody\"")
    );
    assert!(
        change(&path, "nobody", "x")
            .unwrap_err()
            .contains("there is no user \"nobody\"")
    );
    let missing = dir.path().join("missing.toml");
    assert!(
        remove_user(&missing, "a")
            .unwrap_err()
            .contains("cannot be read")
    );
    assert!(
        change(&missing, "a", "x")
            .unwrap_err()
            .contains("cannot be read")
    );
    assert!(!missing.exists());
    let failing = add(&add_user(&path, "b"), || Err("no password".to_owned()));
    assert_eq!(failing.unwrap_err(), "no password");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn other_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    for (text, message) in [
        (format!("bob:{HASH}\n"), "htpasswd -B"),
        (
            format!("user = [ {{ name = \"a\", password = \"{HASH}\" }} ]\n"),
            "by hand",
        ),
        (
            format!("[[user]]\nname = \"a\npassword = \"{HASH}\"\n"),
            "line 2",
        ),
    ] {
        fs::write(&path, &text).unwrap();
        let error = add(&add_user(&path, "new"), unasked).unwrap_err();
        assert!(error.contains(message), "{error}");
        assert!(!error.contains(HASH), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

#[test]
fn a_user_without_a_password_can_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    fs::write(&path, "[[user]]\nname = \"a\"\n").unwrap();
    change(&path, "a", "x").unwrap();
    assert!(right(&path, "a", "x"));
}

#[test]
fn the_list_shows_people_and_no_hashes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users");
    let text = format!(
        "[[user]]\nname = \"alice\"\nid = \"u-1\"\nemail = \"a@example.com\"\nroles = [\"x\", \"y\"]\npassword = \"{HASH}\"\n[[user]]\nname = \"bob\"\npassword = \"{HASH}\"\n"
    );
    fs::write(&path, text).unwrap();
    assert_eq!(
        list(&path).unwrap(),
        "NAME   ID   EMAIL          ROLES\nalice  u-1  a@example.com  x, y\nbob    bob  -              -\n"
    );
    fs::write(&path, format!("bob:{HASH}\n")).unwrap();
    assert!(list(&path).unwrap().ends_with("bob   bob  -      -\n"));
    fs::write(&path, "bob:$apr1$sEcReT\n").unwrap();
    let error = list(&path).unwrap_err();
    assert!(
        error.contains("line 1, column 5") && !error.contains("sEcReT"),
        "{error}"
    );
}

#[test]
fn exactly_one_newline_is_dropped() {
    let read = |bytes: &[u8]| read_password(bytes).map(|p| p.expose().to_vec());
    for (given, taken) in [
        (&b"secret"[..], &b"secret"[..]),
        (b"secret\n", b"secret"),
        (b"secret\r\n", b"secret"),
        (b"secret\n\n", b"secret\n"),
        (b"secret\r", b"secret\r"),
        (b" secret \n", b" secret "),
        (b"a\nb\n", b"a\nb"),
        (b"\xff\x00\n", b"\xff\x00"),
    ] {
        assert_eq!(read(given).unwrap(), taken);
    }
    assert!(read(b"").unwrap_err().contains("empty"));
    assert!(read(b"\r\n").unwrap_err().contains("empty"));
    let mut long = vec![b'a'; MAX_PASSWORD];
    long.extend(b"\r\n");
    assert_eq!(read(&long).unwrap().len(), MAX_PASSWORD);
    long.insert(0, b'a');
    assert!(read(&long).unwrap_err().contains("longer than 4096"));
    assert!(read(&vec![b'\n'; 1 << 20]).is_err());
}

#[test]
fn two_edits_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let args = add_user(&path, &format!("user-{number}"));
            scope.spawn(move || add(&args, secret("x")).unwrap());
        }
    });
    assert_eq!(users_file::check(&path), Ok(8));
}
