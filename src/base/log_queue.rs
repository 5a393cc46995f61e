//! Lines on their way to a log, which hold up nobody who writes them.
//!
//! A thread of its own writes what has come. It is woken for the first line, and then
//! looks again by itself for a while: under load nobody has to wake it, and what came
//! meanwhile is one piece. Waking somebody for each line would cost a request more than
//! the line; and where the thread has no core of its own, each time it looks a worker has
//! to make way for it.

use std::io::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The most bytes that wait, which all places share evenly. What comes beyond is dropped:
/// some forty thousand lines of requests.
const MOST: usize = 16 * 1024 * 1024;

/// How long a sink that can take no more is left alone.
const RESPITE: Duration = Duration::from_millis(5);

/// How long lines may wait for others once one was written, unless there are many.
const PAUSE: Duration = Duration::from_millis(25);

/// How long the last lines may take.
const LAST: Duration = Duration::from_secs(1);

/// Room that is kept between two pieces.
const KEPT: usize = 64 * 1024;

/// Takes whole lines, one each time it is written to. Clones share a place in which lines
/// wait; see [`LogQueue::beside`].
#[derive(Clone)]
pub struct LogQueue {
    place: Arc<Place>,
    shared: Arc<Shared>,
}

/// The thread that writes. What still waits is written when this is dropped, unless
/// that takes too long.
pub struct LogThread(Arc<Shared>);

/// Where lines wait. Only the thread that writes is ever in the way of a worker that has
/// its own, and only while it takes them.
#[derive(Default)]
struct Place(Mutex<Vec<u8>>);

#[derive(Default)]
struct Shared {
    places: Mutex<Vec<Arc<Place>>>,
    /// How many they are.
    count: AtomicUsize,
    /// The thread has to be woken.
    sleeps: AtomicBool,
    state: Mutex<State>,
    /// There is something to do.
    ready: Condvar,
    /// The thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// There is a place that may be full before the thread would look again.
    urgent: bool,
    ended: bool,
}

/// Starts the thread. What `sink` fails to take is lost: there is nowhere to report it.
///
/// # Errors
///
/// Where no thread can be started.
pub fn start(sink: impl Write + Send + 'static) -> io::Result<(LogQueue, LogThread)> {
    start_with(sink, PAUSE)
}

fn start_with(
    sink: impl Write + Send + 'static,
    pause: Duration,
) -> io::Result<(LogQueue, LogThread)> {
    let shared = Arc::new(Shared::default());
    let of_thread = shared.clone();
    thread::Builder::new()
        .name("cloakroom-log".to_owned())
        .spawn(move || {
            of_thread.write_all(sink, pause);
            lock(&of_thread.state).ended = true;
            of_thread.ended.notify_all();
        })?;
    Ok((LogQueue::of(shared.clone()), LogThread(shared)))
}

impl LogQueue {
    fn of(shared: Arc<Shared>) -> Self {
        let place = Arc::<Place>::default();
        lock(&shared.places).push(place.clone());
        shared.count.fetch_add(1, Ordering::Relaxed);
        Self { place, shared }
    }

    /// The same log, with a place of its own for the lines that wait: for another thread
    /// that writes much, so that none waits for the other. Lines of one place keep their
    /// order.
    pub fn beside(&self) -> Self {
        Self::of(self.shared.clone())
    }

    /// Adds a line, or several, with their ends.
    pub fn push(&self, line: &[u8]) {
        self.push_with(|waiting| waiting.extend_from_slice(line));
    }

    /// Adds the line that `write` writes at the end of what it is given, where others
    /// stand already: so none is copied. The thread that writes waits for it.
    pub fn push_with(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let most = MOST / self.shared.count.load(Ordering::Relaxed).max(1);
        let mut waiting = lock(&self.place.0);
        let before = waiting.len();
        write(&mut waiting);
        if waiting.len() > most {
            waiting.truncate(before);
            return;
        }
        let is_half_full = (before..waiting.len()).contains(&(most / 2));
        drop(waiting);
        // The thread says so before it looks for the last time: it finds this line, or
        // this finds that it sleeps.
        if is_half_full || self.shared.sleeps.load(Ordering::SeqCst) {
            self.shared.wake(is_half_full);
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
        let mut state = lock(&self.0.state);
        state.closed = true;
        self.0.ready.notify_one();
        // Whoever reads the log may have stopped to.
        let waited = self.0.ended.wait_timeout_while(state, LAST, |s| !s.ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    fn write_all(&self, mut sink: impl Write, pause: Duration) {
        let (mut piece, mut is_torn) = (Vec::new(), false);
        loop {
            let is_closed = lock(&self.state).closed;
            let mut found = false;
            // A place that is added meanwhile is looked into the next time.
            let places = lock(&self.places).clone();
            for place in places {
                mem::swap(&mut *lock(&place.0), &mut piece);
                if !piece.is_empty() {
                    found = true;
                    is_torn = write_lines(&mut sink, &piece, is_torn);
                    piece.clear();
                    piece.shrink_to(KEPT);
                }
            }
            match (found, is_closed) {
                (true, _) => {
                    let _ = sink.flush();
                    self.pause(pause);
                }
                // What came before it was closed has been found.
                (false, true) => return,
                (false, false) => self.sleep(),
            }
        }
    }

    /// Lets others come, unless none will.
    fn pause(&self, pause: Duration) {
        let (state, has_time) = (lock(&self.state), |s: &mut State| !s.closed && !s.urgent);
        let paused = self.ready.wait_timeout_while(state, pause, has_time);
        let (mut state, _) = paused.unwrap_or_else(PoisonError::into_inner);
        state.urgent = false;
    }

    /// Waits until there is something to write, or nothing will come any more.
    fn sleep(&self) {
        let mut state = lock(&self.state);
        self.sleeps.store(true, Ordering::SeqCst);
        let is_empty = |place: &Arc<Place>| lock(&place.0).is_empty();
        let nothing = lock(&self.places).iter().all(is_empty);
        while nothing && !state.closed && self.sleeps.load(Ordering::SeqCst) {
            let woken = self.ready.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        self.sleeps.store(false, Ordering::SeqCst);
    }

    fn wake(&self, is_urgent: bool) {
        // Behind the thread, which holds it until it waits.
        let mut state = lock(&self.state);
        state.urgent |= is_urgent;
        self.sleeps.store(false, Ordering::SeqCst);
        drop(state);
        self.ready.notify_one();
    }
}

/// Writes whole lines. Of those that `sink` fails to take it goes on with the next one,
/// which begins on a line of its own. `is_torn`: the last one was cut off; so it answers.
fn write_lines(sink: &mut impl Write, mut lines: &[u8], mut is_torn: bool) -> bool {
    while !lines.is_empty() {
        let written = match is_torn {
            true => sink.write(b"\n").map(|count| {
                is_torn = count == 0;
                0
            }),
            false => sink.write(lines),
        };
        match written {
            Ok(count) => lines = lines.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody has made it so for reasons of his own; it is read in time.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RESPITE),
            Err(_) => {
                let end = lines.iter().position(|byte| *byte == b'\n');
                lines = end.and_then(|end| lines.get(end + 1..)).unwrap_or_default();
                is_torn = true;
            }
        }
    }
    is_torn
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Takes a few bytes at a time, and fails where it is told to.
    #[derive(Default)]
    struct Faulty {
        calls: usize,
        fails: Vec<(usize, io::ErrorKind)>,
        taken: Vec<u8>,
    }

    impl Write for Faulty {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.calls += 1;
            let fault = self.fails.iter().find(|(call, _)| *call == self.calls);
            if let Some((_, kind)) = fault {
                return Err((*kind).into());
            }
            let count = bytes.len().min(4);
            self.taken.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_fails_costs_a_line_and_tears_no_other() {
        use io::ErrorKind::{Interrupted, StorageFull, WouldBlock};
        let mut sink = Faulty {
            fails: vec![(2, WouldBlock), (3, Interrupted), (4, StorageFull)],
            ..Faulty::default()
        };
        let is_torn = write_lines(&mut sink, b"first line\nsecond\n", false);
        assert!(!is_torn);
        assert_eq!(sink.taken, b"firs\nsecond\n");
        let mut sink = Faulty {
            fails: vec![(2, StorageFull)],
            ..Faulty::default()
        };
        assert!(write_lines(&mut sink, b"first line\n", false));
        assert!(!write_lines(&mut sink, b"next\n", true));
        assert_eq!(sink.taken, b"firs\nnext\n");
    }

    #[test]
    fn each_place_keeps_its_order_and_none_is_forgotten() {
        const LINES: usize = 2000;
        let (sender, written) = mpsc::channel();
        let (go_on, may) = mpsc::channel();
        drop(go_on);
        let (queue, log_thread) = start(Slow(sender, may)).unwrap();
        thread::scope(|scope| {
            for name in ["a", "b", "c", "d"] {
                let queue = queue.beside();
                scope.spawn(move || {
                    for number in 0..LINES {
                        queue.push(format!("{name} {number}\n").as_bytes());
                        if number % 100 == 0 {
                            // So that the thread falls asleep now and then.
                            thread::yield_now();
                        }
                    }
                });
            }
        });
        // Without anybody who closes it.
        let mut all = Vec::new();
        while all.iter().filter(|byte| **byte == b'\n').count() < 4 * LINES {
            let piece = written.recv_timeout(Duration::from_secs(30));
            all.extend(piece.expect("a line was forgotten"));
        }
        drop(log_thread);
        let all = String::from_utf8(all).unwrap();
        for name in ["a", "b", "c", "d"] {
            let own = all.lines().filter_map(|line| line.strip_prefix(name));
            let numbers: Vec<usize> = own.map(|n| n.trim().parse().unwrap()).collect();
            assert!(numbers.into_iter().eq(0..LINES), "{name}");
        }
    }

    #[test]
    fn many_lines_do_not_wait_for_the_end_of_a_pause() {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let (sender, written) = mpsc::channel();
        let (go_on, may) = mpsc::channel();
        drop(go_on);
        let (queue, thread) = start_with(Slow(sender, may), DAY).unwrap();
        for _ in 0..3 {
            queue.push(b"1\n");
            let large = vec![b'x'; MOST / 2 + 1];
            queue.push(&large);
            let mut count = 0;
            while count < 2 + large.len() {
                let piece = written.recv_timeout(Duration::from_secs(30));
                count += piece.expect("it waits for the end of the pause").len();
            }
        }
        drop(thread);
    }

    #[test]
    fn only_one_pause_is_cut_short_for_what_is_urgent() {
        let shared = Shared::default();
        shared.wake(true);
        shared.pause(Duration::from_secs(24 * 3600));
        assert!(!lock(&shared.state).urgent);
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
        assert_eq!(lock(&queue.place.0).len(), MOST);
        drop(go_on);
        drop(thread);
        assert_eq!(written.iter().flatten().count(), MOST);
    }
}
