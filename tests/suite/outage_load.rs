//! Redis is killed under load, and comes back with what it had.

use std::time::{Duration, Instant};

use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::cookies::CookieJar;
use crate::harness::eventually;
use crate::harness::load::{Load, Sample};
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::session;
use crate::harness::users::EVERYBODY;

/// Sessions, and the connections that ask for them.
const SESSIONS: usize = 12;
const CONNECTIONS: usize = 4;

struct Outage {
    samples: Vec<Sample>,
    /// Redis was dead at the first of these, and answered again at the second.
    dead: Instant,
    back: Instant,
}

/// Many users, whose sessions Redis keeps on the disk, and who ask throughout;
/// meanwhile it is killed, for as long as `while_dead` takes.
fn outage(serve_stale_for: &str, while_dead: impl FnOnce(&Load, &Proxy)) -> Outage {
    let backend = Backend::start();
    let mut redis = Redis::with(&["--appendonly", "yes"]);
    let proxy = Config::to(backend.addr())
        .store(&redis.url())
        .set("store.timeout", "1s")
        .set("store.cache.serve_stale_for", serve_stale_for)
        .set("log.access", false)
        .start();
    let jars: Vec<CookieJar> = (0..SESSIONS)
        .map(|i| proxy.sign_in(&EVERYBODY[i % EVERYBODY.len()]))
        .collect();
    let load = Load::begin(proxy.addr(), &jars, CONNECTIONS);
    load.wait_until_all_are_served();
    redis.stop();
    let dead = Instant::now();
    while_dead(&load, &proxy);
    redis.restart();
    let back = Instant::now();
    load.wait_until_all_are_served();
    let samples = load.end();
    // Nobody was signed out, and each is still who he was.
    for (i, jar) in jars.iter().enumerate() {
        let state = eventually("the store settles", || {
            let state = session::state(&proxy, jar);
            (state != "store_unavailable").then_some(state)
        });
        assert_eq!(state, EVERYBODY[i % EVERYBODY.len()].id);
    }
    Outage {
        samples,
        dead,
        back,
    }
}

#[test]
fn while_redis_is_dead_users_get_503_and_afterwards_their_sessions() {
    let outage = outage("0s", |load, _| load.wait_for_outages(200));
    let during = outage.samples.iter().filter(|sample| {
        // Asked for and answered meanwhile.
        sample.asked > outage.dead && sample.asked + sample.took < outage.back
    });
    let statuses: Vec<u16> = during.map(|sample| sample.status).collect();
    assert!(statuses.len() >= 100, "{}", statuses.len());
    assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
}

#[test]
fn while_redis_is_dead_known_users_go_on_for_as_long_as_is_wanted() {
    let stale = |proxy: &Proxy| -> u64 {
        let metrics = proxy.admin_get("/metrics").text();
        let line = "cloakroom_session_lookups_total{result=\"stale\"} ";
        let found = metrics.lines().find_map(|l| l.strip_prefix(line));
        found.map_or(0, |count| count.parse().unwrap())
    };
    let outage = outage("1h", |_, proxy| {
        eventually("users are served without the store", || {
            (stale(proxy) >= 200).then_some(())
        });
    });
    let refused = outage.samples.iter().filter(|s| s.status == 503).count();
    assert_eq!(refused, 0, "of {}", outage.samples.len());
}

#[test]
fn nobody_is_served_without_the_store_for_longer_than_is_wanted() {
    let outage = outage("700ms", |load, _| load.wait_for_outages(100));
    let last = outage
        .samples
        .iter()
        .filter(|sample| sample.status == 200 && sample.asked < outage.back)
        .filter(|sample| sample.asked + sample.took < outage.back)
        .map(|sample| sample.asked)
        .max()
        .unwrap();
    // What was asked for later than that must not be answered with 200.
    let limit = outage.dead + Duration::from_millis(700);
    assert!(last <= limit, "{:?} too long", last - limit);
    let served = |s: &&Sample| s.status == 200 && s.asked > outage.dead && s.asked < limit;
    assert!(outage.samples.iter().any(|sample| served(&sample)));
}
