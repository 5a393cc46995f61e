//! The tables: whether they are there, and making them where they are not.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// The tables, their indexes and triggers. Running it again changes nothing.
const TABLES: &str = include_str!("schema.sql");

/// What is needed beside a table of connect-pg-simple. The same holds of it.
const SHARED: &str = include_str!("shared.sql");

/// Replicas that start together must not make the tables together: not even
/// `if not exists` is safe from that. The number is "cloakroo" in ASCII.
const LOCK: i64 = 0x636c_6f61_6b72_6f6f;

/// Whether both tables are there, as the search path finds them.
const PRESENT: &str = "select to_regclass('cloakroom_session') is not null \
    and to_regclass('cloakroom_epoch') is not null";

/// Which tables these are, and how many triggers of ours are on them. A row with
/// one column of text, null where a table is missing.
const MARK: &str = "select s.t::oid || ' ' || e.t::oid || ' ' || (\
        select count(*) from pg_catalog.pg_trigger \
        where tgrelid in (s.t::oid, e.t::oid) and tgenabled in ('O', 'A') \
        and tgname in ('cloakroom_session_changed', 'cloakroom_session_deleted', \
        'cloakroom_session_emptied', 'cloakroom_epoch_changed', 'cloakroom_epoch_emptied')) \
    from (select to_regclass('cloakroom_session') as t) as s, \
        (select to_regclass('cloakroom_epoch') as t) as e";

/// What a layout keeps where, as SQL.
pub(super) struct Schema {
    /// The files with which an owner makes what is missing, in words.
    pub(super) files: &'static str,
    /// Makes what is missing.
    pub(super) make: String,
    /// Whether there is all that a handle needs: `t`.
    present: String,
    /// Which tables these are, and the number of parts that must be there in the end.
    pub(super) mark: String,
    /// That number.
    parts: &'static str,
    /// The channel on which the triggers tell, as `listen` takes it.
    pub(super) channel: String,
    /// Said to each connection first; it gives no row.
    pub(super) place: String,
    /// Why the application's table cannot be shared; null if it can. Empty if there is
    /// none.
    unfit: String,
}

impl Schema {
    /// Tables of our own.
    pub(super) fn own() -> Self {
        Self {
            files: "schema.sql",
            make: TABLES.into(),
            present: PRESENT.into(),
            mark: MARK.into(),
            parts: "5",
            channel: channel("'cloakroom_session'"),
            place: String::new(),
            unfit: String::new(),
        }
    }

    /// A table of connect-pg-simple, and what lies beside it in the same schema. Its
    /// mark begins with the table's number and the connection's distance from UTC in
    /// seconds ([`Schema::table_and_zone`]).
    pub(super) fn shared(table: &str) -> Self {
        let name = quoted(table);
        let table = literal(&name);
        // On anything else, triggers of rows are not run, or not on all ways to a row.
        let fit = format!(
            "exists (select from pg_catalog.pg_class where oid = to_regclass({table}) \
            and relkind = 'r') and not exists (select from pg_catalog.pg_inherits \
            where to_regclass({table})::oid in (inhrelid, inhparent))"
        );
        let mark = format!(
            "select s.t::oid || ' ' || extract(timezone from now())::bigint || ' ' \
                || e.t::oid || ' ' || b.t::oid || ' ' || ((\
                select count(*) from pg_catalog.pg_trigger \
                where tgrelid in (s.t::oid, e.t::oid) and tgenabled in ('O', 'A') \
                and tgname in ('cloakroom_shared_guard', 'cloakroom_shared_removed', \
                'cloakroom_shared_changed', 'cloakroom_shared_emptied', \
                'cloakroom_epoch_changed', 'cloakroom_epoch_emptied')) + (\
                to_regprocedure('cloakroom_end(regclass, text, bigint)') is not null)::int + ({fit})::int) \
            from (select to_regclass({table}) as t) as s, \
                (select to_regclass('cloakroom_epoch') as t) as e, \
                (select to_regclass('cloakroom_shared') as t) as b"
        );
        Self {
            files: "schema.sql and shared.sql",
            // Whoever uses them takes the tables in this order.
            make: format!(
                "lock table {name} in share row exclusive mode; {TABLES} {SHARED} select cloakroom_share({table}::regclass);"
            ),
            present: format!("select split_part(mark, ' ', 5) = '8' from ({mark}) as it (mark)"),
            parts: "8",
            channel: channel(&table),
            // All of it is where the application's table is.
            place: format!(
                " select set_config('search_path', quote_ident(n.nspname), false) \
                from pg_catalog.pg_class c join pg_catalog.pg_namespace n \
                on n.oid = c.relnamespace where c.oid = to_regclass({table});"
            ),
            unfit: format!(
                "select case relkind when 'p' then 'it is partitioned' when 'v' then 'it is a view' \
                when 'm' then 'it is a view' when 'f' then 'it is a foreign table' when 'r' then \
                'it inherits from a table, or another from it, or it is a partition' \
                else 'it is none' end \
                from pg_catalog.pg_class where oid = to_regclass({table}) and not ({fit})"
            ),
            mark,
        }
    }

    /// The number of the shared table, and the distance from UTC in seconds, of a mark;
    /// `None` of one of our own tables.
    pub(super) fn table_and_zone(mark: &str) -> Option<(u32, i64)> {
        let words: Vec<&str> = mark.split(' ').collect();
        let [table, zone, _, _, _] = *words else {
            return None;
        };
        Some((table.parse().ok()?, zone.parse().ok()?))
    }

    /// Makes the tables if one of them is missing. `settings` are statements that
    /// are run before.
    pub(super) async fn tables(&self, client: &Client, settings: &str) -> Result<(), NotReady> {
        let there = |answer: &Option<String>| answer.as_deref() == Some("t");
        self.check_table(client, settings).await?;
        let sql = format!("{settings}{} {}", self.place, self.present);
        match there(&last(client, &sql).await?) {
            true => Ok(()),
            false => self.make(client, &self.present, there).await,
        }
    }

    /// Makes sure that tables and triggers are there, and gives their mark.
    pub(super) async fn triggers(
        &self,
        client: &Client,
        settings: &str,
    ) -> Result<String, NotReady> {
        let complete = |mark: &Option<String>| {
            let parts = mark.as_deref().and_then(|mark| mark.split(' ').next_back());
            parts == Some(self.parts)
        };
        self.check_table(client, settings).await?;
        let sql = format!("{settings}{} {}", self.place, self.mark);
        let mut mark = last(client, &sql).await?;
        if !complete(&mark) {
            self.make(client, &self.mark, complete).await?;
            mark = last(client, &self.mark).await?;
        }
        mark.filter(|mark| complete(&Some(mark.clone())))
            .ok_or(NotReady::Triggers)
    }

    /// Whether the application's table, if there is one, is one on which triggers work.
    async fn check_table(&self, client: &Client, settings: &str) -> Result<(), NotReady> {
        if self.unfit.is_empty() {
            return Ok(());
        }
        match last(client, &format!("{settings} {}", self.unfit)).await? {
            Some(why) => Err(NotReady::Unfit(why)),
            None => Ok(()),
        }
    }

    /// Makes all that is missing, unless somebody else did while this waited. An error
    /// leaves the connection in a transaction that has failed.
    async fn make(
        &self,
        client: &Client,
        question: &str,
        done: impl Fn(&Option<String>) -> bool,
    ) -> Result<(), NotReady> {
        let begin = format!("begin; select pg_advisory_xact_lock({LOCK})");
        client.batch_execute(&begin).await?;
        let made = match done(&last(client, question).await?) {
            true => Ok(()),
            false => client.batch_execute(&self.make).await,
        };
        let Err(error) = made else {
            return Ok(client.batch_execute("commit").await?);
        };
        let refused = [
            SqlState::INSUFFICIENT_PRIVILEGE,
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::INVALID_SCHEMA_NAME,
        ];
        Err(match error.code() {
            // We make all tables but that of the application.
            Some(code) if *code == SqlState::UNDEFINED_TABLE => NotReady::NoApplication(error),
            Some(code) if refused.contains(code) => NotReady::Missing(error),
            _ => NotReady::Failed(error),
        })
    }
}

/// Why a connection could not be made ready.
#[derive(Debug)]
pub(super) enum NotReady {
    /// What the server or the connection said.
    Failed(Error),
    /// A table or trigger is missing, and making it is not allowed, as this says.
    Missing(Error),
    /// A trigger is still missing after all of them were made.
    Triggers,
    /// The application's table is missing.
    NoApplication(Error),
    /// The application's table is of another kind than can be shared: this one.
    Unfit(String),
}

impl From<Error> for NotReady {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The first column of the last row.
pub(super) async fn last(client: &Client, sql: &str) -> Result<Option<String>, Error> {
    let messages = client.simple_query(sql).await?;
    let row = messages
        .into_iter()
        .rev()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
    Ok(row.and_then(|row| row.try_get(0).ok().flatten().map(str::to_owned)))
}

/// A name as an identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as a constant.
pub(super) fn literal(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\'', "''");
    format!("E'{text}'")
}

/// `table` is a constant.
fn channel(table: &str) -> String {
    format!(
        "select quote_ident('cloakroom_' || left(n.nspname::text, 13)) \
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
        where c.oid = to_regclass({table})"
    )
}
