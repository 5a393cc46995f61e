//! Tries to bring sessions back: everything that reads and writes a session, on two
//! replicas over one Redis, while it is ended.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::*;
use crate::session::settings::{LayoutKind, StoreLocation, StoreSettings};
use crate::session::store::redis::RedisUrl;
use crate::session::store::redis::server::RedisServer;
use crate::session::store::{self, Opened};

const ROUNDS: usize = 500;

/// Within this time an end must have reached the other replica.
pub(super) const SOON: Duration = Duration::from_secs(1);

pub(super) struct Replica {
    pub(super) sessions: Arc<Sessions>,
    _opened: Opened,
}

impl Replica {
    pub(super) fn of(server: &RedisServer, layout: LayoutKind) -> Self {
        let settings = StoreSettings {
            location: StoreLocation::Redis(Box::new(RedisUrl::parse(&server.url()).unwrap())),
            layout,
            prefix: "sess:".into(),
            timeout: Duration::from_secs(10),
            cache: CacheSettings::default(),
        };
        let clock = Clock::system();
        let opened = store::open(&settings, clock.clone()).unwrap();
        let shared = Shared::follow(&opened, &settings.cache);
        let sessions = Sessions::new(opened.handle(), clock, Arc::default(), shared);
        Self {
            sessions: Arc::new(sessions),
            _opened: opened,
        }
    }

    pub(super) async fn is_alive(&self, rules: &SessionRules, cookie: &HeaderMap) -> bool {
        match self.sessions.lookup(rules, cookie, true).await.unwrap() {
            Lookup::Live(_) => true,
            Lookup::Dead(Refusal::UnknownSession | Refusal::SessionEnded) => false,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn sign_in(
        &self,
        rules: &SessionRules,
        user: &str,
        presented: &HeaderMap,
    ) -> HeaderMap {
        let began = self.sessions.begin_login().await.unwrap();
        let identity = Identity {
            user: user.into(),
            roles: Vec::new(),
            claims: Map::new(),
        };
        let origin = Origin {
            address: "::1".into(),
            user_agent: "curl".into(),
            secure: false,
        };
        let created = self
            .sessions
            .create(rules, began, identity, origin, presented);
        cookies(&[&created.await.unwrap().cookie])
    }

    pub(super) async fn settle(&self) {
        while !self.sessions.shared.touches.is_quiet() {
            tokio::task::yield_now().await;
        }
    }
}

/// Looks up, slides and signs anew, for as long as it may.
async fn use_it(replica: &Replica, rules: [&SessionRules; 2], cookie: &HeaderMap, go: &AtomicBool) {
    let mut turn = 0;
    while go.load(Ordering::SeqCst) {
        turn += 1;
        let rules = rules[turn % 2];
        if let Ok(Lookup::Live(session)) = replica.sessions.lookup(rules, cookie, true).await
            && session.secret > 0
        {
            replica.sessions.renew(rules, &session).await;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_session_is_brought_back() {
    let server = RedisServer::start(&[]);
    let replicas = [0, 1].map(|_| Replica::of(&server, LayoutKind::Sealed));
    // Each look-up slides, and each other one finds the cookie's secret outdated.
    let eager = |secrets: &[&str]| {
        let mut rules = rules(secrets);
        rules.settings.touch_interval = Duration::ZERO;
        rules
    };
    let (old, new) = (eager(&["a"]), eager(&["n", "a"]));
    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        let user = format!("u{}", round % 5);
        let (here, there) = (&replicas[round % 2], &replicas[(round + 1) % 2]);
        let cookie = here.sign_in(&old, &user, &HeaderMap::new()).await;
        assert!(here.is_alive(&old, &cookie).await && there.is_alive(&old, &cookie).await);
        let go = AtomicBool::new(true);
        let ended = async {
            for _ in 0..round % 4 {
                tokio::task::yield_now().await;
            }
            match here.sessions.lookup(&old, &cookie, false).await.unwrap() {
                Lookup::Live(session) if round % 3 == 0 => {
                    let all = here.sessions.end_all(&old, &session, &cookie);
                    all.await.unwrap();
                }
                _ => assert!(here.sessions.end(&old, &cookie).await.unwrap()),
            }
            // Here it is over at once.
            assert!(!here.is_alive(&old, &cookie).await, "round {round}");
            let begin = Instant::now();
            while there.is_alive(&old, &cookie).await {
                assert!(begin.elapsed() < SOON, "round {round}");
                tokio::task::yield_now().await;
            }
            slowest = slowest.max(begin.elapsed());
            go.store(false, Ordering::SeqCst);
        };
        tokio::join!(
            ended,
            use_it(here, [&old, &new], &cookie, &go),
            use_it(there, [&old, &new], &cookie, &go),
            use_it(there, [&new, &old], &cookie, &go),
        );
        for replica in &replicas {
            assert!(!replica.is_alive(&old, &cookie).await, "round {round}");
        }
    }
    // Nothing was left or put back.
    for replica in &replicas {
        replica.settle().await;
    }
    let left = server.obey("EVAL \"return #redis.call('KEYS','sess:*')\" 0");
    assert_eq!(left.trim(), ":0", "slowest end {slowest:?}");
}
