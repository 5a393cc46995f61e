//! Replicas on a stage, what they do there, and what must hold of it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, Wake, Waker};

use super::super::*;
use super::handle::Handle;
use super::records::bit;
use super::stage::{Answer, Command, Line, News, Stage};
use crate::session::known::Session;
use crate::session::layout::express::Kept;

/// A session that somebody has.
#[derive(Clone)]
pub struct Signed {
    pub user: String,
    pub key: String,
    pub began: Epoch,
    pub cookie: HeaderMap,
    pub record: NewRecord,
}

/// How everything is set up.
#[derive(Clone, Copy)]
pub struct Setting {
    pub news: News,
    /// Whether records are those of applications, too.
    pub shared: bool,
    /// Whether each use slides.
    pub slides: bool,
    /// Whether sessions go on while the store is down.
    pub outage: bool,
}

/// One of several that do something.
pub struct Actor {
    pub name: &'static str,
    /// `None`: the world, which all are concerned of.
    pub replica: Option<usize>,
    /// On what in the store it depends whether what it finds is right: a bit for each
    /// name.
    pub cares: u64,
    work: Option<Pin<Box<dyn Future<Output = ()>>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

/// One run of a scenario.
#[derive(Clone)]
pub struct Scene {
    pub stage: Arc<Stage>,
    pub replicas: Vec<Arc<Sessions>>,
    pub rules: Arc<SessionRules>,
    pub setting: Setting,
    /// How often applications have written to a record, by its key.
    pub written: Arc<Mutex<HashMap<String, u64>>>,
}

impl Signed {
    /// On what in the store it depends whether it is over.
    pub fn bits(&self) -> u64 {
        bit(&self.key) | bit(&self.user)
    }

    /// Whether news of this name concern it.
    pub fn is_meant_by(&self, name: &str) -> bool {
        name == self.key || name.strip_prefix("epoch:") == Some(&self.user)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Actor {
    /// On a replica.
    pub fn on<F>(replica: usize, name: &'static str, work: F) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        Self {
            name,
            replica: Some(replica),
            cares: u64::MAX,
            work: Some(Box::pin(work)),
            woken: Arc::new(Woken(AtomicBool::new(true))),
        }
    }

    /// Something that happens to all.
    pub fn world<F>(name: &'static str, work: F) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        Self {
            replica: None,
            ..Self::on(0, name, work)
        }
    }

    /// It depends on no other sessions than these.
    pub fn caring_for(self, signed: &[&Signed]) -> Self {
        Self {
            cares: signed.iter().fold(0, |bits, one| bits | one.bits()),
            ..self
        }
    }

    pub fn is_ready(&self) -> bool {
        self.work.is_some() && self.woken.0.load(Ordering::SeqCst)
    }

    pub fn is_done(&self) -> bool {
        self.work.is_none()
    }

    pub fn step(&mut self) {
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(self.woken.clone());
        let work = self.work.as_mut().unwrap();
        if let Poll::Ready(()) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.work = None;
        }
    }
}

impl Scene {
    pub fn new(
        setting: Setting,
        rules: Arc<SessionRules>,
        metrics: &Arc<Metrics>,
        seeds: &[Signed],
    ) -> Self {
        let clock = Clock::fixed(Timestamp(START));
        let at_once = setting.news == News::AtOnce;
        let count = if at_once { 1 } else { 2 };
        let stage = Arc::new(Stage::new(
            setting.news,
            setting.shared,
            clock.clone(),
            count,
        ));
        seeds.iter().for_each(|seed| stage.lock().seed(seed));
        let long = Duration::from_secs(3600);
        let cache = CacheSettings {
            entries: 64,
            staleness: long,
            serve_stale_for: if setting.outage { long } else { Duration::ZERO },
        };
        let handle = |replica, line| {
            let stage = stage.clone();
            Arc::new(Handle {
                stage,
                replica,
                line,
            })
        };
        let followed = match setting.news {
            News::Tracked => Line::Channel,
            News::Listened | News::AtOnce => Line::Own,
        };
        let replica = |replica| {
            let shared = Arc::new(Shared::new(&cache, (!at_once).then_some(long)));
            shared.followed_by(handle(replica, followed));
            shared.proven(Instant::now());
            stage.lock().listen(replica, &shared);
            let own = handle(replica, Line::Own);
            Arc::new(Sessions::new(own, clock.clone(), metrics.clone(), shared))
        };
        Self {
            replicas: (0..count).map(replica).collect(),
            stage,
            rules,
            setting,
            written: Arc::default(),
        }
    }

    /// Looks for a session. Whoever begins to look when its end is known must not find
    /// it, and nobody else must be told that it is over before it is.
    pub async fn look(&self, replica: usize, signed: &Signed) -> bool {
        self.look_and(self.setting.slides, replica, signed).await
    }

    /// The same, as a use that slides or not.
    pub async fn look_and(&self, slide: bool, replica: usize, signed: &Signed) -> bool {
        let (late, written) = {
            let state = self.stage.lock();
            let late = state.must_be_over(replica, signed, self.setting.outage);
            (late, state.sets)
        };
        let sessions = &self.replicas[replica];
        let found = sessions.lookup(&self.rules, &signed.cookie, slide).await;
        match found {
            Ok(Lookup::Live(_)) if late => {
                let what = format!("replica {replica} brings {} back", signed.key);
                self.stage.breaks(what);
                true
            }
            Ok(Lookup::Live(_)) => true,
            Ok(Lookup::Dead(why)) => {
                let mut state = self.stage.lock();
                state.has_said(replica, signed);
                if !state.is_over(signed) {
                    let what = format!("replica {replica} signs {} out: {why:?}", signed.key);
                    state.broken.get_or_insert(what);
                }
                if late && state.sets == written && self.setting.shared {
                    let left = state.cart(&signed.key).is_some();
                    let what = format!("replica {replica} leaves {} there", signed.key);
                    state.broken = state.broken.take().or(left.then_some(what));
                }
                false
            }
            Ok(Lookup::NotNeeded) => unreachable!("it was asked for"),
            Err(failure) => {
                if !self.setting.outage || failure.refusal != Refusal::StoreUnavailable {
                    self.stage.breaks(format!("{failure:?}"));
                }
                false
            }
        }
    }

    /// Logs out, and looks whether that holds here at once.
    pub async fn end(&self, replica: usize, signed: &Signed) {
        let ended = self.replicas[replica]
            .end(&self.rules, &signed.cookie)
            .await;
        if ended.is_ok() {
            self.stage.lock().has_said(replica, signed);
        }
        self.look(replica, signed).await;
    }

    /// Signs out everywhere.
    pub async fn end_all(&self, replica: usize, by: &Session, presented: &HeaderMap) {
        let sessions = &self.replicas[replica];
        let ended = sessions.end_all(&self.rules, by, presented).await;
        if ended.is_ok() {
            let mut state = self.stage.lock();
            for signed in state.signed.clone() {
                state.has_said(replica, &signed);
            }
        }
    }

    /// Signs in, with the cookie of a session that is to be replaced. `None`: the
    /// user has signed out everywhere meanwhile.
    pub async fn login(&self, replica: usize, presented: &HeaderMap) -> Option<Signed> {
        let sessions = &self.replicas[replica];
        let began = sessions.begin_login().await.unwrap();
        let signed = login(sessions, &self.rules, began, presented).await?;
        self.stage.lock().signed.push(signed.clone());
        Some(signed)
    }

    /// An application's request: it reads the record, and writes it back with one more
    /// in it at its end.
    pub async fn app(&self, replica: usize, signed: &Signed) {
        let read = Command::Get(signed.key.clone());
        let read = self.stage.call(replica, Line::Own, read).await;
        let Ok(Answer::Record(Some(stored))) = read else {
            return;
        };
        self.write_back(replica, signed, &stored.value).await;
    }

    /// Its end: what was read, with one more.
    pub async fn write_back(&self, replica: usize, signed: &Signed, read: &Bytes) {
        let mut json = json_of(read);
        let count = json["cart"].as_u64().unwrap_or(0) + 1;
        json["cart"] = count.into();
        let write = Command::Set(signed.key.clone(), json.to_string().into());
        self.stage.call(replica, Line::Own, write).await.unwrap();
        let mut written = self.written.lock().unwrap();
        written.insert(signed.key.clone(), count);
    }
}

/// The part of a stored value that an application sees.
pub fn json_of(value: &Bytes) -> serde_json::Value {
    let kept = Kept::unpack(value).unwrap();
    serde_json::from_slice(&kept.json).unwrap()
}

/// A login on this replica, that began at this moment.
pub async fn login(
    sessions: &Sessions,
    rules: &SessionRules,
    began: Epoch,
    presented: &HeaderMap,
) -> Option<Signed> {
    let identity = Identity {
        user: "u1".into(),
        roles: Vec::new(),
        claims: Map::new(),
    };
    let origin = Origin {
        address: "::1".into(),
        user_agent: "curl".into(),
        secure: false,
    };
    let created = sessions.create(rules, began, identity, origin, presented);
    let cookie = match created.await {
        Ok(created) => cookies(&[&created.cookie]),
        Err(failure) if failure.refusal == Refusal::SessionEnded => return None,
        Err(failure) => panic!("{failure:?}"),
    };
    let Presented::Tokens(tokens) = rules.presented(&cookie) else {
        unreachable!("its own cookie");
    };
    let key = rules.key(&tokens[0].0);
    Some(Signed {
        user: "u1".into(),
        began,
        cookie,
        record: NewRecord {
            key: key.clone(),
            user: "u1".into(),
            value: Bytes::new(),
            seen: Timestamp(START),
            ttl: Duration::from_secs(100),
        },
        key: key.to_string(),
    })
}
