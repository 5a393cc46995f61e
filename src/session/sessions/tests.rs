pub(in crate::session) use self::probe::Probe;
use super::*;
use crate::base::BoxFuture;
use crate::base::secret::Secret;
use crate::session::settings::{CacheSettings, SessionSettings};
use crate::session::store::memory::MemoryStore;
use crate::session::store::{Found, Page, StoredRecord};
use crate::wire::cookie::{self, CookieSpec, SameSite, Secure};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Map, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const START: u64 = 1_800_000_000_000;

pub(in crate::session) struct Bench {
    pub(in crate::session) store: Arc<Probe>,
    pub(in crate::session) sessions: Arc<Sessions>,
    pub(in crate::session) rules: SessionRules,
    pub(in crate::session) clock: Clock,
}

impl Bench {
    /// Without copies: what the store says is what counts.
    pub(in crate::session) fn new() -> Self {
        Self::with(&CacheSettings {
            entries: 0,
            ..CacheSettings::default()
        })
    }

    /// The same where the store never tells of changes.
    fn unfollowed() -> Self {
        let mut bench = Self::new();
        let shared = Arc::new(Shared::default());
        let sessions = Sessions::new(
            bench.store.clone(),
            bench.clock.clone(),
            Arc::default(),
            shared,
        );
        bench.sessions = Arc::new(sessions);
        bench
    }

    fn with(cache: &CacheSettings) -> Self {
        let clock = Clock::fixed(Timestamp(START));
        let store = Arc::new(Probe::new(MemoryStore::new(clock.clone(), 1000)));
        let shared = Arc::new(Shared::new(cache, None));
        let listener: Arc<dyn Listener> = shared.clone();
        store.inner.announcer().tell(&listener);
        shared.followed_by(store.clone());
        let sessions = Sessions::new(store.clone(), clock.clone(), Arc::default(), shared);
        Self {
            store,
            sessions: Arc::new(sessions),
            rules: rules(&["a"]),
            clock,
        }
    }

    pub(in crate::session) fn wait(&self, seconds: u64) {
        self.clock
            .set(self.clock.now().after(Duration::from_secs(seconds)));
    }

    pub(in crate::session) async fn login(
        &self,
        user: &str,
        presented: &HeaderMap,
    ) -> Result<Created, Failure> {
        let began = self.sessions.begin_login().await?;
        self.login_begun_at(began, user, presented).await
    }

    pub(in crate::session) async fn login_begun_at(
        &self,
        began: Epoch,
        user: &str,
        presented: &HeaderMap,
    ) -> Result<Created, Failure> {
        let mut claims = Map::new();
        claims.insert("email".into(), json!("u@example.com"));
        let identity = Identity {
            user: user.into(),
            roles: vec!["admin".into()],
            claims,
        };
        let origin = Origin {
            address: "::1".into(),
            user_agent: "curl".into(),
            secure: false,
        };
        self.sessions
            .create(&self.rules, began, identity, origin, presented)
            .await
    }

    pub(in crate::session) async fn signed_in(&self, user: &str) -> HeaderMap {
        cookies(&[&self.login(user, &HeaderMap::new()).await.unwrap().cookie])
    }

    pub(in crate::session) async fn reason(&self, headers: &HeaderMap) -> Refusal {
        match self.sessions.lookup(&self.rules, headers, true).await {
            Ok(Lookup::Dead(reason)) => reason,
            Err(failure) => failure.refusal,
            Ok(other) => panic!("{other:?}"),
        }
    }

    pub(in crate::session) async fn live(&self, headers: &HeaderMap) -> Session {
        match self.sessions.lookup(&self.rules, headers, true).await {
            Ok(Lookup::Live(session)) => session,
            other => panic!("{other:?}"),
        }
    }
}

fn rules(secrets: &[&str]) -> SessionRules {
    let settings = SessionSettings {
        secrets: secrets.iter().map(|s| Secret::new(s.repeat(32))).collect(),
        idle_timeout: Duration::from_secs(100),
        absolute_timeout: Duration::from_secs(1000),
        touch_interval: Duration::from_secs(10),
        max_per_user: 0,
        user: "userId".into(),
        roles: "roles".into(),
    };
    let cookie = CookieSpec {
        name: "sid".into(),
        path: "/".into(),
        domain: None,
        same_site: SameSite::Lax,
        secure: Secure::Auto,
        persistent: true,
        partitioned: false,
    };
    SessionRules::new(settings, "sess:".into(), cookie)
}

pub(in crate::session) fn cookies(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        let line = format!("sid={}", cookie::encode(value));
        headers.append(header::COOKIE, HeaderValue::from_str(&line).unwrap());
    }
    headers
}

#[tokio::test]
async fn a_login_can_be_found_with_its_cookie_alone() {
    let bench = Bench::new();
    let headers = bench.signed_in("u1").await;
    let session = bench.live(&headers).await;
    assert_eq!(
        (session.user(), session.roles()),
        ("u1", ["admin".into()].as_slice())
    );
    assert_eq!(bench.reason(&HeaderMap::new()).await, Refusal::NoCookie);
    assert_eq!(
        bench.reason(&cookies(&["hello"])).await,
        Refusal::MalformedCookie
    );
    let forged = rules(&["b"])
        .signer
        .sign("4Kx0mJ0bWmJ0tq3tqN0Q3mDk1oQ7yZ-_");
    assert_eq!(
        bench.reason(&cookies(&[&forged])).await,
        Refusal::BadSignature
    );
    let genuine = bench.rules.signer.sign("4Kx0mJ0bWmJ0tq3tqN0Q3mDk1oQ7yZ-_");
    assert_eq!(
        bench.reason(&cookies(&[&genuine])).await,
        Refusal::UnknownSession
    );
}

#[tokio::test]
async fn a_presented_cookie_never_survives_a_login() {
    let bench = Bench::new();
    let before = bench.signed_in("u1").await;
    let created = bench.login("u1", &before).await.unwrap();
    assert_eq!(bench.reason(&before).await, Refusal::UnknownSession);
    bench.live(&cookies(&[&created.cookie])).await;

    let planted = bench.rules.signer.sign("4Kx0mJ0bWmJ0tq3tqN0Q3mDk1oQ7yZ-_");
    let planted = cookies(&[&planted]);
    bench.login("u1", &planted).await.unwrap();
    assert_eq!(bench.reason(&planted).await, Refusal::UnknownSession);
}

#[tokio::test]
async fn use_slides_the_idle_end_and_nothing_slides_the_absolute_one() {
    let bench = Bench::new();
    let headers = bench.signed_in("u1").await;
    for _ in 0..12 {
        bench.wait(80);
        bench.live(&headers).await;
        settle(&bench, |b| b.sessions.shared.touches.is_quiet()).await;
    }
    bench.wait(40);
    assert_eq!(
        bench.reason(&headers).await,
        Refusal::UnknownSession,
        "the store drops it too"
    );
    let headers = bench.signed_in("u1").await;
    bench.wait(101);
    assert_eq!(bench.reason(&headers).await, Refusal::UnknownSession);
}

#[tokio::test]
async fn a_session_is_touched_once_per_interval_and_never_made_by_it() {
    let bench = Bench::new();
    let headers = bench.signed_in("u1").await;
    let touches = || bench.store.touches.load(Ordering::SeqCst);
    bench.wait(9);
    bench.live(&headers).await;
    assert_eq!(touches(), 0);
    bench.wait(1);
    for _ in 0..50 {
        bench.live(&headers).await;
    }
    settle(&bench, |b| b.sessions.shared.touches.is_quiet()).await;
    bench.live(&headers).await;
    assert_eq!(touches(), 1);
    bench.wait(20);
    bench.live(&headers).await;
    // The touch is under way while the session ends.
    bench.sessions.end(&bench.rules, &headers).await.unwrap();
    settle(&bench, |b| b.sessions.shared.touches.is_quiet()).await;
    assert_eq!(bench.reason(&headers).await, Refusal::UnknownSession);
}

#[tokio::test]
async fn signing_out_everywhere_ends_what_was_and_what_was_being_made() {
    let bench = Bench::new();
    let (one, other) = (bench.signed_in("u1").await, bench.signed_in("u1").await);
    let stranger = bench.signed_in("u2").await;
    let began = bench.sessions.begin_login().await.unwrap();
    let session = bench.live(&one).await;
    bench
        .sessions
        .end_all(&bench.rules, &session, &one)
        .await
        .unwrap();
    assert_eq!(bench.reason(&one).await, Refusal::UnknownSession);
    assert_eq!(bench.reason(&other).await, Refusal::SessionEnded);
    let late = bench.login_begun_at(began, "u1", &HeaderMap::new()).await;
    assert_eq!(late.unwrap_err().refusal, Refusal::SessionEnded);
    bench.live(&stranger).await;
    bench.live(&bench.signed_in("u1").await).await;
}

#[tokio::test]
async fn an_outage_is_no_answer_and_loses_nothing() {
    let bench = Bench::new();
    let headers = bench.signed_in("u1").await;
    bench.store.down.store(true, Ordering::SeqCst);
    assert_eq!(bench.reason(&headers).await, Refusal::StoreUnavailable);
    assert_eq!(bench.reason(&HeaderMap::new()).await, Refusal::NoCookie);
    let login = bench.login("u1", &headers).await;
    assert_eq!(login.unwrap_err().refusal, Refusal::StoreUnavailable);
    let ended = bench.sessions.end(&bench.rules, &headers).await;
    assert_eq!(ended.unwrap_err().refusal, Refusal::StoreUnavailable);
    bench.store.down.store(false, Ordering::SeqCst);
    bench.live(&headers).await;
}

#[tokio::test]
async fn several_cookies_count_if_they_agree() {
    let bench = Bench::new();
    let old = bench.login("u1", &HeaderMap::new()).await.unwrap().cookie;
    bench.wait(5);
    let new = bench.login("u1", &HeaderMap::new()).await.unwrap().cookie;
    let stranger = bench.login("u2", &HeaderMap::new()).await.unwrap().cookie;
    let stale = bench.rules.signer.sign("4Kx0mJ0bWmJ0tq3tqN0Q3mDk1oQ7yZ-_");
    let newest = bench.live(&cookies(&[&new])).await.key().to_owned();
    for order in [[&old, &new], [&new, &old]] {
        let headers = cookies(&[order[0], &stale, "junk", order[1]]);
        assert_eq!(bench.live(&headers).await.key(), newest);
    }
    let mixed = cookies(&[&old, &stranger]);
    assert_eq!(bench.reason(&mixed).await, Refusal::AmbiguousCookie);
    let many: Vec<String> = (0..4)
        .map(|n| {
            bench
                .rules
                .signer
                .sign(&format!("unknown-token-number-{n}"))
        })
        .collect();
    let flood = cookies(&[&many[0], &many[1], &many[2], &many[3], &new]);
    assert_eq!(
        bench.reason(&flood).await,
        Refusal::UnknownSession,
        "at most four are looked up"
    );
    // Signing out leaves none behind.
    bench.sessions.end(&bench.rules, &flood).await.unwrap();
    assert_eq!(
        bench.reason(&cookies(&[&new])).await,
        Refusal::UnknownSession
    );
}

#[tokio::test]
async fn rotating_secrets_signs_nobody_out() {
    let mut bench = Bench::new();
    let headers = bench.signed_in("u1").await;
    bench.rules = rules(&["n", "a"]);
    let session = bench.live(&headers).await;
    assert_eq!(session.secret, 1);
    assert!(bench.sessions.renew(&bench.rules, &session).await);
    let renewed = cookies(&[&bench.rules.signer.sign(session.token.expose())]);
    assert_eq!(bench.live(&renewed).await.secret, 0);
    bench.live(&headers).await;

    bench.rules = rules(&["n"]);
    bench.live(&renewed).await;
    assert_eq!(bench.reason(&headers).await, Refusal::BadSignature);
}

#[tokio::test]
async fn a_damaged_record_is_an_error_and_no_obstacle_to_signing_in() {
    let bench = Bench::new();
    let headers = bench.signed_in("u1").await;
    let session = bench.live(&headers).await;
    let stored = bench.store.load(session.key()).await.unwrap().unwrap();
    let mut bad = stored.value.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    assert!(
        bench
            .store
            .update(session.key(), stored.value, bad.into())
            .await
            .unwrap()
    );
    assert_eq!(bench.reason(&headers).await, Refusal::SessionUnreadable);
    let created = bench.login("u1", &headers).await.unwrap();
    bench.live(&cookies(&[&created.cookie])).await;
    assert_eq!(bench.reason(&headers).await, Refusal::UnknownSession);
}

/// Lets spawned tasks run until `done`; gives up loudly.
async fn settle(bench: &Bench, done: impl Fn(&Bench) -> bool) {
    for _ in 0..1000 {
        if done(bench) {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the work in the background does not end");
}

mod asking;
mod copies;
mod express;
mod force;
mod model;
mod probe;
mod revival;
