//! The users file while the proxy runs.

use std::process::Command;

use crate::harness::backend::Backend;
use crate::harness::cli;
use crate::harness::config::Config;
use crate::harness::eventually;
use crate::harness::proxy::Proxy;
use crate::harness::session::{self, only_cookie};
use crate::harness::users::{self, ALICE, CAROL};

#[test]
fn an_htpasswd_file_with_bcrypt_lets_its_users_in() {
    let hash = bcrypt::hash_with_result("open sesame", 4).unwrap();
    let hash = hash.format_for_version(bcrypt::Version::TwoY);
    let text = format!("# made by htpasswd -B\nali:{hash}\n");
    let backend = Backend::start();
    let proxy = Config::to(backend.addr())
        .with("[[login.methods]]\nkind = \"users_file\"\npath = \"htpasswd\"")
        .file("htpasswd", text)
        .start();
    assert_eq!(proxy.try_sign_in("ali", "open Sesame").status, 401);
    let response = proxy.try_sign_in("ali", "open sesame");
    assert_eq!(response.status, 200, "{}", response.text());
    let jar = session::jar(&only_cookie(&response).value);
    assert_eq!(proxy.get_as("/", &jar).status, 200);
    assert_eq!(
        backend.only_request().header("x-user-id").as_deref(),
        Some("ali")
    );
}

fn user_command(proxy: &Proxy, arguments: &[&str], input: &str) {
    let mut command: Command = cli::command(proxy.folder());
    command
        .arg("user")
        .args(arguments)
        .args(["--file", "users.toml"]);
    cli::run(&mut command, input).succeeded();
}

#[test]
fn a_change_of_the_users_file_counts_at_once() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    assert_eq!(proxy.try_sign_in("dora", "dora's own").status, 401);
    user_command(&proxy, &["add", "dora", "--password-stdin"], "dora's own\n");
    assert_eq!(proxy.try_sign_in("dora", "dora's own").status, 200);
    user_command(
        &proxy,
        &["set-password", "dora", "--password-stdin"],
        "another one\n",
    );
    assert_eq!(proxy.try_sign_in("dora", "dora's own").status, 401);
    assert_eq!(proxy.try_sign_in("dora", "another one").status, 200);
    user_command(&proxy, &["remove", "dora"], "");
    assert_eq!(proxy.try_sign_in("dora", "another one").status, 401);
    assert_eq!(proxy.try_sign_in(ALICE.name, ALICE.password).status, 200);
}

#[test]
fn a_broken_users_file_keeps_the_users_of_before() {
    let backend = Backend::start();
    let proxy = Config::to(backend.addr()).start();
    let path = proxy.folder().join("users.toml");
    proxy.sign_in(&ALICE);
    for broken in [
        "[[user]\nname = ",
        "[[user]]\nname = \"alice\"\npassword = \"hunter2\"\n",
        "",
    ] {
        std::fs::write(&path, broken).unwrap();
        let response = proxy.try_sign_in(ALICE.name, ALICE.password);
        if broken.is_empty() {
            // An empty file is one without users.
            assert_eq!(response.status, 401, "{broken:?}");
            continue;
        }
        assert_eq!(response.status, 200, "{broken:?} {}", response.text());
        assert_eq!(proxy.try_sign_in(ALICE.name, "wrong").status, 401);
        proxy.output().wait_for_words(&["users.toml"]);
        let said = proxy.output().text();
        assert!(!said.contains("hunter2"), "the log has a password");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, users::file()).unwrap();
    eventually("the users are back", || {
        (proxy.try_sign_in(CAROL.name, CAROL.password).status == 200).then_some(())
    });
}
