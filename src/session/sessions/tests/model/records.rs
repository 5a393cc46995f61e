//! What commands do to the records.
//!
//! The records lie in the store in memory, which keeps the contract of all stores. What
//! applications share has a tombstone and facts beside it, as in
//! `store/redis/express.rs`.

use super::super::*;
use super::look::{Signed, json_of};
use super::stage::{Answer, CallId, Command, Fault, Line, News, State};
use crate::session::layout::express::Kept;
use std::task::{Context, Poll, Waker};

impl State {
    /// Puts a session there, as a login long ago did.
    pub fn seed(&mut self, signed: &Signed) {
        self.signed.push(signed.clone());
        let record = signed.record.clone();
        self.keys.insert(record.key.to_string());
        if let Some(facts) = Kept::unpack(&record.value).and_then(|kept| kept.facts) {
            self.facts.insert(record.key.to_string(), facts);
        }
        assert_eq!(at_once(self.memory.create(record)), Ok(true));
    }

    /// How often an application has written to a record, by the record. `None`: there is
    /// no record.
    pub fn cart(&self, key: &str) -> Option<u64> {
        let json = json_of(&self.value(key)?);
        Some(json["cart"].as_u64().unwrap_or(0))
    }

    fn value(&self, key: &str) -> Option<Bytes> {
        let stored = at_once(self.memory.load(key)).unwrap();
        stored.map(|stored| stored.value)
    }

    /// What of the store a command reads or changes, and what it changes. What a channel
    /// brings comes in order, so what adds to it is a change of that, too.
    pub fn concerns(&self, id: CallId) -> (u64, u64) {
        let clock = bit("clock");
        let call = &self.calls[&id];
        let (reads, told) = match &call.command {
            Command::Now => (clock, Some("")),
            Command::Create(record) => (bit(&record.key) | bit("records"), Some(&*record.key)),
            // What was written back after its end goes.
            Command::Load(key) => (bit(key), self.tombs.get(key).map(|key| &**key)),
            Command::Get(key) => (bit(key), None),
            Command::Touch(key, ..) | Command::Update(key, ..) => (bit(key), Some(&**key)),
            Command::Delete(key) | Command::Set(key, _) => {
                (bit(key) | bit("records"), Some(&**key))
            }
            Command::Epoch(user) => (bit(user), None),
            Command::Raise(user, _) => (bit(user) | clock, Some(&**user)),
            Command::OfUser(_) => (bit("records"), None),
        };
        let mut writes = told.map_or(0, |_| reads);
        for (number, channel) in self.channels.iter().enumerate() {
            let asked_there = call.line == Line::Channel && call.replica == number;
            let is_told = told.is_some_and(|name| {
                let user = format!("epoch:{name}");
                let tracked = channel.tracked.contains(name) || channel.tracked.contains(&user);
                channel.is_told(tracked, self.news)
            });
            if asked_there || is_told {
                writes |= bit(["first inbox", "second inbox"][number]);
            }
        }
        (reads, writes)
    }

    /// Does what a command says, and looks whether it did more than it may.
    pub(super) fn execute(
        &mut self,
        id: CallId,
        replica: usize,
        line: Line,
        command: Command,
    ) -> Answer {
        let by_app = matches!(command, Command::Set(..));
        if by_app || matches!(command, Command::Create(_)) {
            return self.run(replica, line, command);
        }
        let stored = |state: &Self| {
            let values = state.keys.iter().map(|key| state.value(key));
            values.collect::<Vec<_>>()
        };
        let before = stored(self);
        let updates = matches!(command, Command::Update(..));
        let answer = self.run(replica, line, command);
        let may = |was: &Option<Bytes>, is: &Option<Bytes>| match (was, is) {
            (None, is) => is.is_none(),
            (Some(was), Some(is)) => updates || was == is,
            (Some(_), None) => true,
        };
        let bad = before
            .iter()
            .zip(stored(self))
            .any(|(was, is)| !may(was, &is));
        if bad {
            let what = self.describe(id);
            self.broken
                .get_or_insert(format!("{what} makes or changes a record"));
        }
        answer
    }

    fn run(&mut self, replica: usize, line: Line, command: Command) -> Answer {
        let (fault, news) = (self.fault, self.news);
        if line == Line::Channel {
            let read = match &command {
                Command::Load(key) => Some(key.clone()),
                Command::Epoch(user) => Some(format!("epoch:{user}")),
                _ => None,
            };
            self.channels[replica].tracked.extend(read);
        }
        let memory = &self.memory;
        match command {
            Command::Now => Answer::Moment(at_once(memory.now()).unwrap()),
            Command::Create(record) => {
                let key = record.key.to_string();
                if self.tombs.contains(&key) {
                    return Answer::Done(false);
                }
                let facts = Kept::unpack(&record.value).and_then(|kept| kept.facts);
                let made = at_once(memory.create(record)).unwrap();
                if !self.keys.insert(key.clone()) || !made {
                    self.broken.get_or_insert(format!("{key} was given twice"));
                }
                self.facts.extend(facts.map(|facts| (key.clone(), facts)));
                // Elsewhere nobody is told of what is new.
                if news == News::Tracked {
                    self.tell(&key);
                }
                Answer::Done(made)
            }
            Command::Load(key) => {
                if self.tombs.contains(&key) && at_once(memory.delete(&key)).unwrap() {
                    self.tell(&key);
                }
                Answer::Record(at_once(self.memory.load(&key)).unwrap())
            }
            Command::Touch(key, seen, ttl) => {
                let mut done = at_once(memory.touch(&key, seen, ttl)).unwrap();
                if !done && fault == Some(Fault::Upsert) {
                    self.memory_puts(&key, Bytes::from_static(b"x"));
                    done = true;
                }
                if done && news == News::Tracked {
                    self.tell(&key);
                }
                Answer::Done(done)
            }
            // What an application has written stays as it is.
            Command::Update(..) if self.shared => Answer::Done(false),
            Command::Update(key, old, new) => {
                let done = at_once(memory.update(&key, old, new)).unwrap();
                if done {
                    self.tell(&key);
                }
                Answer::Done(done)
            }
            Command::Delete(key) => {
                let done = at_once(memory.delete(&key)).unwrap();
                self.ended.insert(key.clone());
                if self.shared {
                    self.facts.remove(&key);
                    self.tombs.insert(key.clone());
                }
                if done || news != News::Tracked {
                    self.tell(&key);
                }
                Answer::Done(done)
            }
            Command::Epoch(user) => Answer::Raised(at_once(memory.epoch(&user)).unwrap()),
            Command::Raise(user, ttl) => {
                let epoch = at_once(memory.raise_epoch(&user, ttl)).unwrap();
                self.epochs.insert(user.clone(), epoch);
                self.tell(&format!("epoch:{user}"));
                Answer::Moment(epoch)
            }
            Command::OfUser(user) => Answer::Found(at_once(memory.of_user(&user)).unwrap()),
            Command::Get(key) => Answer::Record(at_once(memory.load(&key)).unwrap()),
            Command::Set(key, json) => {
                let facts = self.facts.get(&key).cloned();
                let kept = Kept {
                    json,
                    facts,
                    endless: false,
                };
                self.memory_puts(&key, kept.pack());
                self.sets += 1;
                self.tell(&key);
                Answer::Done(true)
            }
        }
    }

    fn memory_puts(&self, key: &str, value: Bytes) {
        self.memory.forget(key);
        let record = NewRecord {
            key: key.into(),
            user: "u1".into(),
            value,
            seen: Timestamp(START),
            ttl: Duration::from_secs(100),
        };
        assert_eq!(at_once(self.memory.create(record)), Ok(true));
    }
}

/// The store in memory never waits.
pub fn at_once<T>(mut work: BoxFuture<'_, T>) -> T {
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("the store in memory waits"),
    }
}

/// A name's place in a set of names. Two may share one: then more is tried than need be.
pub fn bit(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    1 << (hash >> 58)
}
