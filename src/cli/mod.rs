//! Layer 8: the command line, one file a command.

pub mod check;
pub mod demo;
pub mod demo_app;
pub mod healthcheck;
pub mod run;
pub mod schema;
pub mod sessions;
pub mod user;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::Environment;

/// The exit code of a configuration that cannot be used (sysexits.h).
const EX_CONFIG: u8 = 78;

#[derive(Parser)]
#[command(
    name = "cloakroom",
    version,
    about = "An authenticating reverse proxy: sessions, login and access rules in front of any web application",
    after_help = "Start with `cloakroom demo`."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the proxy
    Run {
        /// Configuration file [default: $CLOAKROOM_CONFIG, ./cloakroom.toml, /etc/cloakroom/cloakroom.toml]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where the application is, in place of the file's only upstream; works without a file too
        #[arg(long, value_name = "URL")]
        upstream: Option<String>,
        /// Where to listen, in place of the file's addresses
        #[arg(long, value_name = "ADDR")]
        listen: Vec<String>,
    },
    /// Try everything at once: a proxy, two users and a small application
    Demo {
        /// Where to listen
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
    },
    /// Check a configuration and print every problem of it
    Check {
        /// Configuration file [default: as for run]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Add, change, remove and list the users of a users file
    #[command(subcommand)]
    User(user::UserCommand),
    /// List, end, count and move the sessions of the store
    #[command(subcommand)]
    Sessions(sessions::SessionsCommand),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Ask a running proxy's /healthz; for containers without other tools
    #[command(hide = true)]
    Healthcheck {
        /// Its admin listener
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9180")]
        admin: SocketAddr,
    },
}

/// Runs the command of this process's arguments. Usage errors end the process
/// with code 2.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run {
            config,
            upstream,
            listen,
        } => run::run(config.as_deref(), upstream, listen),
        Command::Demo { listen } => demo::run(listen),
        Command::Check { config } => {
            let environment = Environment::of_process();
            match check::run(config.as_deref(), &environment) {
                Ok(code) => code,
                Err(error) => fail(&format!("cannot write: {error}")),
            }
        }
        Command::User(command) => finish(user::run(command)),
        Command::Sessions(command) => sessions::run(command),
        Command::Schema => finish(schema::run().map_err(|e| format!("cannot write: {e}"))),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "cloakroom", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Healthcheck { admin } => finish(healthcheck::run(admin)),
    }
}

fn finish(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("cloakroom: {message}");
    ExitCode::FAILURE
}

/// Whether messages on standard error may be coloured.
fn coloured(environment: &Environment) -> bool {
    std::io::stderr().is_terminal() && environment.value("NO_COLOR").is_none()
}
