//! The people of the tests, in a users file that the real command line wrote.

use std::sync::OnceLock;

use super::cli;

/// Somebody who can sign in.
#[derive(Clone, Copy, Debug)]
pub struct Person {
    pub name: &'static str,
    pub id: &'static str,
    pub email: &'static str,
    pub roles: &'static [&'static str],
    pub password: &'static str,
}

/// A plain user.
pub const ALICE: Person = Person {
    name: "alice",
    id: "u-alice",
    email: "alice@example.test",
    roles: &["user"],
    password: "correct horse battery staple",
};

/// Another plain user.
pub const BOB: Person = Person {
    name: "bob",
    id: "u-bob",
    email: "bob@example.test",
    roles: &["user"],
    password: "pässwörd with ünïcode",
};

/// An administrator.
pub const CAROL: Person = Person {
    name: "carol",
    id: "u-carol",
    email: "carol@example.test",
    roles: &["user", "admin"],
    password: "carol's own secret",
};

/// All of them.
pub const EVERYBODY: [Person; 3] = [ALICE, BOB, CAROL];

/// The contents of the users file. Made once: real hashes are slow to make.
pub fn file() -> &'static str {
    static FILE: OnceLock<String> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for person in EVERYBODY {
            let mut command = cli::command(folder.path());
            command.args([
                "user",
                "add",
                person.name,
                "--id",
                person.id,
                "--email",
                person.email,
            ]);
            for role in person.roles {
                command.args(["--role", role]);
            }
            command.args(["--password-stdin", "--file", "users.toml"]);
            cli::run(&mut command, &format!("{}\n", person.password)).succeeded();
        }
        std::fs::read_to_string(folder.path().join("users.toml")).unwrap()
    })
}
