//! What PostgreSQL is asked, prepared once for each connection.
//!
//! Each is one statement and so one step, at the isolation "read committed": a
//! row that somebody else has changed meanwhile is looked at again before it is
//! changed. Moments are the server's, and of a type that knows no time zone.

use tokio_postgres::{Client, Error, Statement};

use super::PostgresTarget;

/// The present moment in microseconds since the Unix epoch.
macro_rules! micros {
    () => {
        "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
    };
}

/// The moment that lies as many milliseconds ahead as a parameter says.
macro_rules! in_millis {
    ($parameter:literal) => {
        concat!(
            "clock_timestamp() + ",
            $parameter,
            "::bigint * interval '1 millisecond'"
        )
    };
}

/// How many milliseconds a row is kept from now on.
macro_rules! left {
    () => {
        "ceil(1000 * extract(epoch from least(expires, clock_timestamp() + interval '100 years') - clock_timestamp()))::bigint"
    };
}

/// That the commit is not waited for: after a crash of the server what was done
/// may be undone, which does no harm here.
macro_rules! unhurried {
    () => {
        "set_config('synchronous_commit', 'off', true) = 'off'"
    };
}
pub(super) use {in_millis, unhurried};

const NOW: &str = concat!("select ", micros!());

/// A row that has expired counts as absent.
const CREATE: &str = concat!(
    "insert into cloakroom_session as held (key, value, seen, expires, user_name) ",
    "values ($1, $2, $3, ",
    in_millis!("$4"),
    ", $5) on conflict (key) do update set value = excluded.value, seen = excluded.seen, ",
    "expires = excluded.expires, user_name = excluded.user_name ",
    "where held.expires <= clock_timestamp() returning true"
);

const LOAD: &str =
    "select value, seen from cloakroom_session where key = $1 and expires > clock_timestamp()";

/// A lost touch costs a little of the idle timeout, no more.
const TOUCH: &str = concat!(
    "update cloakroom_session set seen = $2, expires = ",
    in_millis!("$3"),
    " where key = $1 and expires > clock_timestamp() and ",
    unhurried!(),
    " returning true"
);

const UPDATE: &str = "update cloakroom_session set value = $3 \
    where key = $1 and value = $2 and expires > clock_timestamp() returning true";

/// Says whether what was removed was alive.
const DELETE: &str =
    "delete from cloakroom_session where key = $1 returning expires > clock_timestamp()";

const EPOCH: &str = "select epoch from cloakroom_epoch \
    where prefix = $1 and name = $2 and expires > clock_timestamp()";

/// The second look at the clock comes after the wait for whoever holds the row.
const RAISE: &str = concat!(
    "insert into cloakroom_epoch as held (prefix, name, epoch, expires) values ($1, $2, ",
    micros!(),
    ", ",
    in_millis!("$3"),
    ") on conflict (prefix, name) do update set epoch = greatest(",
    micros!(),
    ", held.epoch + 1), expires = ",
    in_millis!("$3"),
    " returning epoch"
);

const OF_USER: &str = concat!(
    "select key, value, seen, ",
    left!(),
    " from cloakroom_session where user_name = $1 and starts_with(key, $2) ",
    "and expires > clock_timestamp() order by key"
);

/// From one key to another (without it), in the order of the index.
const SCAN: &str = concat!(
    "select key, value, seen, ",
    left!(),
    " from cloakroom_session where key >= $1 and key < $2 ",
    "and starts_with(key, $3) and expires > clock_timestamp() order by key limit $4"
);

/// The moment at which the statement began: an index can be asked for that, and
/// not for one that moves on.
const PRUNE_SESSIONS: &str = concat!(
    "delete from cloakroom_session where key in (select key from cloakroom_session ",
    "where expires <= now() and ",
    unhurried!(),
    " order by expires limit $1 for update skip locked) returning true"
);

const PRUNE_EPOCHS: &str = concat!(
    "delete from cloakroom_epoch where (prefix, name) in (select prefix, name ",
    "from cloakroom_epoch where expires <= now() and ",
    unhurried!(),
    " order by expires limit $1 for update skip locked) returning true"
);

/// The statements of one connection, for one layout.
pub(super) trait Statements: Sized + Send + Sync + 'static {
    /// Prepares all of them, in one round trip.
    fn prepare(
        client: &Client,
        target: &PostgresTarget,
    ) -> impl Future<Output = Result<Self, Error>> + Send;

    /// Those of all layouts.
    fn common(&self) -> &Common;

    /// Those that remove what has expired; each takes the most rows that it may remove.
    fn prunes() -> Vec<fn(&Self) -> &Statement>;
}

/// What all layouts ask.
pub(super) struct Common {
    pub(super) now: Statement,
    pub(super) epoch: Statement,
    pub(super) raise: Statement,
    pub(super) prune_epochs: Statement,
}

impl Common {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        let (now, epoch, raise, prune_epochs) = tokio::try_join!(
            client.prepare(NOW),
            client.prepare(EPOCH),
            client.prepare(RAISE),
            client.prepare(PRUNE_EPOCHS),
        )?;
        Ok(Self {
            now,
            epoch,
            raise,
            prune_epochs,
        })
    }
}

/// Of tables of our own.
pub(super) struct Prepared {
    pub(super) common: Common,
    pub(super) create: Statement,
    pub(super) load: Statement,
    pub(super) touch: Statement,
    pub(super) update: Statement,
    pub(super) delete: Statement,
    pub(super) of_user: Statement,
    pub(super) scan: Statement,
    pub(super) prune_sessions: Statement,
}

impl Statements for Prepared {
    async fn prepare(client: &Client, _: &PostgresTarget) -> Result<Self, Error> {
        let (common, create, load, touch, update, delete, of_user, scan, prune_sessions) = tokio::try_join!(
            Common::prepare(client),
            client.prepare(CREATE),
            client.prepare(LOAD),
            client.prepare(TOUCH),
            client.prepare(UPDATE),
            client.prepare(DELETE),
            client.prepare(OF_USER),
            client.prepare(SCAN),
            client.prepare(PRUNE_SESSIONS),
        )?;
        Ok(Self {
            common,
            create,
            load,
            touch,
            update,
            delete,
            of_user,
            scan,
            prune_sessions,
        })
    }

    fn common(&self) -> &Common {
        &self.common
    }

    fn prunes() -> Vec<fn(&Self) -> &Statement> {
        vec![|prepared| &prepared.prune_sessions, |prepared| {
            &prepared.common.prune_epochs
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::store::postgres::server::PostgresServer;

    /// However large the tables are, nothing reads them from end to end.
    #[test]
    fn indexes_are_used() {
        let server = PostgresServer::start();
        server.sql(include_str!("schema.sql"));
        let session = "Index Scan using cloakroom_session_";
        for (sql, types, wanted) in [
            (LOAD, "text", format!("{session}pkey")),
            (TOUCH, "text, bigint, bigint", format!("{session}pkey")),
            (UPDATE, "text, bytea, bytea", format!("{session}pkey")),
            (DELETE, "text", format!("{session}pkey")),
            (EPOCH, "text, text", "using cloakroom_epoch_pkey".into()),
            (OF_USER, "text, text", "cloakroom_session_user_name".into()),
            (
                SCAN,
                "text, text, text, bigint",
                "Index Cond: ((key >= $1) AND (key < $2))".into(),
            ),
            (
                PRUNE_SESSIONS,
                "bigint",
                "Index Cond: (expires <= now())".into(),
            ),
            (
                PRUNE_EPOCHS,
                "bigint",
                "Index Cond: (expires <= now())".into(),
            ),
        ] {
            let values = vec!["null"; types.split(',').count()].join(", ");
            let plan = server.sql(&format!(
                "set enable_seqscan = off; set plan_cache_mode = force_generic_plan; \
                 prepare it ({types}) as {sql}; explain execute it ({values})"
            ));
            assert!(plan.contains(&wanted), "{sql}\n{plan}");
        }
    }
}
