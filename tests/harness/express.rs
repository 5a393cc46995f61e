//! Applications for Node.js in `tests/apps`, and the browser there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::PATIENCE;
use super::process::{Process, Signal};

/// The longest that the browser may take for its whole tour.
const BROWSER_PATIENCE: Duration = Duration::from_secs(180);

/// An application, running.
pub struct Express {
    addr: SocketAddr,
    _process: Process,
}

impl Express {
    /// The Express application.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Self {
        Self::run("express", "app.mjs")
    }

    /// A script that prints `listening PORT`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn run(name: &str, script: &str) -> Self {
        let process = Process::start(Command::new("node").arg(script).current_dir(app(name)));
        let port = |line: &str| line.strip_prefix("listening ")?.parse::<u16>().ok();
        let Some(port) = process.output().find(PATIENCE, port) else {
            panic!(
                "the application {name} does not start:\n{}",
                process.output().text()
            );
        };
        Self {
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            _process: process,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// Lets a browser sign in and out at `base`, with the screenshots in `pictures`.
///
/// # Panics
/// If it finds anything wrong.
pub fn browse(base: &str, name: &str, password: &str, id: &str, pictures: &Path) {
    run_browser(
        Command::new("node")
            .arg("sign-in.mjs")
            .args([base, name, password])
            .arg(pictures)
            .env("USER_ID", id),
    );
}

/// Lets a browser use the sockets of the application behind `base`.
///
/// # Panics
/// If it finds anything wrong.
pub fn browse_sockets(base: &str, name: &str, password: &str, id: &str, pictures: &Path) {
    run_browser(
        Command::new("node")
            .arg("sockets.mjs")
            .args([base, name, password, id])
            .arg(pictures),
    );
}

fn run_browser(command: &mut Command) {
    let mut process = Process::start(command.current_dir(app("browser")));
    let status = process.wait(BROWSER_PATIENCE).unwrap_or_else(|| {
        // Lets it close the browser.
        process.signal(Signal::Term);
        let stopped = process.wait(PATIENCE);
        panic!(
            "the browser did not end in time ({stopped:?}):\n{}",
            process.output().text()
        );
    });
    assert!(status.success(), "{}", process.output().text());
}

/// An application's folder, its packages installed.
pub fn app(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/apps")
        .join(name);
    let packages = folder.join("node_modules");
    assert!(
        packages.is_dir(),
        "{} is missing: run scripts/setup-tests.sh",
        packages.display()
    );
    folder
}
