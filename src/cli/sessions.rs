//! `cloakroom sessions`: who is signed in, and ending it.
//!
//! A store that others can open too is opened here. One that belongs to a
//! process alone is reached by the control socket of the proxy that runs, or,
//! where none runs, opened from its file. Tokens are never printed, and never
//! known here.

mod desk;
mod migrate;
mod table;

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use self::desk::Desk;
use super::{EX_CONFIG, coloured};
use crate::admin::control::{Answer, Entry, Order};
use crate::config::{self, Compiled, Environment, Overrides, Source, locate};

/// What to do with the sessions of a store.
#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// List the sessions, of everybody or of one user
    List(List),
    /// Show one session
    Show(One),
    /// End sessions by their handles
    Revoke(Revoke),
    /// End all sessions of a user, also those whose login is running now
    RevokeUser(RevokeUser),
    /// Count the sessions
    Count(Count),
    /// Copy the sessions to another store, so that nobody has to sign in again: stop the proxies,
    /// copy, start them with the new store and the same secrets
    Migrate(migrate::Migrate),
}

/// What each command takes.
#[derive(Debug, Args)]
pub struct Common {
    /// Configuration file [default: as for run]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `cloakroom sessions list`.
#[derive(Debug, Args)]
pub struct List {
    /// Only those of this user, by the user id
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    /// The most that are listed
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub limit: usize,
    #[command(flatten)]
    common: Common,
}

/// `cloakroom sessions show`.
#[derive(Debug, Args)]
pub struct One {
    /// Its handle, as in the log and the list
    pub handle: String,
    /// Whose it is, by the user id; without it everybody's are looked through
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// `cloakroom sessions revoke`.
#[derive(Debug, Args)]
pub struct Revoke {
    /// Their handles, as in the log and the list
    #[arg(required = true, value_name = "HANDLE")]
    pub handles: Vec<String>,
    /// Whose they are, by the user id; without it everybody's are looked through
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// `cloakroom sessions revoke-user`.
#[derive(Debug, Args)]
pub struct RevokeUser {
    /// The user id, as the list shows it: not the name that is typed at login
    pub user: String,
    #[command(flatten)]
    common: Common,
}

/// `cloakroom sessions count`.
#[derive(Debug, Args)]
pub struct Count {
    /// Only those of this user, by the user id
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Why a command did not succeed.
pub(super) enum Trouble {
    /// The configuration cannot be used; rendered.
    Config(String),
    /// Anything else, in a sentence.
    Failed(String),
}

impl From<String> for Trouble {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

/// Runs the command. Exit code 0: done; 1: not, or not all of it; 78: the
/// configuration cannot be used.
pub fn run(command: SessionsCommand) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(perform(command)),
        Err(error) => Err(Trouble::Failed(format!("no runtime: {error}"))),
    };
    match result {
        Ok(code) => code,
        Err(Trouble::Config(text)) => {
            // Without standard error there is nowhere to say it.
            let _ = io::stderr().lock().write_all(text.as_bytes());
            ExitCode::from(EX_CONFIG)
        }
        Err(Trouble::Failed(message)) => super::fail(&message),
    }
}

async fn perform(command: SessionsCommand) -> Result<ExitCode, Trouble> {
    match command {
        SessionsCommand::List(args) => {
            let desk = Desk::open(&load(args.common.config.as_deref())?).await?;
            let (mut entries, more) = collect(&desk, args.user, args.limit).await?;
            entries.sort_by(|a, b| (&a.user, a.created).cmp(&(&b.user, b.created)));
            if args.common.json {
                let all: Vec<_> = entries.iter().map(table::json).collect();
                say(&table::line(&json!({ "sessions": all, "more": more })))?;
            } else {
                say(&table::table(&entries))?;
                if more {
                    eprintln!("There are more; --limit says how many are listed.");
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        SessionsCommand::Show(args) => {
            let desk = Desk::open(&load(args.common.config.as_deref())?).await?;
            let wanted = HashSet::from([args.handle.as_str()]);
            let found = find(&desk, args.user, &wanted).await?;
            let entry = found
                .first()
                .ok_or_else(|| format!("there is no session {}", args.handle))?;
            say(&match args.common.json {
                true => table::line(&table::json(entry)),
                false => table::details(entry),
            })?;
            Ok(ExitCode::SUCCESS)
        }
        SessionsCommand::Revoke(args) => revoke(args).await,
        SessionsCommand::RevokeUser(args) => {
            let desk = Desk::open(&load(args.common.config.as_deref())?).await?;
            let user = args.user;
            let count = ended(desk.ask(Order::RevokeUser { user: user.clone() }).await?)?;
            say(&match args.common.json {
                true => table::line(&json!({ "ended": count })),
                false => format!(
                    "{count} ended; whoever is signing in as {user} now has to begin anew\n"
                ),
            })?;
            Ok(ExitCode::SUCCESS)
        }
        SessionsCommand::Count(args) => {
            let desk = Desk::open(&load(args.common.config.as_deref())?).await?;
            let (sessions, users) = count(&desk, args.user).await?;
            say(&match args.common.json {
                true => table::line(&json!({ "sessions": sessions, "users": users })),
                false => format!("{sessions} sessions of {users} users\n"),
            })?;
            Ok(ExitCode::SUCCESS)
        }
        SessionsCommand::Migrate(args) => migrate::run(args).await,
    }
}

async fn revoke(args: Revoke) -> Result<ExitCode, Trouble> {
    let desk = Desk::open(&load(args.common.config.as_deref())?).await?;
    let wanted: HashSet<&str> = args.handles.iter().map(String::as_str).collect();
    let mut done = Vec::new();
    for entry in find(&desk, args.user, &wanted).await? {
        let (user, handle) = (entry.user, entry.handle);
        let order = Order::Revoke {
            user,
            handle: handle.clone(),
        };
        if ended(desk.ask(order).await?)? > 0 {
            done.push(handle);
        }
    }
    let missing: Vec<&str> = wanted
        .into_iter()
        .filter(|handle| done.iter().all(|d| d != handle))
        .collect();
    if args.common.json {
        say(&format!(
            "{}\n",
            json!({ "ended": done, "unknown": missing })
        ))?;
    } else {
        for handle in &done {
            say(&format!("{handle} ended\n"))?;
        }
    }
    if missing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let missing = missing.join(", ");
    Err(format!("there is no session {}", table::plain(&missing)).into())
}

/// The configuration that a command works with.
fn load(file: Option<&Path>) -> Result<Compiled, Trouble> {
    let environment = Environment::of_process();
    let path = locate(file, &environment)
        .ok_or_else(|| Trouble::Config(format!("cloakroom: {}\n", super::check::no_file())))?;
    let colour = coloured(&environment);
    let source = Source::read(&path).map_err(|problem| {
        let name = path.display().to_string();
        Trouble::Config(config::problem::render(&[problem], &name, "", colour))
    })?;
    match config::load(&source, &environment, &Overrides::default()) {
        Ok((compiled, _)) => Ok(compiled),
        Err(problems) => Err(Trouble::Config(source.render(&problems, colour))),
    }
}

/// Goes through the sessions until `each` has seen enough, and shows it each
/// one once.
async fn walk(
    desk: &Desk,
    user: Option<String>,
    mut each: impl FnMut(Entry) -> bool,
) -> Result<(), String> {
    let (mut cursor, mut seen) = (None, HashSet::new());
    loop {
        let order = Order::List {
            user: user.clone(),
            cursor,
        };
        let Answer::Sessions { sessions, next } = desk.ask(order).await? else {
            return Err("a strange answer".to_owned());
        };
        for entry in sessions {
            if seen.insert(entry.handle.clone()) && !each(entry) {
                return Ok(());
            }
        }
        cursor = next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// The first sessions, and whether there are more.
async fn collect(
    desk: &Desk,
    user: Option<String>,
    limit: usize,
) -> Result<(Vec<Entry>, bool), String> {
    let (mut entries, mut more) = (Vec::new(), false);
    walk(desk, user, |entry| {
        more = entries.len() >= limit;
        if !more {
            entries.push(entry);
        }
        !more
    })
    .await?;
    Ok((entries, more))
}

async fn find(
    desk: &Desk,
    user: Option<String>,
    wanted: &HashSet<&str>,
) -> Result<Vec<Entry>, String> {
    let mut found = Vec::new();
    walk(desk, user, |entry| {
        if wanted.contains(entry.handle.as_str()) {
            found.push(entry);
        }
        found.len() < wanted.len()
    })
    .await?;
    Ok(found)
}

async fn count(desk: &Desk, user: Option<String>) -> Result<(usize, usize), String> {
    let (mut sessions, mut users) = (0, HashSet::new());
    walk(desk, user, |entry| {
        sessions += 1;
        users.insert(entry.user);
        true
    })
    .await?;
    Ok((sessions, users.len()))
}

fn ended(answer: Answer) -> Result<usize, String> {
    match answer {
        Answer::Ended { count } => Ok(count),
        Answer::Sessions { .. } => Err("a strange answer".to_owned()),
    }
}

/// Writes to standard output. Whoever has stopped reading is no trouble.
fn say(text: &str) -> Result<(), String> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write: {error}"))
        }
        _ => Ok(()),
    }
}
