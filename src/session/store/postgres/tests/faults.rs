//! What goes wrong is an error, and never looks like a miss.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::session::store::attempt::door::Door;

#[tokio::test]
async fn a_dead_server_is_an_error_soon_and_a_returned_one_is_used() {
    let mut server = PostgresServer::start();
    let store = store(&server.url(), Duration::from_secs(2));
    recovered(&store, TIMEOUT).await;
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    server.stop();
    for _ in 0..20 {
        let start = Instant::now();
        let load = store.load("sess:a").await;
        assert!(matches!(load, Err(StoreError::Unavailable(_))), "{load:?}");
        assert!(store.delete("sess:a").await.is_err());
        assert!(store.create(record("sess:b")).await.is_err());
        assert!(start.elapsed() < Duration::from_secs(2), "it hangs");
    }
    server.restart();
    recovered(&store, Duration::from_secs(5)).await;
    assert!(store.load("sess:a").await.unwrap().is_some());
    assert_eq!(store.load("sess:b").await, Ok(None));
}

#[tokio::test]
async fn a_restart_between_two_reads_is_not_noticed() {
    let mut server = PostgresServer::start();
    let store = store(&server.url(), TIMEOUT);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    server.restart();
    assert!(store.load("sess:a").await.unwrap().is_some());
    assert_eq!(store.create(record("sess:b")).await, Ok(true));
}

#[tokio::test]
async fn a_write_after_a_long_pause_finds_out_that_the_connection_is_gone() {
    let mut server = PostgresServer::start();
    let store = store(&server.url(), TIMEOUT);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    // Not for something to happen: this is the pause.
    std::thread::sleep(Duration::from_millis(1100));
    server.restart();
    assert_eq!(store.create(record("sess:b")).await, Ok(true));
}

#[tokio::test]
async fn a_connection_that_dies_in_silence_is_replaced() {
    let server = PostgresServer::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".s.PGSQL.5432");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (silence, upstream) = (Arc::new(tokio::sync::Notify::new()), server.socket());
    let silenced = silence.clone();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::UnixStream::connect(&upstream).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => panic!("closed"),
            () = silenced.notified() => {}
        }
        // The first connection stays open, and nothing comes through any more.
        let (mut next, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::UnixStream::connect(&upstream).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut next, &mut far).await;
        drop(near);
    });
    let timeout = Duration::from_secs(2);
    let url = url_at(folder.path(), KEEPER, 5432);
    let store = store(&url, timeout);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    silence.notify_one();
    let late = store.load("sess:a").await;
    assert_eq!(late, Err(StoreError::Timeout(timeout)));
    assert!(store.load("sess:a").await.unwrap().is_some());
}

#[tokio::test]
async fn who_waits_for_a_lock_waits_no_longer_than_its_time() {
    let server = PostgresServer::start();
    let timeout = Duration::from_millis(500);
    let patient = store(&server.url(), TIMEOUT);
    assert_eq!(patient.create(record("sess:a")).await, Ok(true));
    let holder = target_with(&server.url(), TIMEOUT, "sess:");
    let (client, wire) = holder.connect().await.unwrap();
    let _driver = link::Driver(tokio::spawn(link::drive(wire, |_| {})));
    client
        .batch_execute("begin; lock table cloakroom_session in access exclusive mode")
        .await
        .unwrap();
    let hasty = store(&server.url(), timeout);
    for _ in 0..2 {
        let late = hasty.load("sess:a").await;
        assert_eq!(late, Err(StoreError::Timeout(timeout)));
    }
    client.batch_execute("rollback").await.unwrap();
    recovered(&hasty, TIMEOUT).await;
    assert!(hasty.load("sess:a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_role_that_may_not_make_tables_says_who_must() {
    let server = PostgresServer::start();
    server.sql("create role plain login password 'pw'");
    let store = store(&server.url_of("plain:pw"), TIMEOUT);
    for _ in 0..2 {
        let error = store.load("sess:a").await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(error.to_string().contains("schema.sql"), "{error}");
        assert!(error.to_string().contains("permission denied"), "{error}");
    }
    server.sql(include_str!("../schema.sql"));
    tokio::time::sleep(Duration::from_millis(110)).await;
    let error = store.load("sess:a").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("permission denied"), "{error}");
    // What the file says that it needs is what it needs.
    let grants = include_str!("../schema.sql").lines();
    let grants: Vec<&str> = grants
        .filter_map(|line| line.strip_prefix("--     "))
        .skip_while(|line| !line.starts_with("grant"))
        .collect();
    server.sql(&grants.join(" ").replace("to cloakroom", "to plain"));
    recovered(&store, TIMEOUT).await;
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    assert_eq!(store.touch("sess:a", Timestamp(2), HOUR).await, Ok(true));
    assert!(store.raise_epoch("ann", HOUR).await.is_ok());
    assert_eq!(store.delete("sess:a").await, Ok(true));
    assert_eq!(store.create(record("sess:a")).await, Ok(true));

    server.sql("revoke update, delete on cloakroom_session from plain");
    assert!(store.touch("sess:a", Timestamp(2), HOUR).await.is_err());
    assert!(store.delete("sess:a").await.is_err());
    assert!(store.load("sess:a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_wrong_password_is_told_without_it_and_a_mended_one_is_noticed() {
    let server = PostgresServer::start();
    server.sql("create role carl login password 'right'; grant all on schema public to carl");
    let store = store(&server.url_of("carl:secret-word"), TIMEOUT);
    let error = store.load("sess:a").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let text = format!("{error} {error:?}");
    assert!(text.contains("password authentication failed"), "{text}");
    assert!(!text.contains("secret-word"), "{text}");
    server.sql("alter role carl password 'secret-word'");
    recovered(&store, TIMEOUT).await;
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
}

#[tokio::test]
async fn tables_that_are_dropped_are_an_outage_and_made_again() {
    let server = PostgresServer::start();
    let store = store(&server.url(), TIMEOUT);
    assert_eq!(store.create(record("sess:a")).await, Ok(true));
    server.sql("drop table cloakroom_session");
    let load = store.load("sess:a").await;
    assert!(matches!(load, Err(StoreError::Unavailable(_))), "{load:?}");
    // From then on it is true that there is no such session.
    assert_eq!(store.load("sess:a").await, Ok(None));
    assert_eq!(store.create(record("sess:a")).await, Ok(true));

    // Somebody else's table of this name is not changed.
    server.sql(
        "drop table cloakroom_session; create table cloakroom_session (key text, value bytea)",
    );
    for _ in 0..2 {
        let load = store.load("sess:a").await;
        assert!(matches!(load, Err(StoreError::Unavailable(_))), "{load:?}");
        tokio::time::sleep(Duration::from_millis(110)).await;
    }
}

#[tokio::test]
async fn a_limit_of_connections_is_an_outage_as_long_as_it_lasts() {
    let server = PostgresServer::start();
    server.sql(
        "create role few login password 'pw' connection limit 1; grant all on schema public to few",
    );
    let first = store(&server.url_of("few:pw"), TIMEOUT);
    assert_eq!(first.create(record("sess:a")).await, Ok(true));
    let second = store(&server.url_of("few:pw"), TIMEOUT);
    let load = second.load("sess:a").await;
    let Err(StoreError::Unavailable(text)) = load else {
        panic!("{load:?}");
    };
    assert!(text.contains("too many connections"), "{text}");
    assert!(first.load("sess:a").await.unwrap().is_some());
    server.sql("alter role few connection limit 2");
    recovered(&second, TIMEOUT).await;
    assert!(second.load("sess:a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_database_that_takes_no_writes_still_answers_reads() {
    let server = PostgresServer::start();
    let writer = store(&server.url(), TIMEOUT);
    server.sql("create role reader login password 'pw'");
    server.sql("alter role reader set default_transaction_read_only = on");
    let reader = store(&server.url_of("reader:pw"), TIMEOUT);
    let error = reader.load("sess:a").await.unwrap_err().to_string();
    assert!(
        error.contains("read-only") && error.contains("schema.sql"),
        "{error}"
    );

    assert_eq!(writer.create(record("sess:a")).await, Ok(true));
    server.sql("grant all on cloakroom_session, cloakroom_epoch to reader");
    recovered(&reader, TIMEOUT).await;
    for error in [
        reader.create(record("sess:b")).await.unwrap_err(),
        reader
            .touch("sess:a", Timestamp(2), HOUR)
            .await
            .unwrap_err(),
        reader.delete("sess:a").await.unwrap_err(),
        reader
            .raise_epoch("ann", HOUR)
            .await
            .map(|_| true)
            .unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(error.to_string().contains("read-only"), "{error}");
    }
    assert!(reader.load("sess:a").await.unwrap().is_some());
    assert_eq!(reader.load("sess:b").await, Ok(None));
}

#[tokio::test]
async fn a_handle_serves_several_runtimes() {
    let server = PostgresServer::start();
    let store = Arc::new(store(&server.url(), TIMEOUT));
    // The first use is elsewhere, in a runtime that ends.
    let elsewhere = store.clone();
    let used = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(elsewhere.create(record("sess:a")))
    });
    while !used.is_finished() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(used.join().unwrap(), Ok(true));
    let connections = "select count(*) from pg_stat_activity where application_name = 'cloakroom'";
    assert!(store.load("sess:a").await.unwrap().is_some());
    assert_eq!(server.sql(connections), "1", "it is the same connection");
}

/// While a server hangs, requests give up one after the other. What they wait for must
/// not begin anew with each of them: it would never be there.
#[tokio::test]
async fn a_connection_is_made_although_each_request_gives_up_before() {
    let server = PostgresServer::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".s.PGSQL.5432");
    let door = Door::closed(&path, server.socket());
    let timeout = Duration::from_millis(150);
    let store = Arc::new(store(&url_at(folder.path(), KEEPER, 5432), timeout));
    for _ in 0..10 {
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let store = store.clone();
            crowd.spawn(async move { store.load("sess:a").await });
        }
        for answer in crowd.join_all().await {
            assert_eq!(answer, Err(StoreError::Timeout(timeout)));
        }
    }
    // One more where this took longer than an attempt may.
    assert!(door.visitors() <= 2, "{} attempts", door.visitors());
    door.open();
    recovered(&store, TIMEOUT).await;
    assert!(door.visitors() <= 2, "{} attempts", door.visitors());
}

/// Those that waited for a connection until just before their deadlines must not throw
/// away what was made at last, for all who come after them.
#[tokio::test]
async fn a_connection_that_took_longer_than_a_request_may_is_kept() {
    let server = PostgresServer::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".s.PGSQL.5432");
    let timeout = Duration::from_secs(1);
    let (entry, word) = (Duration::from_millis(1100), Duration::from_millis(20));
    let door = Door::slow(&path, server.socket(), entry, word);
    let store = Arc::new(store(&url_at(folder.path(), KEEPER, 5432), timeout));
    let (served, mut crowd) = (
        Arc::new(AtomicBool::new(false)),
        tokio::task::JoinSet::new(),
    );
    let (begun, mut since) = (Instant::now(), None);
    // In this time, one that is thrown away would be made anew twice.
    while since.is_none_or(|at: Instant| at.elapsed() < 3 * timeout) {
        assert!(begun.elapsed() < TIMEOUT, "{} attempts", door.visitors());
        if since.is_none() && served.load(Ordering::SeqCst) {
            since = Some(Instant::now());
        }
        let (store, served) = (store.clone(), served.clone());
        crowd.spawn(async move {
            if store.load("sess:a").await.is_ok() {
                served.store(true, Ordering::SeqCst);
            }
        });
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    crowd.join_all().await;
    // One more where the first took longer than an attempt may.
    assert!(door.visitors() <= 2, "{} attempts", door.visitors());
    assert_eq!(store.load("sess:a").await, Ok(None));
}
