//! What is open on behalf of sessions: tunnels, streams, long downloads. They end
//! when their session does, whoever ends it and wherever.
//!
//! Whatever may have changed is looked up anew, in a task of its own; what the
//! look-up says decides. An outage ends nothing: it is asked again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::known::Session;
use super::rules::SessionRules;
use super::sessions::Sessions;
use super::shared::Shared;
use super::store::user_name;
use crate::base::refusal::Refusal;

/// How often what nobody tells of is looked at: time, and a store whose channel is
/// silent. A quarter of the second within which an end must arrive.
const TICK: Duration = Duration::from_millis(250);

/// Look-ups that run at once.
const AT_ONCE: usize = 64;

/// What is open on behalf of sessions, in this process.
pub struct Live {
    book: Mutex<Book>,
    count: AtomicUsize,
    events: mpsc::UnboundedSender<Event>,
    /// For the one task that works on them.
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Event>>>,
}

/// Something that is open, until this is dropped.
pub struct Watch {
    ended: oneshot::Receiver<Refusal>,
    number: u64,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Book {
    next: u64,
    open: HashMap<u64, Open>,
    by_key: HashMap<Arc<str>, BTreeSet<u64>>,
    /// By the name under which the store keeps the user's epoch.
    by_user: HashMap<Arc<str>, BTreeSet<u64>>,
}

struct Open {
    session: Session,
    user: Arc<str>,
    end: oneshot::Sender<Refusal>,
}

/// Something may have ended, and since when that has been known.
enum Event {
    Record(Arc<str>, Instant),
    User(Box<str>, Instant),
}

impl Live {
    /// How many things are open. In one order with what copies say of themselves: either
    /// who opens something sees that its session has ended, or who ends it sees it open.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    pub(super) fn record_changed(&self, key: &str) {
        if self.count() == 0 {
            return;
        }
        let known = self
            .book()
            .by_key
            .get_key_value(key)
            .map(|(key, _)| key.clone());
        if let Some(key) = known {
            self.tell(Event::Record(key, Instant::now()));
        }
    }

    pub(super) fn epoch_changed(&self, name: &str) {
        if self.count() > 0 {
            self.tell(Event::User(name.into(), Instant::now()));
        }
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the process ends.
        let _ = self.events.send(event);
    }

    /// A session of everything that is open, one for each key and user.
    fn sessions(&self) -> Vec<Session> {
        let book = self.book();
        let mut sessions: Vec<Session> = Vec::with_capacity(book.by_key.len());
        for numbers in book.by_key.values() {
            let from = sessions.len();
            for session in numbers.iter().filter_map(|number| book.session(*number)) {
                let later = sessions.get(from..).unwrap_or_default();
                if !later.iter().any(|other| other.user() == session.user()) {
                    sessions.push(session.clone());
                }
            }
        }
        sessions
    }

    /// The sessions of what is open for a key, one for each user: an application that
    /// shares its records may have put another user into this one.
    fn of_key(&self, key: &str) -> Vec<Session> {
        let book = self.book();
        let mut sessions: Vec<Session> = Vec::new();
        for number in book.by_key.get(key).into_iter().flatten() {
            if let Some(session) = book.session(*number)
                && !sessions.iter().any(|other| other.user() == session.user())
            {
                sessions.push(session.clone());
            }
        }
        sessions
    }

    /// The keys of what is open for the user whose epoch has this name.
    fn keys_of_user(&self, name: &str) -> HashSet<Arc<str>> {
        let book = self.book();
        let numbers = book.by_user.get(name).into_iter().flatten();
        let sessions = numbers.filter_map(|number| book.session(*number));
        sessions.map(|session| session.key().into()).collect()
    }

    /// What was found alive is known by this from now on.
    fn renew(&self, found: &Session) {
        let mut book = self.book();
        let numbers = book.by_key.get(found.key()).cloned().unwrap_or_default();
        for number in numbers {
            if let Some(open) = book.open.get_mut(&number)
                && open.session.user() == found.user()
            {
                open.session.known = found.known.clone();
            }
        }
    }

    /// Tells everything that is open for a key and a user that it is over. Answers how
    /// many there were.
    fn end(&self, key: &str, user: &str, why: Refusal) -> usize {
        let mut book = self.book();
        let numbers = book.by_key.get(key).into_iter().flatten().copied();
        let is_meant = |number: &u64| book.session(*number).is_none_or(|s| s.user() == user);
        let ended: Vec<u64> = numbers.filter(is_meant).collect();
        for number in &ended {
            if let Some(open) = book.take(*number) {
                // It may have come to its own end meanwhile.
                let _ = open.end.send(why);
            }
        }
        self.count.store(book.open.len(), Ordering::SeqCst);
        ended.len()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn session(&self, number: u64) -> Option<&Session> {
        self.open.get(&number).map(|open| &open.session)
    }

    fn put(&mut self, open: Open) -> u64 {
        let number = self.next;
        self.next += 1;
        let key = open.session.key().into();
        self.by_key.entry(key).or_default().insert(number);
        let user = open.user.clone();
        self.by_user.entry(user).or_default().insert(number);
        self.open.insert(number, open);
        number
    }

    fn take(&mut self, number: u64) -> Option<Open> {
        let open = self.open.remove(&number)?;
        forget(&mut self.by_key, open.session.key(), number);
        forget(&mut self.by_user, &open.user, number);
        Some(open)
    }
}

fn forget(numbers: &mut HashMap<Arc<str>, BTreeSet<u64>>, name: &str, number: u64) {
    if let Some(of_name) = numbers.get_mut(name) {
        of_name.remove(&number);
        if of_name.is_empty() {
            numbers.remove(name);
        }
    }
}

impl Default for Live {
    fn default() -> Self {
        let (events, receiver) = mpsc::unbounded_channel();
        Self {
            book: Mutex::default(),
            count: AtomicUsize::new(0),
            events,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

impl Shared {
    /// Something is open from now on, and to be ended with its session.
    pub fn watch(self: &Arc<Self>, session: &Session) -> Watch {
        let (end, ended) = oneshot::channel();
        let open = Open {
            session: session.clone(),
            user: user_name(session.owner()).into(),
            end,
        };
        let mut book = self.live.book();
        let number = book.put(open);
        self.live.count.store(book.open.len(), Ordering::SeqCst);
        drop(book);
        // It may have ended between its look-up and now.
        if !self.cache.holds(&session.known) {
            self.live
                .tell(Event::Record(session.key().into(), Instant::now()));
        }
        Watch {
            ended,
            number,
            shared: self.clone(),
        }
    }
}

impl Watch {
    /// Ready with the reason when the session is over.
    pub fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<Refusal> {
        match Pin::new(&mut self.ended).poll(context) {
            Poll::Ready(Ok(why)) => Poll::Ready(why),
            // The book keeps the other end for as long as this lives.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Waits until the session is over; answers why.
    pub async fn ended(&mut self) -> Refusal {
        std::future::poll_fn(|context| self.poll_ended(context)).await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut book = self.shared.live.book();
        book.take(self.number);
        let count = book.open.len();
        self.shared.live.count.store(count, Ordering::SeqCst);
    }
}

/// Ends what is open with its session, for as long as the process runs. `rules`
/// gives the configuration in force.
pub async fn watch_over<S: AsRef<SessionRules> + Send + Sync + 'static>(
    sessions: Arc<Sessions>,
    rules: impl Fn() -> Arc<S>,
) {
    let live = &sessions.shared().live;
    let receiver = live
        .receiver
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut events) = receiver else {
        return;
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut round = Round {
        sessions: sessions.clone(),
        due: HashMap::new(),
    };
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(event) => round.note(event),
                None => return,
            },
            _ = tick.tick() => round.sweep((*rules()).as_ref()),
        }
        // What has come in meanwhile goes along.
        while let Ok(event) = events.try_recv() {
            round.note(event);
        }
        round.run(&rules()).await;
    }
}

/// What is to be looked up.
struct Round {
    sessions: Arc<Sessions>,
    /// By key: since when its end may be known; `None` where time or silence is the
    /// cause.
    due: HashMap<Arc<str>, Option<Instant>>,
}

impl Round {
    fn note(&mut self, event: Event) {
        match event {
            Event::Record(key, since) => {
                self.due.entry(key).or_insert(Some(since));
            }
            Event::User(name, since) => {
                for key in self.sessions.shared().live.keys_of_user(&name) {
                    self.due.entry(key).or_insert(Some(since));
                }
            }
        }
    }

    /// Finds what may have ended without anybody having said so.
    fn sweep(&mut self, rules: &SessionRules) {
        let shared = self.sessions.shared();
        if shared.live.count() == 0 {
            return;
        }
        let now = self.sessions.now();
        for session in shared.live.sessions() {
            // Of what has a copy that counts, changes are told.
            let told = shared.cache.holds(&session.known);
            if !told || session.over(now, &rules.settings).is_some() {
                self.due.entry(session.key().into()).or_insert(None);
            }
        }
    }

    /// Looks up what is due. What gets no answer stays due until the next tick; once the
    /// store has failed to answer, the rest waits for that as well.
    async fn run<S: AsRef<SessionRules> + Send + Sync + 'static>(&mut self, rules: &Arc<S>) {
        let mut tasks = JoinSet::new();
        let mut done: HashSet<Arc<str>> = HashSet::new();
        // First what somebody has told of.
        let mut due: Vec<_> = self.due.iter().collect();
        due.sort_unstable_by_key(|(_, since)| since.is_none());
        for (key, since) in due {
            let open = self.sessions.shared().live.of_key(key);
            if tasks.len() >= AT_ONCE && !settle(&mut tasks, &mut done).await {
                break;
            }
            let (sessions, rules, key) = (self.sessions.clone(), rules.clone(), key.clone());
            let since = *since;
            tasks.spawn(async move {
                let mut result = Some(key);
                for session in open {
                    if !check(&sessions, (*rules).as_ref(), session, since).await {
                        result = None;
                    }
                }
                result
            });
        }
        while !tasks.is_empty() {
            settle(&mut tasks, &mut done).await;
        }
        self.due.retain(|key, _| !done.contains(key));
    }
}

/// Waits for one look-up. Answers whether the store has answered it.
async fn settle(tasks: &mut JoinSet<Option<Arc<str>>>, done: &mut HashSet<Arc<str>>) -> bool {
    match tasks.join_next().await {
        Some(Ok(Some(key))) => {
            done.insert(key);
            true
        }
        Some(Ok(None) | Err(_)) => false,
        None => true,
    }
}

/// Looks a session up, and ends what is open for it if it is over. Answers whether
/// the store gave an answer.
async fn check(
    sessions: &Sessions,
    rules: &SessionRules,
    session: Session,
    since: Option<Instant>,
) -> bool {
    let (key, user) = (Arc::from(session.key()), session.user().to_owned());
    let found = sessions.find(rules, &key, session.token, session.secret);
    let why = match found.await {
        Ok(Ok(found)) if found.user() == user => {
            sessions.shared().live.renew(&found);
            return true;
        }
        Ok(Ok(_)) => Refusal::SessionEnded,
        Ok(Err(why)) => why,
        // Its own trouble: it is asked for again at the next tick, and keeps nobody.
        Err(failure) if failure.refusal == Refusal::SessionUnreadable => return true,
        Err(_) => return false,
    };
    let ended = sessions.shared().live.end(&key, &user, why);
    if let Some(since) = since {
        for _ in 0..ended {
            sessions.metrics.revocation_lag.observe(since.elapsed());
        }
    }
    true
}
