//! A server's door for tests: it takes connections, and lets nothing through until it
//! is opened. So does a server that hangs, or is overwhelmed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A door that is closed at first; there until it is dropped.
pub(crate) struct Door {
    opening: watch::Sender<bool>,
    visitors: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Door {
    /// At `path`, to the server with the socket `upstream`.
    pub(crate) fn closed(path: &Path, upstream: PathBuf) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (opening, opened) = watch::channel(false);
        let visitors = Arc::new(AtomicUsize::new(0));
        let count = visitors.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (upstream, mut opened) = (upstream.clone(), opened.clone());
                tokio::spawn(async move {
                    if opened.wait_for(|open| *open).await.is_ok() {
                        let mut far = UnixStream::connect(upstream).await.unwrap();
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Self {
            opening,
            visitors,
            task,
        }
    }

    /// At `path`, to the server with the socket `upstream`: one at which each visitor
    /// waits for `entry` before the first word goes through, and for `word` before
    /// each one.
    pub(crate) fn slow(path: &Path, upstream: PathBuf, entry: Duration, word: Duration) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let visitors = Arc::new(AtomicUsize::new(0));
        let count = visitors.clone();
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let upstream = upstream.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(entry).await;
                    let far = UnixStream::connect(upstream).await.unwrap();
                    let _ = pass_slowly(near, far, word).await;
                });
            }
        });
        Self {
            opening: watch::Sender::new(true),
            visitors,
            task,
        }
    }

    /// From now on all goes through, also what came before.
    pub(crate) fn open(&self) {
        self.opening.send_replace(true);
    }

    /// How many connections were made.
    pub(crate) fn visitors(&self) -> usize {
        self.visitors.load(Ordering::SeqCst)
    }
}

/// Passes on what comes, what comes from `near` later by `word`.
async fn pass_slowly(near: UnixStream, far: UnixStream, word: Duration) -> std::io::Result<()> {
    let (mut near_out, mut near_in) = near.into_split();
    let (mut far_out, mut far_in) = far.into_split();
    let there = async move {
        let mut said = vec![0; 64 * 1024];
        loop {
            let length = near_out.read(&mut said).await?;
            if length == 0 {
                return far_in.shutdown().await;
            }
            tokio::time::sleep(word).await;
            far_in.write_all(&said[..length]).await?;
        }
    };
    let back = async move {
        copy(&mut far_out, &mut near_in).await?;
        near_in.shutdown().await
    };
    tokio::try_join!(there, back).map(|_| ())
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}
