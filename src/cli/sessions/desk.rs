//! Who carries out what the command line asks for: this process, with the store
//! open, or the proxy that has it open already.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::admin::control::{self, Answer, CallError, Order};
use crate::app::build::session_rules;
use crate::app::control::path;
use crate::base::clock::Clock;
use crate::config::Compiled;
use crate::session::store::{self, file::FILE_NAME};
use crate::session::{SessionRules, Sessions, StoreLocation};

/// Where orders go.
pub(super) enum Desk {
    /// To the running proxy.
    Proxy(PathBuf),
    /// To the store.
    Store {
        sessions: Arc<Sessions>,
        rules: Box<SessionRules>,
    },
}

impl Desk {
    /// The one for the store of a configuration.
    ///
    /// # Errors
    ///
    /// Why neither a proxy nor the store can be reached, and what to do.
    pub(super) async fn open(compiled: &Compiled) -> Result<Self, String> {
        let socket = path(compiled);
        if let Some(socket) = &socket {
            let try_out = Order::List {
                user: Some(String::new()),
                cursor: None,
            };
            match control::call(socket, &try_out).await {
                Ok(_) => return Ok(Self::Proxy(socket.clone())),
                Err(CallError::NobodyThere) => {}
                Err(CallError::Failed(why)) => return Err(told(socket, &why)),
            }
        }
        match &compiled.store.location {
            StoreLocation::Memory => {
                return Err(match socket {
                    Some(socket) => format!(
                        "the sessions are in the memory of the proxy, and no proxy listens on its control socket {}",
                        socket.display()
                    ),
                    None => "the sessions are in the memory of the proxy, and there is no control socket: \
                             set admin.control to a path, or start it with $XDG_RUNTIME_DIR"
                        .to_owned(),
                });
            }
            StoreLocation::File(folder) => there_is_a_file(folder)?,
            StoreLocation::Redis(_) | StoreLocation::Postgres(_) => {}
        }
        let clock = Clock::system();
        let opened = store::open(&compiled.store, clock.clone()).map_err(|error| {
            let hint = match (&compiled.store.location, socket) {
                (StoreLocation::File(_), None) => {
                    "; if that is the proxy: admin.control is off, so this command cannot reach it"
                }
                _ => "",
            };
            format!("{error}{hint}")
        })?;
        let sessions = Sessions::new(opened.handle(), clock, Arc::default(), Arc::default());
        let rules = session_rules(compiled);
        Ok(Self::Store {
            sessions: Arc::new(sessions),
            rules: Box::new(rules),
        })
    }

    /// Has an order carried out.
    ///
    /// # Errors
    ///
    /// In a sentence.
    pub(super) async fn ask(&self, order: Order) -> Result<Answer, String> {
        match self {
            Self::Proxy(socket) => control::call(socket, &order)
                .await
                .map_err(|error| told(socket, &error)),
            Self::Store { sessions, rules } => control::carry_out(sessions, rules, order)
                .await
                .map_err(|failure| {
                    failure
                        .cause
                        .unwrap_or_else(|| failure.refusal.message().into())
                }),
        }
    }
}

/// Opening a store makes one where there is none, which nobody asked for here.
pub(super) fn there_is_a_file(folder: &Path) -> Result<(), String> {
    let path = folder.join(FILE_NAME);
    match path.symlink_metadata() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(format!(
            "there is no {}: no proxy has run with this configuration yet",
            path.display()
        )),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn told(socket: &Path, why: &dyn std::fmt::Display) -> String {
    format!("the control socket {}: {why}", socket.display())
}
