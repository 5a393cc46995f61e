//! Thousands of races on two replicas over one Redis, many at once: sessions are used,
//! slid, signed anew, read by the application and written back, while they are logged
//! out, logged out everywhere, or replaced by a login. In both layouts.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Instant;

use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;

use super::revival::{Replica, SOON};
use super::*;
use crate::session::settings::LayoutKind;
use crate::session::store::redis::server::RedisServer;

/// So many races run at once, so many times.
const AT_ONCE: usize = 20;
const BATCHES: usize = 45;

/// How often an application writes to a session that lives.
const WRITES: u64 = 3;

struct Arena {
    replicas: [Replica; 2],
    /// To each, what the other has sealed is out of date.
    rules: [SessionRules; 2],
    /// An application's connection, where it has the records as well.
    app: Option<MultiplexedConnection>,
    keys: Mutex<HashSet<String>>,
    looks: AtomicUsize,
}

/// How a session ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Logout,
    Everywhere,
    Login,
}

/// A session, and whether every replica knows that it is over.
struct Target {
    cookie: HeaderMap,
    key: String,
    over: AtomicBool,
    go: AtomicBool,
}

impl Arena {
    async fn sign_in(&self, replica: usize, user: &str, presented: &HeaderMap) -> Target {
        let rules = &self.rules[0];
        let cookie = self.replicas[replica].sign_in(rules, user, presented).await;
        let Presented::Tokens(tokens) = rules.presented(&cookie) else {
            panic!("its own cookie");
        };
        let key = rules.key(&tokens[0].0).to_string();
        assert!(self.keys.lock().unwrap().insert(key.clone()), "a collision");
        Target {
            cookie,
            key,
            over: AtomicBool::new(false),
            go: AtomicBool::new(true),
        }
    }

    async fn is_alive(&self, replica: usize, target: &Target) -> bool {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let replica = &self.replicas[replica];
        replica.is_alive(&self.rules[0], &target.cookie).await
    }

    /// Looks, slides and signs anew until it is told to stop. Who begins to look when all
    /// know of the end finds nothing.
    async fn use_it(&self, replica: usize, target: &Target) {
        let mut turn = replica;
        while target.go.load(Ordering::SeqCst) {
            turn += 1;
            let rules = &self.rules[turn % 2];
            let over = target.over.load(Ordering::SeqCst);
            let sessions = &self.replicas[replica].sessions;
            self.looks.fetch_add(1, Ordering::Relaxed);
            if let Lookup::Live(session) =
                sessions.lookup(rules, &target.cookie, true).await.unwrap()
            {
                assert!(!over, "{} is brought back", target.key);
                sessions.renew(rules, &session).await;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Ends a session on one replica; answers what came in its place.
    async fn end(&self, replica: usize, user: &str, target: &Target, how: End) -> Option<Target> {
        let (rules, on) = (&self.rules[0], &self.replicas[replica]);
        match how {
            End::Logout => {
                assert!(on.sessions.end(rules, &target.cookie).await.unwrap());
                None
            }
            End::Everywhere => {
                let found = on.sessions.lookup(rules, &target.cookie, false).await;
                let Ok(Lookup::Live(session)) = found else {
                    panic!("{found:?}");
                };
                let ended = on.sessions.end_all(rules, &session, &target.cookie);
                ended.await.unwrap();
                None
            }
            End::Login => Some(self.sign_in(replica, user, &target.cookie).await),
        }
    }

    /// Here it is over at once, there soon; and nowhere after that.
    async fn is_over(&self, here: usize, target: &Target) {
        assert!(!self.is_alive(here, target).await, "{}", target.key);
        let begin = Instant::now();
        while self.is_alive(1 - here, target).await {
            assert!(begin.elapsed() < SOON, "{}", target.key);
            tokio::task::yield_now().await;
        }
        target.over.store(true, Ordering::SeqCst);
    }

    /// What an application reads of a session.
    async fn read(&self, target: &Target) -> Option<serde_json::Value> {
        let mut app = self.app.clone()?;
        let mut get = redis::cmd("GET");
        let text: Option<String> = get.arg(&target.key).query_async(&mut app).await.unwrap();
        text.map(|text| serde_json::from_str(&text).unwrap())
    }

    /// What connect-redis writes at the end of a request.
    async fn write(&self, target: &Target, record: &serde_json::Value) {
        let Some(mut app) = self.app.clone() else {
            return;
        };
        let mut set = redis::cmd("SET");
        set.arg(&target.key).arg(record.to_string());
        set.arg("EX").arg(100);
        set.query_async::<()>(&mut app).await.unwrap();
    }

    /// Requests of the application, each of which adds to what the last has left.
    async fn shop(&self, target: &Target) {
        for count in 0..WRITES * u64::from(self.app.is_some()) {
            let mut record = self.read(target).await.expect("it lives");
            let cart = record["cart"].as_u64().unwrap_or(0);
            assert_eq!(cart, count, "an update of {} is lost", target.key);
            record["cart"] = (cart + 1).into();
            self.write(target, &record).await;
            tokio::task::yield_now().await;
        }
    }

    async fn race(&self, number: usize) {
        let (user, here) = (format!("u{number}"), number % 2);
        let nobody = HeaderMap::new();
        let one = self.sign_in(here, &user, &nobody).await;
        let two = self.sign_in(1 - here, &user, &nobody).await;
        for target in [&one, &two] {
            for replica in [0, 1] {
                assert!(self.is_alive(replica, target).await, "{}", target.key);
            }
        }
        let how = match number % 6 {
            0 | 2 => End::Logout,
            3 => End::Everywhere,
            _ => End::Login,
        };
        let course = async {
            self.shop(&one).await;
            let read = self.read(&one).await;
            if let Some(read) = &read {
                assert_eq!(read["cart"], WRITES, "an update of {} is lost", one.key);
            }
            // A request of the application is in flight during the end.
            let late = async {
                for _ in 0..number % 5 {
                    tokio::task::yield_now().await;
                }
                if let Some(read) = &read {
                    self.write(&one, read).await;
                }
            };
            let (new, ()) = tokio::join!(self.end(here, &user, &one, how), late);
            self.is_over(here, &one).await;
            match (how, new) {
                (End::Everywhere, _) => self.is_over(here, &two).await,
                (_, new) => {
                    for other in [Some(&two), new.as_ref()].into_iter().flatten() {
                        assert!(self.is_alive(0, other).await && self.is_alive(1, other).await);
                        assert!(self.end(here, &user, other, End::Logout).await.is_none());
                        self.is_over(here, other).await;
                    }
                }
            }
            // And another one that is later still.
            if let Some(read) = &read {
                self.write(&one, read).await;
                assert!(!self.is_alive(1 - here, &one).await, "{}", one.key);
                assert_eq!(self.read(&one).await, None);
            }
            // Once round for those who use it.
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            one.go.store(false, Ordering::SeqCst);
            two.go.store(false, Ordering::SeqCst);
        };
        tokio::join!(
            course,
            self.use_it(0, &one),
            self.use_it(1, &one),
            self.use_it(1 - here, &one),
            self.use_it(here, &two),
        );
    }
}

async fn force(layout: LayoutKind) {
    let server = RedisServer::start(&[]);
    let shared = layout != LayoutKind::Sealed;
    let app = match shared {
        true => {
            let client = redis::Client::open(server.url()).unwrap();
            Some(client.get_multiplexed_async_connection().await.unwrap())
        }
        false => None,
    };
    let arena = Arc::new(Arena {
        replicas: [0, 1].map(|_| Replica::of(&server, layout.clone())),
        rules: [["a", "n"], ["n", "a"]].map(|secrets| {
            let mut rules = rules(&secrets);
            rules.settings.touch_interval = Duration::ZERO;
            match shared {
                true => {
                    let SessionRules {
                        settings, cookie, ..
                    } = rules;
                    SessionRules::express(settings, "sess:".into(), cookie, [], true)
                }
                false => rules,
            }
        }),
        app,
        keys: Mutex::default(),
        looks: AtomicUsize::new(0),
    });
    for batch in 0..BATCHES {
        let mut races = JoinSet::new();
        for number in batch * AT_ONCE..(batch + 1) * AT_ONCE {
            let arena = arena.clone();
            races.spawn(async move { arena.race(number).await });
        }
        races.join_all().await;
    }
    for replica in &arena.replicas {
        replica.settle().await;
    }
    let left = server.obey("EVAL \"return #redis.call('KEYS','sess:*')\" 0");
    // What an epoch has ended stays, sealed, until its time is over.
    let ended = if shared { 0 } else { AT_ONCE * BATCHES / 6 };
    assert_eq!(left.trim(), format!(":{ended}"), "something else is left");
    let (keys, looks) = (
        arena.keys.lock().unwrap().len(),
        arena.looks.load(Ordering::SeqCst),
    );
    println!(
        "{layout:?}: {} races, {keys} sessions, {looks} looks",
        AT_ONCE * BATCHES
    );
    assert!(looks > 10 * keys, "nothing was raced");
}

#[tokio::test]
async fn sealed_sessions_stay_ended_by_force() {
    force(LayoutKind::Sealed).await;
}

#[tokio::test]
async fn shared_sessions_stay_ended_and_lose_nothing_by_force() {
    force(LayoutKind::Express {
        user: "userId".into(),
    })
    .await;
}
