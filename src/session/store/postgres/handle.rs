//! What the stores of all layouts do over their one connection.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::link::{Link, Request};
use super::statements::Statements;
use super::{PostgresTarget, column, prune, span, strange};
use crate::session::store::{Epoch, StoreError, user_name};

/// A connection that is made when it is first needed and again when it is lost.
pub(super) struct Handle<P> {
    pub(super) target: PostgresTarget,
    link: Arc<Link<P>>,
}

impl<P: Statements> Handle<P> {
    pub(super) fn new(target: PostgresTarget) -> Self {
        Self {
            link: Arc::new(Link::new(&target)),
            target,
        }
    }

    pub(super) async fn now(&self) -> Result<Epoch, StoreError> {
        let rows = self.read(|sql| &sql.common().now, &[]).await?;
        epoch_in(&rows)?.ok_or_else(strange)
    }

    pub(super) async fn epoch(&self, user: &str) -> Result<Option<Epoch>, StoreError> {
        let name = user_name(user);
        let params: [&(dyn ToSql + Sync); 2] = [&&*self.target.prefix, &name];
        epoch_in(&self.read(|sql| &sql.common().epoch, &params).await?)
    }

    pub(super) async fn raise_epoch(&self, user: &str, ttl: Duration) -> Result<Epoch, StoreError> {
        let (name, ttl) = (user_name(user), span(ttl));
        let params: [&(dyn ToSql + Sync); 3] = [&&*self.target.prefix, &name, &ttl];
        let rows = self.call(|sql| &sql.common().raise, &params, false).await?;
        epoch_in(&rows)?.ok_or_else(strange)
    }

    /// A statement that may be sent twice.
    pub(super) async fn read(
        &self,
        statement: fn(&P) -> &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        self.call(statement, params, true).await
    }

    /// A statement that is sent once, and whether it changed a row.
    pub(super) async fn write(
        &self,
        statement: fn(&P) -> &Statement,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<bool, StoreError> {
        Ok(!self.call(statement, params, false).await?.is_empty())
    }

    pub(super) async fn call(
        &self,
        statement: fn(&P) -> &Statement,
        params: &[&(dyn ToSql + Sync)],
        may_repeat: bool,
    ) -> Result<Vec<Row>, StoreError> {
        let request = Request {
            statement,
            params,
            may_repeat,
        };
        let rows = self.link.call(&request).await?;
        if self.target.turns.take() {
            let (link, turns) = (self.link.clone(), self.target.turns.clone());
            tokio::spawn(async move {
                if let Err(error) = prune::run(&link, &turns).await {
                    tracing::debug!("expired sessions stay for now: {error}");
                }
            });
        }
        Ok(rows)
    }
}

fn epoch_in(rows: &[Row]) -> Result<Option<Epoch>, StoreError> {
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let micros: i64 = column(row, 0)?;
    u64::try_from(micros)
        .map(|micros| Some(Epoch(micros)))
        .map_err(|_| StoreError::Unreadable("the user's epoch is negative".into()))
}
