//! The store as replicas reach it: what they ask waits until the schedule lets it
//! happen, and what they are told waits in their channels.
//!
//! The records lie in the store in memory, which keeps the contract. What is added
//! here is what lies between a store and its users: commands on their way there,
//! answers on their way back, and news of changes, in order with the answers where
//! it is one connection (Redis), and apart from them where it is not (PostgreSQL).

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, Waker};

use super::super::*;
use super::look::Signed;
use crate::session::store::user_name;

/// How replicas learn of changes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum News {
    /// In order with the answers, of what was read there since it was last told
    /// (Redis).
    Tracked,
    /// To everybody, on a connection of their own, and not of touches (PostgreSQL).
    Listened,
    /// At once: the store is a part of the process.
    AtOnce,
}

/// What is wrong on purpose, to see that it is found out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fault {
    /// News come, and nobody is told.
    Deaf,
    /// A touch makes what is not there.
    Upsert,
}

/// Who asked, and the how manieth question of theirs it is: the same in whatever
/// order things happen.
pub type CallId = (u8, u8);

/// The first number of those who are no task: what a replica does on its own.
pub const BACKGROUND: u8 = 100;

/// Which way a question goes.
#[derive(Clone, Copy, PartialEq)]
pub enum Line {
    Own,
    Channel,
}

#[derive(Clone, Debug)]
pub enum Command {
    Now,
    Create(NewRecord),
    Load(String),
    Touch(String, Timestamp, Duration),
    Update(String, Bytes, Bytes),
    Delete(String),
    Epoch(String),
    Raise(String, Duration),
    OfUser(String),
    /// An application reads a record.
    Get(String),
    /// An application writes one, as connect-redis does: whatever is there.
    Set(String, Bytes),
}

pub enum Answer {
    Moment(Epoch),
    Done(bool),
    Record(Option<StoredRecord>),
    Raised(Option<Epoch>),
    Found(Vec<Found>),
}

type Answered = Result<Answer, StoreError>;

pub(super) struct Call {
    pub(super) replica: usize,
    pub(super) line: Line,
    pub(super) command: Command,
    pub(super) answer: Option<Answered>,
    pub(super) applied: bool,
    pub(super) delivered: bool,
    pub(super) waker: Option<Waker>,
}

pub(super) enum Item {
    Answer(CallId),
    News(String),
}

pub(super) struct Channel {
    /// Weak, since it keeps the handle that keeps this.
    pub(super) listener: Weak<Shared>,
    pub(super) up: bool,
    /// Dead, and nobody has noticed.
    pub(super) silent: bool,
    pub(super) asked: VecDeque<CallId>,
    pub(super) inbox: VecDeque<Item>,
    pub(super) tracked: BTreeSet<String>,
    /// What the replica must know to be over: it has ended it, or was told.
    pub(super) knows: BTreeSet<String>,
}

impl Channel {
    pub(super) fn is_told(&self, tracked: bool, news: News) -> bool {
        self.up && (tracked || news != News::Tracked)
    }
}

/// Everything outside of the replicas.
pub struct Stage(Mutex<State>);

pub struct State {
    pub(super) news: News,
    pub fault: Option<Fault>,
    /// Whether the records are those of applications, too.
    pub(super) shared: bool,
    pub down: bool,
    pub(super) memory: MemoryStore,
    pub(super) facts: HashMap<String, Bytes>,
    pub(super) tombs: BTreeSet<String>,
    /// All sessions that there have been.
    pub signed: Vec<Signed>,
    pub(super) keys: BTreeSet<String>,
    pub(super) ended: BTreeSet<String>,
    pub(super) epochs: HashMap<String, Epoch>,
    pub(super) channels: Vec<Channel>,
    pub(super) calls: BTreeMap<CallId, Call>,
    pub(super) counts: BTreeMap<u8, u8>,
    /// How often applications have written.
    pub sets: usize,
    /// Whose turn it is.
    pub actor: Option<u8>,
    pub broken: Option<String>,
}

impl Stage {
    pub fn new(news: News, shared: bool, clock: Clock, replicas: usize) -> Self {
        let channel = || Channel {
            listener: Weak::new(),
            up: true,
            silent: false,
            asked: VecDeque::new(),
            inbox: VecDeque::new(),
            tracked: BTreeSet::new(),
            knows: BTreeSet::new(),
        };
        Self(Mutex::new(State {
            news,
            fault: None,
            shared,
            down: false,
            memory: MemoryStore::new(clock, 1000),
            facts: HashMap::new(),
            tombs: BTreeSet::new(),
            signed: Vec::new(),
            keys: BTreeSet::new(),
            ended: BTreeSet::new(),
            epochs: HashMap::new(),
            channels: (0..replicas).map(|_| channel()).collect(),
            calls: BTreeMap::new(),
            counts: BTreeMap::new(),
            sets: 0,
            actor: None,
            broken: None,
        }))
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Says what must never be, once.
    pub fn breaks(&self, what: String) {
        self.lock().broken.get_or_insert(what);
    }

    /// Asks, and waits for the schedule.
    pub async fn call(&self, replica: usize, line: Line, command: Command) -> Answered {
        let Some(id) = self.lock().ask(replica, line, command) else {
            return Err(StoreError::Unavailable("the channel is closed".into()));
        };
        poll_fn(|context| self.lock().take(id, context)).await
    }

    /// Lets something happen at the store.
    pub fn apply(&self, id: CallId) {
        let mut state = self.lock();
        let call = &state.calls[&id];
        let (replica, line, command) = (call.replica, call.line, call.command.clone());
        if line == Line::Channel {
            assert_eq!(state.channels[replica].asked.pop_front(), Some(id));
        }
        let answer = match state.down {
            true => Err(StoreError::Unavailable("switched off".into())),
            false => Ok(state.execute(id, replica, line, command)),
        };
        let call = state.calls.get_mut(&id).unwrap();
        (call.applied, call.answer) = (true, Some(answer));
        if line == Line::Channel {
            state.channels[replica].inbox.push_back(Item::Answer(id));
        }
        if state.news == News::AtOnce {
            drop(state);
            while self.lock().has_news(0) {
                self.hear(0);
            }
        }
    }

    /// Gives a replica the next thing that its channel brings.
    pub fn hear(&self, replica: usize) {
        let mut state = self.lock();
        let name = match state.channels[replica].inbox.pop_front().unwrap() {
            Item::Answer(id) => return state.deliver(id),
            Item::News(name) => name,
        };
        if state.fault == Some(Fault::Deaf) {
            return;
        }
        let listener = state.channels[replica].listener.upgrade().unwrap();
        drop(state);
        match name.strip_prefix("epoch:") {
            Some(user) => listener.epoch_changed(&user_name(user)),
            None => listener.record_changed(&name),
        }
        self.learn(replica, &name);
    }

    /// What a replica was told of for the last time, and is over, it knows to be over.
    fn learn(&self, replica: usize, name: &str) {
        let mut state = self.lock();
        for signed in state.signed.clone() {
            if signed.is_meant_by(name) && !state.awaits(replica, &signed) {
                state.has_said(replica, &signed);
            }
        }
    }

    /// The channel is closed, and the replica has noticed.
    pub fn lose(&self, replica: usize) {
        let mut state = self.lock();
        let channel = &mut state.channels[replica];
        (channel.up, channel.silent) = (false, false);
        channel.inbox.clear();
        channel.asked.clear();
        channel.tracked.clear();
        let listener = channel.listener.upgrade().unwrap();
        drop(state);
        // First nobody finds it any more, then the listener is told, then those who
        // wait get no answer.
        listener.lost();
        let mut state = self.lock();
        let on_it = |call: &Call| call.line == Line::Channel && call.replica == replica;
        let waiting: Vec<CallId> = state
            .calls
            .iter()
            .filter(|(_, call)| on_it(call) && !call.delivered)
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            let call = state.calls.get_mut(&id).unwrap();
            call.applied = true;
            call.answer = Some(Err(StoreError::Unavailable("closed".into())));
            state.deliver(id);
        }
    }

    /// A new channel, proven.
    pub fn restore(&self, replica: usize) {
        let mut state = self.lock();
        state.channels[replica].up = true;
        let listener = state.channels[replica].listener.upgrade().unwrap();
        let listened = state.news == News::Listened;
        drop(state);
        if listened {
            // As `postgres/follow.rs` does once somebody hears.
            listener.lost();
        }
        listener.proven(Instant::now());
    }

    /// The channel is dead, and nobody has noticed.
    pub fn silence(&self, replica: usize) {
        self.lock().channels[replica].silent = true;
    }
}

impl State {
    pub fn listen(&mut self, replica: usize, listener: &Arc<Shared>) {
        self.channels[replica].listener = Arc::downgrade(listener);
    }

    fn ask(&mut self, replica: usize, line: Line, command: Command) -> Option<CallId> {
        if line == Line::Channel && !self.channels[replica].up {
            return None;
        }
        let owner = self.actor.unwrap_or(BACKGROUND + replica as u8);
        let count = self.counts.entry(owner).or_default();
        let id = (owner, *count);
        *count += 1;
        let call = Call {
            replica,
            line,
            command,
            answer: None,
            applied: false,
            delivered: false,
            waker: None,
        };
        self.calls.insert(id, call);
        if line == Line::Channel {
            self.channels[replica].asked.push_back(id);
        }
        Some(id)
    }

    fn take(&mut self, id: CallId, context: &mut Context<'_>) -> Poll<Answered> {
        let call = self.calls.get_mut(&id).unwrap();
        if !call.delivered {
            call.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(call.answer.take().unwrap())
    }

    /// The answer is where it was asked for.
    pub fn deliver(&mut self, id: CallId) {
        let call = self.calls.get_mut(&id).unwrap();
        call.delivered = true;
        if let Some(waker) = call.waker.take() {
            waker.wake();
        }
    }

    /// What may reach the store now.
    pub fn applicable(&self) -> Vec<CallId> {
        let own = self.calls.iter();
        let own = own.filter(|(_, call)| !call.applied && call.line == Line::Own);
        let heads = self.channels.iter().filter(|channel| !channel.silent);
        let heads = heads.filter_map(|channel| channel.asked.front());
        own.map(|(id, _)| *id).chain(heads.copied()).collect()
    }

    /// What may come back now, but for what channels bring.
    pub fn answerable(&self) -> Vec<CallId> {
        let calls = self.calls.iter();
        calls
            .filter(|(_, call)| call.applied && !call.delivered && call.line == Line::Own)
            .map(|(id, _)| *id)
            .collect()
    }

    pub fn can_hear(&self, replica: usize) -> bool {
        let channel = &self.channels[replica];
        !channel.silent && !channel.inbox.is_empty()
    }

    fn has_news(&self, replica: usize) -> bool {
        matches!(self.channels[replica].inbox.front(), Some(Item::News(_)))
    }

    /// On what it depends what a replica learns from what it hears next.
    pub fn lesson(&self, replica: usize) -> u64 {
        let Some(Item::News(name)) = self.channels[replica].inbox.front() else {
            return 0;
        };
        let meant = self.signed.iter().filter(|signed| signed.is_meant_by(name));
        meant.fold(0, |bits, signed| bits | signed.bits())
    }

    pub fn replica_of(&self, id: CallId) -> usize {
        self.calls[&id].replica
    }

    pub fn tells_at_once(&self) -> bool {
        self.news == News::AtOnce
    }

    pub fn describe(&self, id: CallId) -> String {
        format!("{:.60}", format!("{:?}", self.calls[&id].command))
    }

    /// All names that anything is kept under in the replicas.
    pub fn names(&self) -> Vec<String> {
        let users = self.signed.iter().map(|signed| user_name(&signed.user));
        let users = users.collect::<BTreeSet<_>>();
        users.into_iter().chain(self.keys.iter().cloned()).collect()
    }

    /// Whether a session is over, whoever knows it.
    pub fn is_over(&self, signed: &Signed) -> bool {
        let raised = self.epochs.get(&signed.user);
        self.ended.contains(&signed.key) || raised.is_some_and(|epoch| *epoch >= signed.began)
    }

    /// Whether a replica has still to be told something that concerns a session.
    fn awaits(&self, replica: usize, signed: &Signed) -> bool {
        let channel = &self.channels[replica];
        let waits = |item: &Item| matches!(item, Item::News(name) if signed.is_meant_by(name));
        channel.silent || channel.inbox.iter().any(waits)
    }

    /// Whether whoever begins now to look for a session on a replica must not find it.
    pub fn must_be_over(&self, replica: usize, signed: &Signed, outage: bool) -> bool {
        let known = self.channels[replica].knows.contains(&signed.key);
        let told = !outage && !self.awaits(replica, signed);
        self.is_over(signed) && (known || told)
    }

    /// A replica has said of a session that it is over.
    pub fn has_said(&mut self, replica: usize, signed: &Signed) {
        if self.is_over(signed) {
            self.channels[replica].knows.insert(signed.key.clone());
        }
    }

    pub(super) fn tell(&mut self, name: &str) {
        for channel in &mut self.channels {
            let tracked = channel.tracked.remove(name);
            if channel.is_told(tracked, self.news) {
                channel.inbox.push_back(Item::News(name.to_owned()));
            }
        }
    }
}
