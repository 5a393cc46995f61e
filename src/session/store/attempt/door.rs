//! A server's door for tests: it takes connections, and lets nothing through until it
//! is opened. So does a server that hangs, or is overwhelmed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
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

    /// From now on all goes through, also what came before.
    pub(crate) fn open(&self) {
        self.opening.send_replace(true);
    }

    /// How many connections were made.
    pub(crate) fn visitors(&self) -> usize {
        self.visitors.load(Ordering::SeqCst)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}
