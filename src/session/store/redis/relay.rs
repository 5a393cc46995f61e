//! A relay in front of a server for tests: it can stop forwarding, with every
//! connection left open, as a network does that drops packets.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A relay that runs in the runtime in which it was made, and ends with it.
pub(crate) struct Relay {
    folder: TempDir,
    hole: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Forwards to the server at `socket`.
    pub(crate) fn to(socket: PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("relay.sock")).unwrap();
        let (hole, watched) = watch::channel(false);
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                tokio::spawn(forward(near, socket.clone(), watched.clone()));
            }
        });
        Self { folder, hole, task }
    }

    /// A URL for `store.url`.
    pub(crate) fn url(&self) -> String {
        let path: &Path = &self.folder.path().join("relay.sock");
        format!("redis+unix://{}", path.display())
    }

    /// From now on nothing comes through; or all of it does again.
    pub(crate) fn swallow(&self, on: bool) {
        self.hole.send_replace(on);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(near: UnixStream, socket: PathBuf, hole: watch::Receiver<bool>) {
    let Ok(far) = UnixStream::connect(socket).await else {
        return;
    };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    // Either side's end is the end of both.
    tokio::select! {
        () = copy(near_in, far_out, hole.clone()) => {}
        () = copy(far_in, near_out, hole) => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut hole: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if hole.wait_for(|hole| !hole).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
