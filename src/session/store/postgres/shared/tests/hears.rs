//! Whatever an application does to a record is told.

use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::session::store::{Listener, Opened, user_name};

/// Notes what it is told.
#[derive(Default)]
struct Notes {
    told: Mutex<Vec<String>>,
    proven: Mutex<Option<Instant>>,
}

impl Listener for Notes {
    fn record_changed(&self, key: &str) {
        self.told.lock().unwrap().push(key.to_owned());
    }
    fn epoch_changed(&self, name: &str) {
        self.told.lock().unwrap().push(format!("epoch {name}"));
    }
    fn lost(&self) {
        self.told.lock().unwrap().push("lost".into());
        *self.proven.lock().unwrap() = None;
    }
    fn proven(&self, asked: Instant) {
        *self.proven.lock().unwrap() = Some(asked);
    }
    fn is_used(&self) -> bool {
        true
    }
}

impl Notes {
    async fn at(bench: &Bench) -> Arc<Self> {
        let notes = Arc::new(Self::default());
        let target = Box::new(target(&bench.server.url()));
        let opened = Opened::SharedPostgres(target, bench.clock.clone());
        assert_eq!(opened.follow(notes.clone()).unwrap().ping().await, Ok(()));
        notes.told().await;
        notes
    }

    /// What has been told since the last time, and until now.
    async fn told(&self) -> Vec<String> {
        let now = Instant::now();
        while self.proven.lock().unwrap().is_none_or(|asked| asked < now) {
            assert!(now.elapsed() < Duration::from_secs(30), "it is not proven");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    async fn loses(&self) {
        let start = Instant::now();
        while !self.told.lock().unwrap().iter().any(|told| told == "lost") {
            assert!(start.elapsed() < Duration::from_secs(30), "it is not lost");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn whatever_changes_a_record_is_told_and_a_longer_life_is_not() {
    let bench = Bench::new().await;
    let notes = Notes::at(&bench).await;
    let (app, store) = (&bench.app, &bench.store);
    // Nobody has a copy of what was not there.
    assert!(app.set("a", &json("u1", 60), HOUR).await);
    assert_eq!(notes.told().await, Vec::<String>::new());
    app.touch("a", HOUR * 2).await;
    let touched = store.touch("sess:a", Timestamp(1), HOUR * 3).await;
    assert_eq!(touched, Ok(true));
    assert!(app.set("a", &json("u1", 60), HOUR * 3).await);
    assert_eq!(notes.told().await, Vec::<String>::new());
    app.touch("a", HOUR).await;
    assert_eq!(notes.told().await, ["sess:a"]);
    assert!(app.set("a", &json("u2", 60), HOUR).await);
    assert_eq!(notes.told().await, ["sess:a"]);
    app.destroy("a").await;
    assert_eq!(notes.told().await, ["sess:a"]);

    let record = bench.record(r"sess:b c\d", &json("u1", 3600));
    assert_eq!(store.create(record).await, Ok(true));
    assert_eq!(notes.told().await, Vec::<String>::new());
    assert_eq!(store.delete(r"sess:b c\d").await, Ok(true));
    assert_eq!(notes.told().await, [r"sess:b c\d"]);
    store.raise_epoch("u1", HOUR).await.unwrap();
    assert_eq!(notes.told().await, [format!("epoch {}", user_name("u1"))]);
    bench.server.sql("truncate session");
    assert_eq!(notes.told().await, ["lost"]);

    // A table of the same kind is somebody else's.
    bench.server.sql(
        "create table other (like session including all); select cloakroom_share('other'); \
         insert into other values ('x', '{}', now()); delete from other",
    );
    assert_eq!(notes.told().await, Vec::<String>::new());
    // A message cannot be as long as this.
    bench
        .server
        .sql("alter table session drop constraint session_pkey");
    let long = "x".repeat(8000);
    let insert = format!("insert into session values ('{long}', '{{}}', now())");
    bench.server.sql(&insert);
    bench.server.sql("delete from session");
    assert_eq!(notes.told().await, ["lost"]);
}

#[tokio::test]
async fn what_is_missing_or_made_anew_is_noticed_and_mended() {
    let bench = Bench::new().await;
    let notes = Notes::at(&bench).await;
    assert!(bench.app.set("a", &json("u1", 60), HOUR).await);
    assert!(bench.store.load("sess:a").await.unwrap().is_some());
    for harm in [
        "drop trigger cloakroom_shared_guard on session",
        "drop trigger cloakroom_shared_changed on session",
        "drop function cloakroom_tell_shared cascade",
        "drop table cloakroom_shared",
        "drop function cloakroom_end",
    ] {
        notes.told().await;
        bench.server.sql(harm);
        notes.loses().await;
        notes.told().await;
        bench.app.destroy("a").await;
        assert_eq!(notes.told().await, ["sess:a"], "{harm}");
        assert!(bench.app.set("a", &json("u1", 60), HOUR).await);
        assert!(bench.app.set("a", &json("u1", 61), HOUR).await);
        assert_eq!(notes.told().await, ["sess:a"], "{harm}");
    }
    bench.server.sql("drop table session");
    notes.loses().await;
    assert!(bench.store.load("sess:a").await.is_err());
    bench.server.sql(TABLE);
    let start = Instant::now();
    while bench.store.delete("sess:a").await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let app = App::at(&bench.server.url()).await;
    assert!(!app.set("a", &json("u1", 60), HOUR).await, "guarded again");
    notes.told().await;
    assert!(app.set("b", &json("u1", 60), HOUR).await);
    assert!(app.set("b", &json("u1", 61), HOUR).await);
    assert_eq!(notes.told().await, ["sess:b"]);
}

/// With `resave: true`, or where anything in the session changes with each request.
#[tokio::test]
async fn a_save_that_only_moves_the_end_of_the_cookie_is_not_told() {
    let bench = Bench::new().await;
    let notes = Notes::at(&bench).await;
    let app = &bench.app;
    let save = |cookie: &str, rest: &str| format!(r#"{{"cookie":{{{cookie}}}{rest}}}"#);
    let odd = r#","cut":"\ud83d","nul":"\u0000","expires":"2026-11-21T08:00:00.000Z""#;
    let at = |age: &str, second: u32| {
        format!(
            r#""originalMaxAge":{age},"expires":"2026-11-21T08:00:{second:02}.000Z","httpOnly":true,"path":"/""#
        )
    };
    assert!(app.set("a", &save(&at("60000", 0), odd), HOUR).await);
    for second in 1..20 {
        let later = HOUR + Duration::from_secs(second.into());
        let json = save(&at("60000", second), odd);
        assert!(app.set("a", &json, later).await);
        assert_eq!(app.get("a").await, Some(json));
    }
    assert_eq!(notes.told().await, Vec::<String>::new());
    let long = HOUR * 2;
    for (json, span) in [
        // A shorter life, however it is written.
        (save(&at("60000", 20), odd), HOUR / 2),
        (save(&at("60001", 21), odd), long),
        (save(r#""originalMaxAge":60001,"expires":null"#, odd), long),
        (save(&at("60001", 21), odd), long),
        // Neither another member of that name, nor anything beside it.
        (save(&at("60001", 21), &odd.replace("08:", "09:")), long),
        (save(&at("60001", 22), ""), long),
        (save(&at("60001", 22).replace("path", "expires"), ""), long),
        (save("", r#","x":{"expires":"1Z"}"#), long),
        (save("", r#","x":{"expires":"2Z"}"#), long),
        (r#"{"x":1,"cookie":{"expires":"1Z"}}"#.into(), long),
        (r#"{"x":1,"cookie":{"expires":"2Z"}}"#.into(), long),
    ] {
        assert!(app.set("a", &json, span).await);
        assert_eq!(notes.told().await, ["sess:a"], "{json}");
    }
}

/// Only where it has written when a session ends does the writer's zone matter.
#[tokio::test]
async fn the_time_zone_is_told_with_an_end_that_was_written() {
    let bench = Bench::new().await;
    bench.store.ping().await.unwrap();
    let (client, mut wire) = tokio_postgres::connect(&bench.server.url(), NoTls)
        .await
        .unwrap();
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| wire.poll_message(cx)).await {
            if let tokio_postgres::AsyncMessage::Notification(told) = message {
                let _ = sender.send(told.payload().to_owned());
            }
        }
    });
    let table = bench.server.sql("select 'session'::regclass::oid");
    client
        .batch_execute(
            "listen cloakroom_public; set timezone = 'Asia/Kolkata'; \
             insert into session values ('a b', '{}', now())",
        )
        .await
        .unwrap();
    for (sql, zone) in [
        (
            "update session set sess = '[]', expire = now() + '1 h'",
            "19800",
        ),
        ("update session set sess = '{}'", "-"),
        ("delete from session", "-"),
    ] {
        client.batch_execute(sql).await.unwrap();
        let expected = format!("shared {table} {zone} a b");
        assert_eq!(told.recv().await, Some(expected), "{sql}");
    }
}
