//! What users see where the store is not down, but in trouble: what is a session that
//! is gone (401, sign in again), what is an outage (503, nothing is lost), and what goes
//! on as before.

use crate::harness::backend::Backend;
use crate::harness::config::Config;
use crate::harness::cookies::CookieJar;
use crate::harness::eventually;
use crate::harness::http::Request;
use crate::harness::load::Load;
use crate::harness::proxy::Proxy;
use crate::harness::redis::Redis;
use crate::harness::session;
use crate::harness::topology::server::{Port, RedisServer, until};
use crate::harness::topology::servers::{Nodes, Watched, id};
use crate::harness::users::{ALICE, BOB, CAROL, EVERYBODY, Person};

fn start(backend: &Backend, url: &str) -> Proxy {
    Config::to(backend.addr())
        .store(url)
        .set("store.timeout", "1s")
        .start()
}

/// The state once it is not an outage.
fn settled(proxy: &Proxy, jar: &CookieJar) -> String {
    eventually("the store answers", || {
        let state = session::state(proxy, jar);
        (state != "store_unavailable").then_some(state)
    })
}

/// What a page, a sign-in and a sign-out come to.
fn seen(proxy: &Proxy, jar: &CookieJar) -> (u16, u16, u16) {
    let sign_in = |person: &Person| proxy.try_sign_in(person.name, person.password).status;
    (
        proxy.get_as("/", jar).status,
        sign_in(&CAROL),
        proxy.sign_out(jar).status,
    )
}

#[test]
fn a_session_that_redis_evicts_is_gone_for_its_user_alone() {
    let backend = Backend::start();
    let redis = Redis::with(&["--maxmemory-policy", "volatile-ttl"]);
    let proxy = start(&backend, &redis.url());
    let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
    for jar in [&alice, &bob] {
        assert_eq!(proxy.get_as("/", jar).status, 200);
    }
    // Redis takes what would end first, so that is hers.
    let key = session::key(&session::token_of(&alice));
    redis.run(&["PEXPIRE", &key, "600000"]);
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    // Whatever takes memory makes it evict, until it has nothing or memory for all.
    let _ = redis.try_run(&["SET", "filler", "x", "PX", "700000"]);
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually("the copy is gone as well", || {
        (proxy.get_as("/", &alice).status == 401).then_some(())
    });
    let gone = proxy.get_as("/", &alice);
    assert_eq!(gone.refusal().as_deref(), Some("unknown_session"));
    let browser = Request::get("/").navigation().cookies(&alice);
    assert_eq!(proxy.send(&browser).status, 303);
    // Redis may have taken more; whoever it has left is still signed in.
    let kept = redis.run(&["EXISTS", &session::key(&session::token_of(&bob))]);
    let wanted = if kept.int() == 1 {
        BOB.id
    } else {
        "unknown_session"
    };
    assert_eq!(settled(&proxy, &bob), wanted);
    let again = proxy.sign_in(&ALICE);
    assert_eq!(session::state(&proxy, &again), ALICE.id);
}

#[test]
fn on_a_redis_that_is_full_sessions_go_on_and_nobody_can_sign_in() {
    let backend = Backend::start();
    let redis = Redis::with(&["--maxmemory-policy", "noeviction"]);
    let proxy = start(&backend, &redis.url());
    let (alice, bob) = (proxy.sign_in(&ALICE), proxy.sign_in(&BOB));
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    // Who leaves makes room, and so may leave.
    assert_eq!(seen(&proxy, &alice), (200, 503, 204));
    assert_eq!(session::state(&proxy, &alice), "unknown_session");
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    proxy.sign_in(&CAROL);
    assert_eq!(session::state(&proxy, &bob), BOB.id);
}

#[test]
fn on_a_replica_that_takes_no_writes_sessions_go_on_and_nobody_comes_or_leaves() {
    let backend = Backend::start();
    let (redis, master) = (Redis::start(), Redis::start());
    let proxy = start(&backend, &redis.url());
    let alice = proxy.sign_in(&ALICE);
    assert_eq!(proxy.get_as("/", &alice).status, 200);
    // Its master has a password, so it goes on with what it has.
    master.run(&["CONFIG", "SET", "requirepass", "word"]);
    let port = master.addr().port().to_string();
    redis.run(&["REPLICAOF", "127.0.0.1", &port]);
    assert_eq!(settled(&proxy, &alice), ALICE.id);
    assert_eq!(seen(&proxy, &alice), (200, 503, 503));
    redis.run(&["REPLICAOF", "NO", "ONE"]);
    eventually("signing in works", || {
        (proxy.try_sign_in(BOB.name, BOB.password).status == 200).then_some(())
    });
    // She was told that it did not work; so she may still be there.
    assert_eq!(settled(&proxy, &alice), ALICE.id);
}

#[test]
fn with_the_wrong_password_it_is_an_outage_until_the_right_one_is_there() {
    let backend = Backend::start();
    let redis = Redis::start();
    redis.run(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">old-word",
        "~*",
        "&*",
        "+@all",
    ]);
    let url = redis.url().replace("redis://", "redis://app:old-word@");
    let proxy = start(&backend, &url);
    let alice = proxy.sign_in(&ALICE);
    // The password is changed on Redis, and its connections end.
    redis.run(&["ACL", "SETUSER", "app", "resetpass", ">new-word"]);
    redis.run(&["CLIENT", "KILL", "USER", "app"]);
    eventually("the outage is noticed", || {
        (proxy.get_as("/", &alice).status == 503).then_some(())
    });
    assert_eq!(seen(&proxy, &alice), (503, 503, 503));
    let words = ["WRONGPASS", "authentication"];
    proxy.output().wait_for_words(&words);
    let said = proxy.output().text();
    assert!(!said.contains("old-word"), "{said}");
    // Both may be valid for a while, which is how a rotation is done without an outage.
    redis.run(&["ACL", "SETUSER", "app", ">old-word"]);
    assert_eq!(settled(&proxy, &alice), ALICE.id);
    eventually("signing in works", || {
        (proxy.try_sign_in(BOB.name, BOB.password).status == 200).then_some(())
    });
}

/// Sessions of everybody, spread over the slots.
fn crowd(proxy: &Proxy) -> Vec<CookieJar> {
    let everybody = EVERYBODY.iter().cycle().take(9);
    everybody.map(|person| proxy.sign_in(person)).collect()
}

fn all_are_signed_in(proxy: &Proxy, jars: &[CookieJar]) {
    for (jar, person) in jars.iter().zip(EVERYBODY.iter().cycle()) {
        assert_eq!(settled(proxy, jar), person.id);
    }
}

fn has_followed(master: &RedisServer, replica: &RedisServer) -> bool {
    let offset = |server: &RedisServer| {
        let info = server.obey("INFO replication");
        let line = info
            .lines()
            .find_map(|l| l.strip_prefix("master_repl_offset:"));
        line.unwrap().to_owned()
    };
    offset(master) == offset(replica)
}

#[test]
fn when_sentinels_replace_a_dead_master_users_wait_and_stay() {
    let backend = Backend::start();
    let mut watched = Watched::start(&Port::Plain);
    let proxy = start(&backend, &watched.url);
    let jars = crowd(&proxy);
    until("the replica has everything", || {
        has_followed(&watched.master, &watched.replica)
    });
    let load = Load::begin(proxy.addr(), &jars, 3);
    load.wait_until_all_are_served();
    watched.master.kill();
    load.wait_for_outages(20);
    // It may come back: it is a replica then, and nobody is sent to it.
    load.wait_until_all_are_served();
    assert!(watched.has_failed_over());
    load.end();
    all_are_signed_in(&proxy, &jars);
    assert_eq!(proxy.sign_out(&jars[0]).status, 204);
    assert_eq!(session::state(&proxy, &jars[0]), "unknown_session");
}

#[test]
fn when_a_node_of_a_cluster_is_lost_its_users_wait_and_stay() {
    let backend = Backend::start();
    let mut nodes = Nodes::start(&Port::Plain, 1);
    let proxy = start(&backend, &nodes.url);
    let jars = crowd(&proxy);
    until("the replica has everything", || {
        has_followed(&nodes.masters[0], &nodes.replicas[0])
    });
    let load = Load::begin(proxy.addr(), &jars, 3);
    load.wait_until_all_are_served();
    nodes.masters[0].kill();
    until("the replica takes over", || {
        nodes.replicas[0].obey("ROLE").contains("master")
    });
    load.wait_until_all_are_served();
    load.end();
    all_are_signed_in(&proxy, &jars);
}

#[test]
fn when_slots_move_within_a_cluster_users_stay() {
    let backend = Backend::start();
    let nodes = Nodes::start(&Port::Plain, 0);
    let proxy = start(&backend, &nodes.url);
    let jars = crowd(&proxy);
    let load = Load::begin(proxy.addr(), &jars, 3);
    load.wait_until_all_are_served();
    // The slot of each session goes to the next node.
    let slot_of = |key: &str| {
        let told = nodes.masters[0].obey(&format!("CLUSTER KEYSLOT {key}"));
        told.trim().trim_start_matches(':').parse::<u16>().unwrap()
    };
    let ends = [5460, 10922, 16383];
    let mut slots: Vec<_> = jars
        .iter()
        .map(|jar| slot_of(&session::key(&session::token_of(jar))))
        .collect();
    slots.sort_unstable();
    slots.dedup();
    for slot in slots {
        let owner = ends.iter().position(|end| slot <= *end).unwrap();
        let (from, to) = (&nodes.masters[owner], &nodes.masters[(owner + 1) % 3]);
        to.obey(&format!("CLUSTER SETSLOT {slot} IMPORTING {}", id(from)));
        from.obey(&format!("CLUSTER SETSLOT {slot} MIGRATING {}", id(to)));
        let told = from.obey(&format!("CLUSTER GETKEYSINSLOT {slot} 100"));
        let keys = told.lines().filter(|l| !l.starts_with(['*', '$']));
        for key in keys {
            let port = to.port;
            from.obey(&format!("MIGRATE 127.0.0.1 {port} {key} 0 5000"));
        }
        for node in [to, from, &nodes.masters[(owner + 2) % 3]] {
            node.obey(&format!("CLUSTER SETSLOT {slot} NODE {}", id(to)));
        }
    }
    load.wait_until_all_are_served();
    load.end();
    all_are_signed_in(&proxy, &jars);
}
