//! Where the control socket is, for the proxy that makes it and the command
//! line that looks for it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use crate::config::Compiled;
use crate::config::compiled::ControlPlace;
use crate::server::listener::{SocketFile, bind_private};

/// The control socket of this configuration; `None`: there is none.
pub fn path(compiled: &Compiled) -> Option<PathBuf> {
    located(&compiled.admin.control, |name| std::env::var_os(name))
}

fn located(place: &ControlPlace, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    match place {
        ControlPlace::Nowhere => None,
        ControlPlace::At { path, .. } => Some(path.clone()),
        ControlPlace::Runtime(name) => {
            // systemd's for a service (it may name several), else the user's.
            let given = ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"];
            let mut given = given.into_iter().filter_map(variable);
            let folder = given.find(|folder| !folder.is_empty())?;
            let first = folder.as_bytes().split(|byte| *byte == b':').next()?;
            let folder = PathBuf::from(std::ffi::OsStr::from_bytes(first));
            folder.is_absolute().then(|| folder.join(name))
        }
    }
}

/// Makes the socket. One that nobody asked for by name and that cannot be made
/// is a warning: the proxy works without it.
///
/// # Errors
///
/// Why one that was asked for cannot be made.
pub fn bind(compiled: &Compiled) -> Result<Option<(UnixListener, SocketFile)>, String> {
    let Some(path) = path(compiled) else {
        return Ok(None);
    };
    match bind_private(&path) {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if matches!(compiled.admin.control, ControlPlace::At { asked: true, .. }) => {
            Err(format!("admin.control: {error}"))
        }
        Err(error) => {
            tracing::warn!(
                "no control socket, so `cloakroom sessions` cannot reach this process: {error}"
            );
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_folder_is_the_services_or_the_users() {
        let place = ControlPlace::Runtime("c.sock".into());
        let with = |set: &[(&str, &str)]| {
            let set: Vec<(String, OsString)> = set
                .iter()
                .map(|(name, value)| (name.to_string(), value.into()))
                .collect();
            located(&place, move |name| {
                let found = set.iter().find(|(n, _)| n == name)?;
                Some(found.1.clone())
            })
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("XDG_RUNTIME_DIR", "")]), None);
        assert_eq!(with(&[("XDG_RUNTIME_DIR", "relative")]), None);
        let user = ("XDG_RUNTIME_DIR", "/run/user/7");
        assert_eq!(with(&[user]), Some("/run/user/7/c.sock".into()));
        let service = ("RUNTIME_DIRECTORY", "/run/cloakroom:/run/other");
        assert_eq!(with(&[user, service]), Some("/run/cloakroom/c.sock".into()));
    }
}
