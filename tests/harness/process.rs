//! Child processes that do not outlive their owner, and what they print.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The signals that tests send.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    Term,
    Int,
    Hup,
    Stop,
    Cont,
}

/// A child process. Dropping it kills it, and nothing else.
pub struct Process {
    child: Child,
    output: Arc<Output>,
}

impl Process {
    /// Starts a command with no input, and reads what it prints.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {:?}: {e}", command.get_program()));
        let output = Arc::new(Output::default());
        output.follow(Stream::Stdout, child.stdout.take().unwrap());
        output.follow(Stream::Stderr, child.stderr.take().unwrap());
        Self { child, output }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn output(&self) -> &Arc<Output> {
        &self.output
    }

    /// Sends a signal to this process. One that has ended gets none, so that
    /// nobody else who was given its number can be hit.
    pub fn signal(&mut self, signal: Signal) {
        if self.child.try_wait().unwrap().is_some() {
            return;
        }
        let name = match signal {
            Signal::Term => "TERM",
            Signal::Int => "INT",
            Signal::Hup => "HUP",
            Signal::Stop => "STOP",
            Signal::Cont => "CONT",
        };
        // `kill` is part of every shell, but not a program on every system.
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &self.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success(), "cannot send {name} to {}", self.id());
        if matches!(signal, Signal::Stop) {
            crate::harness::eventually("every thread has stopped", || self.is_stopped());
        }
    }

    /// Whether all of its threads stand still: a signal takes its time.
    fn is_stopped(&self) -> Option<()> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.id())).ok()?;
        let stopped = threads.filter_map(Result::ok).all(|thread| {
            let stat = std::fs::read_to_string(thread.path().join("stat"));
            // The state follows the name, which is in brackets.
            stat.is_ok_and(|stat| {
                stat.rsplit(')')
                    .next()
                    .is_some_and(|rest| rest.starts_with(" T"))
            })
        });
        stopped.then_some(())
    }

    /// Ends it at once (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> ExitStatus {
        // The only error is that it has ended already.
        let _ = self.child.kill();
        self.child.wait().unwrap()
    }

    /// Waits until it ends by itself; `None` if it does not within `limit`.
    /// What it printed is complete afterwards.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.output.wait_for_end(limit);
                return Some(status);
            }
            if begin.elapsed() > limit {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where a line was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// What a process has printed so far, line by line, in order of arrival.
#[derive(Default)]
pub struct Output {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<(Stream, String)>,
    open: usize,
}

impl Output {
    fn follow(self: &Arc<Self>, stream: Stream, source: impl Read + Send + 'static) {
        self.state.lock().unwrap().open += 1;
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                output.state.lock().unwrap().lines.push((stream, text));
                output.news.notify_all();
            }
            output.state.lock().unwrap().open -= 1;
            output.news.notify_all();
        });
    }

    /// Everything on both streams.
    pub fn text(&self) -> String {
        self.collect(|_| true)
    }

    /// Everything on one stream.
    pub fn of(&self, stream: Stream) -> String {
        self.collect(|s| s == stream)
    }

    fn collect(&self, wanted: impl Fn(Stream) -> bool) -> String {
        let state = self.state.lock().unwrap();
        let lines = state.lines.iter().filter(|(s, _)| wanted(*s));
        lines.map(|(_, text)| format!("{text}\n")).collect()
    }

    /// The lines that are JSON objects.
    pub fn json(&self) -> Vec<serde_json::Value> {
        let state = self.state.lock().unwrap();
        let lines = state.lines.iter().filter(|(_, text)| text.starts_with('{'));
        lines
            .filter_map(|(_, text)| serde_json::from_str(text).ok())
            .collect()
    }

    /// The first line, printed already or yet to come, of which `pick` makes
    /// something; `None` if all is printed or `limit` has passed without it.
    pub fn find<T>(&self, limit: Duration, mut pick: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let begin = Instant::now();
        let mut seen = 0;
        let mut state = self.state.lock().unwrap();
        loop {
            while let Some((_, line)) = state.lines.get(seen) {
                seen += 1;
                if let Some(found) = pick(line) {
                    return Some(found);
                }
            }
            let left = limit.checked_sub(begin.elapsed())?;
            if state.open == 0 {
                return None;
            }
            state = self.news.wait_timeout(state, left).unwrap().0;
        }
    }

    /// The first JSON line, printed already or yet to come, that `wanted` says
    /// yes to.
    ///
    /// # Panics
    /// If there is none within [`super::PATIENCE`].
    pub fn wait_for_json(&self, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        self.find(super::PATIENCE, |line| {
            let value = serde_json::from_str(line).ok()?;
            wanted(&value).then_some(value)
        })
        .unwrap_or_else(|| panic!("no such line in the log:\n{}", self.text()))
    }

    /// The first line, printed already or yet to come, that holds one of these words.
    /// What a program says of a request may come after its answer.
    ///
    /// # Panics
    /// If there is none within [`super::PATIENCE`].
    pub fn wait_for_words(&self, words: &[&str]) -> String {
        let has = |line: &str| words.iter().any(|word| line.contains(word));
        self.find(super::PATIENCE, |line| has(line).then(|| line.to_owned()))
            .unwrap_or_else(|| panic!("none of {words:?} in the log:\n{}", self.text()))
    }

    fn wait_for_end(&self, limit: Duration) {
        let state = self.state.lock().unwrap();
        let open = |state: &mut State| state.open > 0;
        drop(self.news.wait_timeout_while(state, limit, open).unwrap());
    }
}
