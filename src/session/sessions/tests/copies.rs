//! Sessions that are found in this process.

use super::*;
use http::HeaderName;

fn cached(serve_stale_for: Duration) -> Bench {
    Bench::with(&CacheSettings {
        serve_stale_for,
        ..CacheSettings::default()
    })
}

impl Bench {
    fn loads(&self) -> usize {
        self.store.loads.load(Ordering::SeqCst)
    }

    fn switch(&self, down: bool) {
        self.store.down.store(down, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_known_session_asks_the_store_nothing() {
    let bench = cached(Duration::ZERO);
    let cookie = bench.signed_in("u1").await;
    for _ in 0..100 {
        assert_eq!(bench.live(&cookie).await.user(), "u1");
    }
    assert_eq!(bench.loads(), 1);
    // Not even where it is down.
    bench.switch(true);
    bench.live(&cookie).await;
}

#[tokio::test]
async fn a_copy_lets_no_other_signature_in() {
    let mut bench = cached(Duration::ZERO);
    let made = bench.login("u1", &HeaderMap::new()).await.unwrap().cookie;
    let cookie = cookies(&[&made]);
    let (unsigned, mac) = made.rsplit_once('.').unwrap();
    let other = bench.rules.signer.sign("4Kx0mJ0bWmJ0tq3tqN0Q3mDk1oQ7yZ-_");
    let foreign = rules(&["b"])
        .signer
        .sign(unsigned.strip_prefix("s:").unwrap());
    let forged = [
        format!("{unsigned}.{}", mac.to_lowercase()),
        format!("{unsigned}.{}", other.rsplit_once('.').unwrap().1),
        format!("{unsigned}.{}", &mac[..42]),
        format!("{unsigned}.{mac}="),
        foreign,
    ];
    // Before there is a copy, with one whose signature was never asked for, with one whose
    // signature is known, and with one to which there is a shortcut.
    for _ in 0..4 {
        for forged in &forged {
            let reason = bench.reason(&cookies(&[forged])).await;
            assert_eq!(reason, Refusal::BadSignature, "{forged}");
        }
        let live = [cookie.clone(), cookies(&[&other, &made])];
        for headers in live {
            assert_eq!(bench.live(&headers).await.secret, 0);
        }
    }
    // What one signer verified is not taken over by the next one.
    bench.rules = rules(&["n", "a"]);
    assert_eq!(bench.live(&cookie).await.secret, 1);
    assert_eq!(bench.live(&cookie).await.secret, 1);
    bench.rules = rules(&["n"]);
    assert_eq!(bench.reason(&cookie).await, Refusal::BadSignature);
}

impl Bench {
    /// Whether there is a shortcut from this cookie to a copy.
    fn has_shortcut(&self, headers: &HeaderMap) -> bool {
        let value = self.rules.only(headers).unwrap();
        let usual = crate::wire::signature::Usual::of(value).unwrap();
        let sight = self.rules.sight(usual.token());
        let cache = &self.sessions.shared.cache;
        cache.fresh_by_sight(sight, |_| true).is_some()
    }
}

#[tokio::test]
async fn a_shortcut_lets_its_own_session_in_while_that_lasts() {
    let mut bench = cached(Duration::ZERO);
    let (one, two) = (bench.signed_in("u1").await, bench.signed_in("u2").await);
    for cookie in [&one, &two] {
        bench.live(cookie).await;
        assert!(!bench.has_shortcut(cookie));
        bench.live(cookie).await;
        assert!(bench.has_shortcut(cookie));
    }
    let session = bench.live(&one).await;
    assert_eq!((session.user(), session.secret), ("u1", 0));
    assert_eq!(bench.rules.key_text(&session.token), session.key());
    // Who asks otherwise is the same.
    let line = one[header::COOKIE].to_str().unwrap();
    let value = line.strip_prefix("sid=").unwrap();
    let mut quoted = HeaderMap::new();
    let line = format!("a=b; sid = \"{value}\"");
    quoted.insert(header::COOKIE, line.parse().unwrap());
    assert!(Arc::ptr_eq(
        &bench.live(&quoted).await.known,
        &session.known
    ));
    // Two cookies of one's own, or of two users.
    let mut both = one.clone();
    both.append(header::COOKIE, two[header::COOKIE].clone());
    assert_eq!(bench.reason(&both).await, Refusal::AmbiguousCookie);

    bench.sessions.end(&bench.rules, &one).await.unwrap();
    assert!(!bench.has_shortcut(&one) && bench.has_shortcut(&two));
    assert_eq!(bench.reason(&one).await, Refusal::UnknownSession);
    // With other secrets there is nothing that was verified.
    bench.rules = rules(&["b"]);
    assert!(!bench.has_shortcut(&two));
    assert_eq!(bench.reason(&two).await, Refusal::BadSignature);
    bench.rules = rules(&["b", "a"]);
    for _ in 0..3 {
        assert_eq!(bench.live(&two).await.secret, 1);
    }
}

/// As if both tokens had the same sight, or two threads had written at once.
#[tokio::test]
async fn a_shortcut_that_leads_astray_lets_nobody_in() {
    let bench = cached(Duration::ZERO);
    let (one, two) = (bench.signed_in("u1").await, bench.signed_in("u2").await);
    for cookie in [&one, &two, &one, &two] {
        bench.live(cookie).await;
    }
    let (first, second) = (bench.live(&one).await, bench.live(&two).await);
    let cache = &bench.sessions.shared.cache;
    let sight = |session: &Session| bench.rules.sight(session.token.expose().as_bytes());
    cache.note_sight(sight(&first), &second.known);
    assert_eq!(bench.live(&one).await.user(), "u1");
    assert_eq!(bench.live(&one).await.user(), "u1");
    cache.note_sight(sight(&first), &second.known);
    bench.sessions.end(&bench.rules, &one).await.unwrap();
    assert_eq!(bench.reason(&one).await, Refusal::UnknownSession);
    assert_eq!(bench.live(&two).await.user(), "u2");
    // Nor is another's token signed for it.
    let mixed = Session {
        token: first.token.clone(),
        ..second.clone()
    };
    let now = bench.clock.now();
    assert!(bench.rules.cookie_again(&second, now, false).is_some());
    assert!(bench.rules.cookie_again(&mixed, now, false).is_none());
}

#[tokio::test]
async fn what_is_unknown_is_asked_for_each_time() {
    let bench = cached(Duration::ZERO);
    let cookie = bench.signed_in("u1").await;
    bench.sessions.end(&bench.rules, &cookie).await.unwrap();
    for _ in 0..3 {
        assert_eq!(bench.reason(&cookie).await, Refusal::UnknownSession);
    }
    assert_eq!(bench.loads(), 3);
}

#[tokio::test]
async fn an_end_counts_for_the_very_next_request() {
    let bench = cached(Duration::ZERO);
    let (one, two) = (bench.signed_in("u1").await, bench.signed_in("u1").await);
    let session = bench.live(&one).await;
    bench.live(&two).await;
    bench.sessions.end(&bench.rules, &one).await.unwrap();
    assert_eq!(bench.reason(&one).await, Refusal::UnknownSession);
    bench
        .sessions
        .end_all(&bench.rules, &session, &HeaderMap::new())
        .await
        .unwrap();
    assert_eq!(bench.reason(&two).await, Refusal::SessionEnded);
    // A login after it is not meant.
    let three = bench.signed_in("u1").await;
    bench.live(&three).await;
}

#[tokio::test]
async fn copies_end_by_the_clock() {
    let bench = cached(Duration::ZERO);
    let cookie = bench.signed_in("u1").await;
    bench.live(&cookie).await;
    bench.wait(100);
    assert_eq!(bench.reason(&cookie).await, Refusal::IdleExpired);

    let cookie = bench.signed_in("u1").await;
    for _ in 0..19 {
        bench.live(&cookie).await;
        settle(&bench, |b| b.sessions.shared.touches.is_quiet()).await;
        bench.wait(50);
    }
    bench.live(&cookie).await;
    bench.wait(50);
    assert_eq!(bench.reason(&cookie).await, Refusal::AbsoluteExpired);
}

#[tokio::test]
async fn copies_slide_once_per_interval() {
    let bench = cached(Duration::ZERO);
    let cookie = bench.signed_in("u1").await;
    bench.live(&cookie).await;
    bench.wait(10);
    for _ in 0..50 {
        bench.live(&cookie).await;
        settle(&bench, |b| b.sessions.shared.touches.is_quiet()).await;
    }
    assert_eq!(bench.store.touches.load(Ordering::SeqCst), 1);
    assert_eq!(bench.live(&cookie).await.seen(), bench.clock.now());
}

#[tokio::test]
async fn a_touch_that_finds_nothing_ends_the_copy() {
    let bench = cached(Duration::ZERO);
    let cookie = bench.signed_in("u1").await;
    let session = bench.live(&cookie).await;
    // Behind everybody's back.
    bench.store.inner.forget(session.key());
    bench.live(&cookie).await;
    bench.wait(10);
    bench.live(&cookie).await;
    settle(&bench, |b| b.sessions.shared.touches.is_quiet()).await;
    assert_eq!(bench.reason(&cookie).await, Refusal::UnknownSession);
}

#[tokio::test]
async fn while_the_store_is_down_sessions_go_on_where_that_is_wanted() {
    for (stale_for, expected) in [(0, Some(Refusal::StoreUnavailable)), (3600, None)] {
        let bench = cached(Duration::from_secs(stale_for));
        let cookie = bench.signed_in("u1").await;
        let other = bench.signed_in("u2").await;
        bench.live(&cookie).await;
        bench.sessions.shared.lost();
        bench.switch(true);
        match expected {
            Some(refusal) => assert_eq!(bench.reason(&cookie).await, refusal),
            None => assert_eq!(bench.live(&cookie).await.user(), "u1"),
        }
        // What was not seen before is an outage in any case.
        assert_eq!(bench.reason(&other).await, Refusal::StoreUnavailable);
        bench.switch(false);
        bench.live(&cookie).await;
        bench.live(&other).await;
    }
}

/// The rules of a bench, with an identity header that is made of this field.
fn showing(field: &str) -> SessionRules {
    let header = (HeaderName::from_static("x-user"), field.to_owned());
    rules(&["a"]).with_identity(vec![header])
}

fn shown(session: &Session, rules: &SessionRules) -> String {
    let mut headers = HeaderMap::new();
    session
        .write_identity(&rules.identity, &mut headers)
        .unwrap();
    headers["x-user"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn another_configuration_takes_no_copy_of_this_one() {
    let mut bench = cached(Duration::from_secs(3600));
    bench.rules = showing("userId");
    let cookie = bench.signed_in("u1").await;
    assert_eq!(shown(&bench.live(&cookie).await, &bench.rules), "u1");
    bench.rules = showing("email");
    assert_eq!(
        shown(&bench.live(&cookie).await, &bench.rules),
        "u@example.com"
    );
    assert_eq!(bench.loads(), 2);
    // A change of something else leaves copies as they are.
    bench.rules = showing("email");
    bench.rules.settings.touch_interval = Duration::from_secs(1);
    bench.live(&cookie).await;
    assert_eq!(bench.loads(), 2);
    bench.sessions.shared.lost();
    bench.switch(true);
    assert_eq!(
        shown(&bench.live(&cookie).await, &bench.rules),
        "u@example.com"
    );
    bench.rules = showing("userId");
    assert_eq!(bench.reason(&cookie).await, Refusal::StoreUnavailable);
}

#[tokio::test]
async fn whoever_joins_a_reading_for_another_configuration_reads_for_its_own() {
    let bench = cached(Duration::ZERO);
    let cookie = bench.signed_in("u1").await;
    bench.store.slow.store(true, Ordering::SeqCst);
    let look = async |field: &str| {
        let rules = showing(field);
        match bench.sessions.lookup(&rules, &cookie, true).await {
            Ok(Lookup::Live(session)) => shown(&session, &rules),
            other => panic!("{other:?}"),
        }
    };
    let found = tokio::join!(look("userId"), look("email"), look("userId"));
    let expected = ("u1", "u@example.com", "u1");
    assert_eq!(
        (&*found.0, &*found.1, &*found.2),
        expected,
        "each has its own"
    );
    assert_eq!(bench.loads(), 2);
}

#[tokio::test]
async fn a_session_that_is_signed_anew_is_read_anew() {
    let bench = cached(Duration::ZERO);
    let cookie = bench.signed_in("u1").await;
    let rotated = rules(&["n", "a"]);
    let lookup = |rules| bench.sessions.lookup(rules, &cookie, true);
    let Lookup::Live(session) = lookup(&rotated).await.unwrap() else {
        panic!("not live");
    };
    assert!(bench.sessions.renew(&rotated, &session).await);
    let Lookup::Live(session) = lookup(&rotated).await.unwrap() else {
        panic!("not live");
    };
    assert_eq!(session.user(), "u1");
}

#[tokio::test]
async fn a_copy_that_seems_idle_is_read_again() {
    let bench = cached(Duration::ZERO);
    let cookie = bench.signed_in("u1").await;
    let session = bench.live(&cookie).await;
    bench.wait(60);
    // Another replica's, of which this one is not told.
    let (now, ttl) = (bench.clock.now(), Duration::from_secs(100));
    let touched = bench.store.inner.touch(session.key(), now, ttl).await;
    assert_eq!(touched, Ok(true));
    bench.wait(60);
    assert_eq!(bench.live(&cookie).await.seen(), now);
}

#[tokio::test]
async fn an_outage_brings_nothing_back_that_was_known_to_be_gone() {
    let bench = cached(Duration::from_secs(3600));
    let cookie = bench.signed_in("u1").await;
    let session = bench.live(&cookie).await;
    // Ended elsewhere while the channel was closed.
    bench.sessions.shared.lost();
    bench.store.inner.forget(session.key());
    assert_eq!(bench.reason(&cookie).await, Refusal::UnknownSession);
    bench.switch(true);
    assert_eq!(bench.reason(&cookie).await, Refusal::StoreUnavailable);
}

struct Held(SessionRules);

impl AsRef<SessionRules> for Held {
    fn as_ref(&self) -> &SessionRules {
        &self.0
    }
}

#[tokio::test]
async fn what_opens_after_its_session_has_ended_ends() {
    let bench = cached(Duration::ZERO);
    let (one, two) = (bench.signed_in("u1").await, bench.signed_in("u1").await);
    let session = bench.live(&one).await;
    let other = bench.live(&two).await;
    let everywhere = bench.sessions.end_all(&bench.rules, &other, &two);
    everywhere.await.unwrap();
    // Its record is still there, and read again by another request.
    assert_eq!(bench.reason(&one).await, Refusal::SessionEnded);
    let held = Arc::new(Held(rules(&["a"])));
    let watcher = crate::session::live::watch_over(bench.sessions.clone(), || held.clone());
    let mut watch = bench.sessions.shared().watch(&session);
    tokio::select! {
        why = watch.ended() => assert_eq!(why, Refusal::SessionEnded),
        () = watcher => panic!("it does not watch"),
        () = tokio::time::sleep(Duration::from_secs(20)) => panic!("it lives on"),
    }
    assert_eq!(bench.sessions.shared().live.count(), 0);
}
