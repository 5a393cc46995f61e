//! Whose table it is, where, and with which rights.

use super::*;

#[tokio::test]
async fn it_works_in_the_time_zone_and_the_table_of_the_application() {
    let bench = Bench::new().await;
    bench.server.sql(
        "create schema web; alter table session set schema web; \
         alter table web.session rename to \"the \"\"sessions\"\" of 'all' \\\"; \
         alter role keeper set timezone = 'America/New_York'; \
         alter role keeper set datestyle = 'German'; \
         alter role keeper set default_transaction_isolation = 'serializable'",
    );
    let url = bench.server.url();
    let table = "the%20%22sessions%22%20of%20%27all%27%20%5C";
    for place in ["schema=web", "options=-csearch_path%3Dpublic%2Cweb"] {
        let target = target(&format!("{url}&{place}&table={table}"));
        let store = SharedPostgresStore::new(target, bench.clock.clone());
        let key = format!("sess:{place}");
        let record = bench.record(&key, &json("u1", 3600));
        assert_eq!(store.create(record.clone()).await, Ok(true));
        let loaded = store.load(&key).await.unwrap().unwrap();
        assert!(loaded.seen.0.abs_diff(bench.now().0) < 5000);
        assert_eq!(store.touch(&key, Timestamp(1), HOUR * 2).await, Ok(true));
        assert_eq!(store.of_user("u1").await.unwrap().len(), 1);
        assert_eq!(store.delete(&key).await, Ok(true));
        assert_eq!(store.create(record).await, Ok(false));
    }
    let places = "select schemaname from pg_tables where tablename like 'cloakroom%' order by 1";
    assert_eq!(bench.server.sql(places), "web\nweb\nweb");
    let missing = SharedPostgresStore::new(target(&url), bench.clock.clone());
    let error = missing.load("sess:a").await.unwrap_err().to_string();
    assert!(error.contains("createTableIfMissing"), "{error}");
    let none = "select count(*) from pg_tables where schemaname = 'public'";
    assert_eq!(
        bench.server.sql(none),
        "0",
        "nothing is left of the attempt"
    );
}

/// Triggers of the whole are not those of its parts.
#[tokio::test]
async fn a_table_in_parts_is_refused_with_the_reason() {
    let server = PostgresServer::start();
    let clock = Clock::fixed(Timestamp(1_800_000_000_000));
    let columns = "sid varchar primary key, sess json not null, expire timestamp(6) not null";
    for (made, reason) in [
        (
            format!(
                "create table session ({columns}) partition by hash (sid); \
                 create table part partition of session for values with (modulus 1, remainder 0)"
            ),
            "it is partitioned",
        ),
        (
            format!("create table whole ({columns}); create view session as select * from whole"),
            "it is a view",
        ),
        (
            format!("create table whole ({columns}); create table session () inherits (whole)"),
            "it inherits",
        ),
        (
            format!("create table session ({columns}); create table part () inherits (session)"),
            "it inherits",
        ),
    ] {
        server.sql("drop schema public cascade; create schema public");
        server.sql(&made);
        let store = SharedPostgresStore::new(target(&server.url()), clock.clone());
        let error = store.load("sess:a").await.unwrap_err().to_string();
        let said = format!("the table \"session\" cannot be shared, because {reason}");
        assert!(error.contains(&said), "{error}");
        let made = "select count(*) from pg_class where relname like 'cloakroom%'";
        assert_eq!(server.sql(made), "0");
    }
}

/// Also where it becomes one later.
#[tokio::test]
async fn a_table_that_gets_parts_is_refused_from_then_on() {
    let bench = Bench::new().await;
    bench.store.ping().await.unwrap();
    bench.server.sql("create table part () inherits (session)");
    let other = SharedPostgresStore::new(target(&bench.server.url()), bench.clock.clone());
    let error = other.load("sess:a").await.unwrap_err().to_string();
    assert!(error.contains("cannot be shared"), "{error}");
    bench.server.sql("drop table part");
    let other = SharedPostgresStore::new(target(&bench.server.url()), bench.clock.clone());
    assert_eq!(other.load("sess:a").await, Ok(None));
}

#[tokio::test]
async fn with_its_own_role_it_needs_no_more_than_the_documented_rights() {
    let server = PostgresServer::start();
    server.sql(TABLE);
    server.sql(
        "create role cloakroom login password 'pw'; create role app login password 'pw'; \
         grant select, insert, update, delete on session to app, cloakroom",
    );
    let clock = Clock::fixed(Timestamp(1_800_000_000_000));
    let store = SharedPostgresStore::new(target(&server.url_of("cloakroom:pw")), clock.clone());
    let error = store.load("sess:a").await.unwrap_err().to_string();
    assert!(error.contains("shared.sql"), "{error}");
    // As the file says.
    server.sql(include_str!("../../schema.sql"));
    server.sql(include_str!("../../shared.sql"));
    server.sql("select cloakroom_share('session')");
    server.sql(
        "grant select, insert, update, delete on session, cloakroom_shared, cloakroom_epoch \
         to cloakroom",
    );
    let app = App::at(&server.url_of("app:pw")).await;
    assert!(app.set("a", &json("u1", 60), HOUR).await);
    let store = SharedPostgresStore::new(target(&server.url_of("cloakroom:pw")), clock);
    assert!(store.load("sess:a").await.unwrap().is_some());
    store.raise_epoch("u1", HOUR).await.unwrap();
    assert_eq!(store.delete("sess:a").await, Ok(true));
    assert!(!app.set("a", &json("u1", 60), HOUR).await);
    // Nobody can have the guard look into tables of their own.
    server.sql("create schema evil authorization app");
    let stolen = "create table evil.t (sid varchar); create trigger t before insert on evil.t \
                  for each row execute function public.cloakroom_guard()";
    let refused = app.client.batch_execute(stolen).await.unwrap_err();
    assert!(
        refused
            .as_db_error()
            .unwrap()
            .message()
            .contains("permission denied")
    );
}

/// Whatever is done to what lies beside its table.
#[tokio::test]
async fn the_application_goes_on_and_what_is_missing_is_made_again() {
    let server = PostgresServer::start();
    server.sql(
        "create role other login; create role app login password 'pw'; create schema web; \
         grant usage on schema web to app, other; alter role app set search_path = web; \
         set search_path = web;",
    );
    server.sql(&format!("set search_path = web; {TABLE}"));
    server.sql("grant select, insert, update, delete on web.session to app");
    let clock = Clock::fixed(Timestamp(1_800_000_000_000));
    let url = format!("{}&schema=web", server.url());
    let store = SharedPostgresStore::new(target(&url), clock);
    assert_eq!(store.delete("sess:a").await, Ok(false));
    let app = App::at(&server.url_of("app:pw")).await;
    assert!(!app.set("a", "{}", HOUR).await, "guarded");
    // No other way leads to an id that has ended either.
    assert!(app.set("b", "{}", HOUR).await);
    let renamed = app
        .client
        .execute("update session set sid = 'a' where sid = 'b'", &[]);
    assert_eq!(renamed.await.unwrap(), 0);

    server.sql("drop function web.cloakroom_end");
    assert!(store.delete("sess:b").await.is_err());
    assert_eq!(store.delete("sess:b").await, Ok(true), "made again");

    for (change, back) in [
        (
            "alter function web.cloakroom_guard owner to other",
            "grant select on web.cloakroom_shared to other",
        ),
        (
            "revoke usage on schema web from other",
            "grant usage on schema web to other",
        ),
    ] {
        server.sql(change);
        assert!(app.set("a", "{}", HOUR).await, "{change}");
        server.sql(&format!("delete from web.session; {back}"));
        assert!(!app.set("a", "{}", HOUR).await, "{back}");
    }
}
