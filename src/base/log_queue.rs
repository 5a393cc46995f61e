//! Lines on their way to a log, which hold up nobody who writes them.
//!
//! A thread of its own writes what has come. It is woken for the first line, and then
//! looks again by itself for a while: under load nobody has to wake it, and what came
//! meanwhile is one piece. Waking somebody for each line would cost a request more than
//! the line.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The most bytes that wait. What comes beyond is dropped: some forty thousand lines of
/// requests.
const MOST: usize = 16 * 1024 * 1024;

/// How long lines may wait for others once one was written.
const PAUSE: Duration = Duration::from_millis(5);

/// How long the last lines may take.
const LAST: Duration = Duration::from_secs(1);

/// Room that is kept between two pieces.
const KEPT: usize = 64 * 1024;

/// Takes whole lines, one each time it is written to. Clones write to the same log.
#[derive(Clone)]
pub struct LogQueue(Arc<Shared>);

/// The thread that writes. What still waits is written when this is dropped, unless
/// that takes too long.
pub struct LogThread(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is something to do.
    ready: Condvar,
    /// The thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<u8>,
    /// The thread has to be woken.
    sleeps: bool,
    closed: bool,
    ended: bool,
}

/// Starts the thread. What `sink` fails to take is lost: there is nowhere to report it.
///
/// # Errors
///
/// Where no thread can be started.
pub fn start(sink: impl Write + Send + 'static) -> io::Result<(LogQueue, LogThread)> {
    let shared = Arc::new(Shared::default());
    let of_thread = shared.clone();
    thread::Builder::new()
        .name("cloakroom-log".to_owned())
        .spawn(move || {
            of_thread.write_all(sink);
            of_thread.lock().ended = true;
            of_thread.ended.notify_all();
        })?;
    Ok((LogQueue(shared.clone()), LogThread(shared)))
}

impl LogQueue {
    /// Adds a line, or several, with their ends.
    pub fn push(&self, line: &[u8]) {
        let mut queue = self.0.lock();
        if queue.waiting.len().saturating_add(line.len()) > MOST {
            return;
        }
        queue.waiting.extend_from_slice(line);
        let sleeps = mem::take(&mut queue.sleeps);
        drop(queue);
        if sleeps {
            self.0.ready.notify_one();
        }
    }
}

impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogThread {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        self.0.ready.notify_one();
        // Whoever reads the log may have stopped to.
        let waited = self.0.ended.wait_timeout_while(queue, LAST, |q| !q.ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    fn write_all(&self, mut sink: impl Write) {
        let mut piece = Vec::new();
        while self.take(&mut piece) {
            let _ = sink.write_all(&piece);
            let _ = sink.flush();
            piece.clear();
            piece.shrink_to(KEPT);
            self.pause();
        }
    }

    /// Waits for something to write. Whether there is more to come.
    fn take(&self, piece: &mut Vec<u8>) -> bool {
        let mut queue = self.lock();
        while queue.waiting.is_empty() {
            if queue.closed {
                return false;
            }
            queue.sleeps = true;
            let woken = self.ready.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
        }
        queue.sleeps = false;
        mem::swap(&mut queue.waiting, piece);
        true
    }

    /// Lets others come, unless none will.
    fn pause(&self) {
        let queue = self.lock();
        let paused = self.ready.wait_timeout_while(queue, PAUSE, |q| !q.closed);
        drop(paused.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Hands over what it is given, and then waits until it may go on.
    struct Slow(mpsc::Sender<Vec<u8>>, mpsc::Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            let _ = self.1.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_come_out_in_order_and_the_last_ones_as_well() {
        let (sender, written) = mpsc::channel();
        let (go_on, may) = mpsc::channel();
        let (queue, thread) = start(Slow(sender, may)).unwrap();
        queue.push(b"1\n");
        assert_eq!(written.recv().unwrap(), b"1\n");
        // The thread is busy, and nobody waits for it.
        queue.clone().write_all(b"2\n").unwrap();
        queue.push(b"3\n");
        drop(go_on);
        drop(thread);
        let rest: Vec<u8> = written.iter().flatten().collect();
        assert_eq!(rest, b"2\n3\n");
    }

    #[test]
    fn a_log_that_nobody_reads_holds_up_nobody() {
        let (sender, written) = mpsc::channel();
        let (go_on, may) = mpsc::channel();
        let (queue, thread) = start(Slow(sender, may)).unwrap();
        queue.push(b"1\n");
        written.recv().unwrap();
        let large = vec![b'x'; MOST];
        queue.push(&large);
        queue.push(b"2\n");
        assert_eq!(queue.0.lock().waiting.len(), MOST);
        drop(go_on);
        drop(thread);
        assert_eq!(written.iter().flatten().count(), MOST);
    }
}
