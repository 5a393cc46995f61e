//! `cloakroom demo`: a complete trial that leaves nothing behind.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use super::{demo_app, fail};
use crate::app;
use crate::base::secret::Secret;
use crate::config::{self, Environment, Overrides, Source};
use crate::login::password::hash::Hash;
use crate::server::settings::ListenAddress;

/// Name, password and role of each demo user.
const USERS: [(&str, &str, Option<&str>); 2] = [
    ("alice", "wonderland", Some("admin")),
    ("bob", "builder-of-things", None),
];

/// Runs the demo until Ctrl-C.
pub fn run(listen: SocketAddr) -> ExitCode {
    match demo(listen) {
        Ok(()) => {
            println!("The demo has ended and its folder is gone.");
            ExitCode::SUCCESS
        }
        Err(message) => fail(&message),
    }
}

fn demo(listen: SocketAddr) -> Result<(), String> {
    let folder = tempfile::Builder::new()
        .prefix("cloakroom-demo-")
        .tempdir()
        .map_err(|error| format!("no temporary folder: {error}"))?;
    write_users(&folder.path().join("users.toml"))?;
    let application = demo_app::start()?;
    let text = configuration(folder.path(), application)?;
    let source = Source::inline("demo", &text);
    let overrides = Overrides {
        listen: vec![listen.to_string()],
        ..Overrides::default()
    };
    // The demo is the same on every machine: the environment has no say.
    let environment: Environment = [("NO_COLOR", "1")].into_iter().collect();
    let (compiled, warnings) = config::load(&source, &environment, &overrides)
        .map_err(|problems| source.render(&problems, false))?;
    app::run(compiled, &warnings, |addresses| {
        if let Some(address) = addresses.iter().find_map(ListenAddress::tcp) {
            print!("{}", welcome(address));
        }
    })
    .map_err(|message| format!("{message} (another address: cloakroom demo --listen ADDR)"))
}

fn write_users(path: &Path) -> Result<(), String> {
    let mut text = String::new();
    for (name, password, role) in USERS {
        let hash = Hash::create(&Secret::new(password))?;
        let roles = role.map_or_else(String::new, |role| format!("\"{role}\""));
        text.push_str(&format!(
            "[[user]]\nname = \"{name}\"\nid = \"u-{name}\"\npassword = \"{hash}\"\n\
             email = \"{name}@example.com\"\nroles = [{roles}]\n\n"
        ));
    }
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn configuration(folder: &Path, application: SocketAddr) -> Result<String, String> {
    let folder = folder
        .to_str()
        .filter(|folder| !folder.contains(['"', '\\']))
        .ok_or("the temporary folder has an odd name; set TMPDIR to another")?;
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| "the operating system gives no random bytes".to_owned())?;
    let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!(
        r#"[upstreams.app]
urls = ["http://{application}"]

[[routes]]
path = "/"
access = "login"

[[routes]]
path = "/public"
access = "public"

[[routes]]
path = "/admin"
access = "login"
roles = ["admin"]

[session]
secrets = ["{secret}"]

[store]
url = "file:{folder}/data"

[[login.methods]]
kind = "users_file"
path = "{folder}/users.toml"

[login]
title = "Cloakroom demo"

[admin]
listen = "off"

[log]
format = "text"
"#
    ))
}

fn welcome(address: SocketAddr) -> String {
    let users: String = USERS
        .iter()
        .map(|(name, password, role)| {
            let role = role.map_or_else(String::new, |role| format!("   role: {role}"));
            format!("    {name:<6} password: {password:<18}{role}\n")
        })
        .collect();
    format!(
        r#"
  Open http://{address}/ and sign in:

{users}
  Or try it from another terminal:

    curl -i http://{address}/
    curl -i -c /tmp/cloakroom-demo.txt -H 'Content-Type: application/json' -d '{{"username":"alice","password":"wonderland"}}' http://{address}/auth/login
    curl -b /tmp/cloakroom-demo.txt -H 'X-User-Id: somebody-else' http://{address}/headers

  Ctrl-C ends the demo and removes what it made.

"#
    )
}
