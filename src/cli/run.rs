//! `cloakroom run`: the proxy itself.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{EX_CONFIG, coloured, fail};
use crate::app;
use crate::base::secret::Secret;
use crate::config::{self, Environment, Overrides, Source, locate};

/// Where `run --upstream` keeps its sessions and its secret.
const DATA_FOLDER: &str = "cloakroom-data";

/// The users that `run --upstream` knows, if the file is there.
const USERS_FILE: &str = "users.toml";

/// Starts the proxy, and returns when it has ended.
pub fn run(file: Option<&Path>, upstream: Option<String>, listen: Vec<String>) -> ExitCode {
    let environment = Environment::of_process();
    let mut overrides = Overrides {
        listen,
        upstream,
        fallback_secret: None,
    };
    let source = match locate(file, &environment) {
        Some(path) => match Source::read(&path) {
            Ok(source) => source,
            Err(problem) => {
                let name = path.display().to_string();
                let colour = coloured(&environment);
                return refuse(&config::problem::render(&[problem], &name, "", colour));
            }
        },
        None if overrides.upstream.is_some() => {
            match kept_secret(Path::new(DATA_FOLDER)) {
                Ok(secret) => overrides.fallback_secret = Some(secret),
                Err(message) => return fail(&message),
            }
            Source::inline("--upstream", &without_file())
        }
        None => {
            return refuse(&format!(
                "cloakroom: {}, or try `cloakroom demo`\n",
                super::check::no_file()
            ));
        }
    };
    match config::load(&source, &environment, &overrides) {
        Ok((compiled, warnings)) => match app::run(compiled, &warnings, |_| {}) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => fail(&message),
        },
        Err(problems) => refuse(&source.render(&problems, coloured(&environment))),
    }
}

fn refuse(problems: &str) -> ExitCode {
    // Without standard error there is nowhere to say it; the code says enough.
    let _ = io::stderr().lock().write_all(problems.as_bytes());
    ExitCode::from(EX_CONFIG)
}

/// What `--upstream` alone means: everything at its default, and the users of
/// `users.toml` if it is there.
fn without_file() -> String {
    let mut text = format!("[store]\nurl = \"file:./{DATA_FOLDER}\"\n");
    if Path::new(USERS_FILE).exists() {
        text.push_str(&format!(
            "[[login.methods]]\nkind = \"users_file\"\npath = \"{USERS_FILE}\"\n"
        ));
    } else {
        eprintln!(
            "cloakroom: there is no {USERS_FILE}, so nobody can sign in; make it with \
             `cloakroom user add NAME --file {USERS_FILE}` and start again"
        );
    }
    text
}

/// The secret in the data folder; made there at the first start.
fn kept_secret(folder: &Path) -> Result<Secret, String> {
    let path = folder.join("secret");
    let explain = |error: io::Error| format!("the secret in {}: {error}", path.display());
    match fs::read(&path) {
        Ok(bytes) if bytes.len() >= 32 => return Ok(Secret::new(bytes)),
        Ok(_) => {
            return Err(format!(
                "the secret in {} is cut off; remove it to make a new one, which signs everybody out",
                path.display()
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(explain(error)),
    }
    let mut random = [0; 32];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| "the operating system gives no random bytes".to_owned())?;
    let secret = STANDARD.encode(random);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(explain)?;
    // Written beside and renamed, so that it is there whole or not at all.
    let new = folder.join("secret.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(explain)?;
    file.write_all(secret.as_bytes()).map_err(explain)?;
    file.sync_all().map_err(explain)?;
    fs::rename(&new, &path).map_err(explain)?;
    Ok(Secret::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_secret_is_made_once_and_kept_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = kept_secret(&data).unwrap();
        assert_eq!(first, kept_secret(&data).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&data), mode(&data.join("secret"))), (0o700, 0o600));
    }

    #[test]
    fn a_secret_that_is_cut_off_is_not_replaced_silently() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "short").unwrap();
        assert!(kept_secret(folder.path()).unwrap_err().contains("cut off"));
    }
}
