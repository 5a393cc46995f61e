//! What PostgreSQL is asked of a table of connect-pg-simple, prepared once for each
//! connection.
//!
//! In the texts, `{table}` is the application's table, `{regclass}` a constant with the
//! same, and `{name}` its name as `cloakroom_shared` has it. A moment of `expire` is
//! compared as connect-pg-simple compares it: PostgreSQL takes it for one in the
//! connection's time zone.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::{Client, Error, Statement};

use crate::session::store::postgres::PostgresTarget;
use crate::session::store::postgres::schema::{last, literal, quoted};
use crate::session::store::postgres::statements::{Common, Statements, in_millis, unhurried};

/// The moment that lies as many milliseconds ahead as a parameter says, in whole seconds,
/// rounded up.
macro_rules! seconds {
    ($parameter:literal) => {
        concat!(
            "to_timestamp(ceil(extract(epoch from clock_timestamp()) + ",
            $parameter,
            "::bigint / 1000.0))::timestamp"
        )
    };
}

/// What lies beside the record of a session, as long as it counts.
macro_rules! beside {
    ($sid:literal) => {
        concat!(
            "cloakroom_shared b where b.sessions = {name} and b.sid = ",
            $sid,
            " and b.expires > clock_timestamp()"
        )
    };
}

/// How many milliseconds a row is kept from now on; null: without an end.
macro_rules! left {
    () => {
        "case when isfinite(s.expire) then ceil(1000 * extract(epoch from s.expire::timestamptz - clock_timestamp()))::bigint end"
    };
}

/// The record and what is known of it, of the rows `s` of this. What lies beside is looked
/// up for each row by itself (a limit is not merged with the rest): PostgreSQL cannot know
/// how few rows there are, and would else rather read all that lies beside all.
macro_rules! record {
    ($sess:literal, $rows:literal, $sid:literal) => {
        concat!(
            $sess,
            ", ",
            left!(),
            ", b.facts, b.sid is not null and b.facts is null from ",
            $rows,
            " s left join lateral (select b.sid, b.facts from ",
            beside!($sid),
            " limit 1) b on true "
        )
    };
}

/// A row that has expired counts as absent. Neither over a record nor over an end; the
/// trigger that guards the table looks once more, after it has waited for whoever ends it.
const CREATE: &str = concat!(
    "with made as (insert into {table} as held (sid, sess, expire) ",
    "select $1::text, $2::text::json, ",
    seconds!("$3"),
    " where not exists (select from ",
    beside!("$1::text"),
    " and b.facts is null) on conflict (sid) do update set sess = excluded.sess, ",
    "expire = excluded.expire where held.expire <= clock_timestamp() returning true) ",
    "insert into cloakroom_shared (sessions, sid, facts, expires) ",
    "select {name}, $1::text, $4::text, ",
    in_millis!("$5"),
    " from made on conflict (sid, sessions) do update set facts = excluded.facts, ",
    "expires = excluded.expires returning true"
);

const LOAD: &str = concat!(
    "select ",
    record!("s.sess::text", "{table}", "$1::text"),
    "where s.sid = $1::text and s.expire > clock_timestamp()"
);

/// Never to an earlier end. A lost touch costs a little of the idle timeout, no more.
const TOUCH: &str = concat!(
    "update {table} set expire = greatest(expire, ",
    seconds!("$2"),
    ") where sid = $1::text and expire > clock_timestamp() and not exists (select from ",
    beside!("$1::text"),
    " and b.facts is null) and ",
    unhurried!(),
    " returning true"
);

/// The table is looked up each time: the application may make it anew.
const END: &str = "select cloakroom_end(to_regclass({regclass}), $1::text, $2::bigint)";

/// From one id on (without it), in the order of the index. Expired rows count as well, and
/// come without a record: there may be a hundred for each that lives, and one step must
/// not have to pass over all of them.
const SCAN: &str = concat!(
    "select s.sid::text, ",
    record!(
        "case when s.expire > clock_timestamp() then s.sess::text end",
        "(select sid, sess, expire from {table} where sid > $1::text order by sid limit $2)",
        "s.sid::text collate \"C\""
    ),
    "order by s.sid"
);

/// Rows of the application go two days after their end, so that none goes that lives by
/// a clock of another time zone. connect-pg-simple by itself removes them earlier.
const PRUNE_SESSIONS: &str = concat!(
    "delete from {table} where sid in (select sid from {table} ",
    "where expire < now() - interval '2 days' and ",
    unhurried!(),
    " order by expire limit $1 for update skip locked) returning true"
);

/// In the place of this, where no index leads to them: all rows would have to be read and
/// sorted, which may take longer than a statement has.
const PRUNE_NO_SESSIONS: &str = "select true where false and $1::bigint is null";

const EXPIRE_HAS_INDEX: &str = "select exists (select from pg_catalog.pg_index i \
    join pg_catalog.pg_class c on c.oid = i.indexrelid \
    join pg_catalog.pg_am m on m.oid = c.relam and m.amname = 'btree' \
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0] \
    where i.indrelid = to_regclass({regclass}) and a.attname = 'expire' \
    and i.indisvalid and i.indpred is null)";

const PRUNE_BESIDE: &str = concat!(
    "delete from cloakroom_shared where (sid, sessions) in (select sid, sessions ",
    "from cloakroom_shared where expires <= now() and ",
    unhurried!(),
    " order by expires limit $1 for update skip locked) returning true"
);

/// The log knows that expired rows are left to the application.
static TOLD: AtomicBool = AtomicBool::new(false);

/// The statements of one connection.
pub(super) struct Prepared {
    common: Common,
    pub(super) create: Statement,
    pub(super) load: Statement,
    pub(super) touch: Statement,
    pub(super) end: Statement,
    pub(super) scan: Statement,
    prune_sessions: Statement,
    prune_beside: Statement,
}

/// A text for this table.
fn of(table: &str, text: &str) -> String {
    text.replace("{regclass}", &literal(&quoted(table)))
        .replace("{name}", &literal(table))
        .replace("{table}", &quoted(table))
}

impl Statements for Prepared {
    async fn prepare(client: &Client, target: &PostgresTarget) -> Result<Self, Error> {
        let table = target.url.table();
        let prepare = async |text| client.prepare(&of(table, text)).await;
        let has_index = last(client, &of(table, EXPIRE_HAS_INDEX)).await?;
        let prune = match has_index.as_deref() {
            Some("t") => PRUNE_SESSIONS,
            _ => {
                if !TOLD.swap(true, Ordering::Relaxed) {
                    tracing::info!(
                        "expired sessions in the table {table:?} are left to the application, \
                         since the table has no index on its column \"expire\""
                    );
                }
                PRUNE_NO_SESSIONS
            }
        };
        let (common, create, load, touch, end, scan, prune_sessions, prune_beside) = tokio::try_join!(
            Common::prepare(client),
            prepare(CREATE),
            prepare(LOAD),
            prepare(TOUCH),
            prepare(END),
            prepare(SCAN),
            prepare(prune),
            prepare(PRUNE_BESIDE),
        )?;
        Ok(Self {
            common,
            create,
            load,
            touch,
            end,
            scan,
            prune_sessions,
            prune_beside,
        })
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn prunes() -> Vec<fn(&Self) -> &Statement> {
        vec![
            |prepared| &prepared.prune_sessions,
            |prepared| &prepared.prune_beside,
            |prepared| &prepared.common.prune_epochs,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::store::postgres::schema::Schema;
    use crate::session::store::postgres::server::PostgresServer;
    use crate::session::store::postgres::shared::tests::TABLE;

    /// However large the tables are, nothing reads them from end to end.
    #[test]
    fn indexes_are_used() {
        let server = PostgresServer::start();
        server.sql(TABLE);
        server.sql(&Schema::shared("session").make);
        let by_id = "Index Cond: ((sid)::text = $1)";
        for (sql, types, wanted) in [
            (LOAD, "text", by_id),
            (LOAD, "text", "using cloakroom_shared_pkey"),
            (TOUCH, "text, bigint", by_id),
            (TOUCH, "text, bigint", "using cloakroom_shared_pkey"),
            (SCAN, "text, bigint", "Index Cond: ((sid)::text > $1)"),
            (SCAN, "text, bigint", "using cloakroom_shared_pkey"),
            (PRUNE_SESSIONS, "bigint", "\"IDX_session_expire\""),
            (PRUNE_BESIDE, "bigint", "Index Cond: (expires <= now())"),
        ] {
            let sql = of("session", sql);
            let values = vec!["null"; types.split(',').count()].join(", ");
            let plan = server.sql(&format!(
                "set enable_seqscan = off; set plan_cache_mode = force_generic_plan; \
                 prepare it ({types}) as {sql}; explain execute it ({values})"
            ));
            assert!(plan.contains(wanted), "{sql}\n{plan}");
        }
    }
}
