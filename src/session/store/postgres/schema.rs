//! The tables: whether they are there, and making them where they are not.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// The tables, their indexes and triggers. Running it again changes nothing.
const TABLES: &str = include_str!("schema.sql");

/// How many triggers there must be.
const TRIGGERS: &str = "5";

/// Replicas that start together must not make the tables together: not even
/// `if not exists` is safe from that. The number is "cloakroo" in ASCII.
const LOCK: i64 = 0x636c_6f61_6b72_6f6f;

/// Whether both tables are there, as the search path finds them.
const PRESENT: &str = "select to_regclass('cloakroom_session') is not null \
    and to_regclass('cloakroom_epoch') is not null";

/// Which tables these are, and how many triggers of ours are on them. A row with
/// one column of text, null where a table is missing.
pub(super) const MARK: &str = "select s.t::oid || ' ' || e.t::oid || ' ' || (\
        select count(*) from pg_catalog.pg_trigger \
        where tgrelid in (s.t::oid, e.t::oid) and tgenabled in ('O', 'A') \
        and tgname in ('cloakroom_session_changed', 'cloakroom_session_deleted', \
        'cloakroom_session_emptied', 'cloakroom_epoch_changed', 'cloakroom_epoch_emptied')) \
    from (select to_regclass('cloakroom_session') as t) as s, \
        (select to_regclass('cloakroom_epoch') as t) as e";

/// The channel on which the triggers tell, as `listen` takes it.
pub(super) const CHANNEL: &str = "select quote_ident('cloakroom_' || left(n.nspname::text, 13)) \
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
    where c.oid = to_regclass('cloakroom_session')";

/// Why a connection could not be made ready.
#[derive(Debug)]
pub(super) enum NotReady {
    /// What the server or the connection said.
    Failed(Error),
    /// A table or trigger is missing, and making it is not allowed, as this says.
    Missing(Error),
    /// A trigger is still missing after all of them were made.
    Triggers,
}

impl From<Error> for NotReady {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Makes the tables if one of them is missing. `settings` are statements that
/// are run before.
pub(super) async fn tables(client: &Client, settings: &str) -> Result<(), NotReady> {
    match first(client, &format!("{settings} {PRESENT}")).await? {
        Some(there) if there == "t" => Ok(()),
        _ => make(client).await,
    }
}

/// Makes sure that tables and triggers are there, and gives their mark.
pub(super) async fn triggers(client: &Client, settings: &str) -> Result<String, NotReady> {
    let complete = |mark: &String| mark.split(' ').next_back() == Some(TRIGGERS);
    let found = first(client, &format!("{settings} {MARK}")).await?;
    if let Some(mark) = found.filter(complete) {
        return Ok(mark);
    }
    make(client).await?;
    first(client, MARK)
        .await?
        .filter(complete)
        .ok_or(NotReady::Triggers)
}

/// The first column of the only row.
pub(super) async fn first(client: &Client, sql: &str) -> Result<Option<String>, Error> {
    let messages = client.simple_query(sql).await?;
    Ok(messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(str::to_owned),
        _ => None,
    }))
}

async fn make(client: &Client) -> Result<(), NotReady> {
    let all = format!("begin; select pg_advisory_xact_lock({LOCK}); {TABLES} commit;");
    let Err(error) = client.batch_execute(&all).await else {
        return Ok(());
    };
    let refused = [
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::INVALID_SCHEMA_NAME,
    ];
    Err(
        match error.code().is_some_and(|code| refused.contains(code)) {
            true => NotReady::Missing(error),
            false => NotReady::Failed(error),
        },
    )
}
