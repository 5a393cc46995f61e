//! A replica's way to the store, as the port has it.

use super::super::*;
use super::stage::{Answer, Command, Line, Stage};

/// A replica's way to the store.
pub struct Handle {
    pub stage: Arc<Stage>,
    pub replica: usize,
    pub line: Line,
}

/// Asks for one kind of answer.
macro_rules! ask {
    ($self:ident, $command:expr, $kind:path) => {
        Box::pin(async move {
            match $self
                .stage
                .call($self.replica, $self.line, $command)
                .await?
            {
                $kind(answer) => Ok(answer),
                _ => unreachable!("another kind of answer"),
            }
        })
    };
}

impl SessionStore for Handle {
    fn now(&self) -> BoxFuture<'_, Result<Epoch, StoreError>> {
        ask!(self, Command::Now, Answer::Moment)
    }
    fn create(&self, record: NewRecord) -> BoxFuture<'_, Result<bool, StoreError>> {
        ask!(self, Command::Create(record), Answer::Done)
    }
    fn load<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<StoredRecord>, StoreError>> {
        ask!(self, Command::Load(key.into()), Answer::Record)
    }
    fn touch<'a>(
        &'a self,
        key: &'a str,
        seen: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        ask!(self, Command::Touch(key.into(), seen, ttl), Answer::Done)
    }
    fn update<'a>(
        &'a self,
        key: &'a str,
        old: Bytes,
        new: Bytes,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        ask!(self, Command::Update(key.into(), old, new), Answer::Done)
    }
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<bool, StoreError>> {
        ask!(self, Command::Delete(key.into()), Answer::Done)
    }
    fn epoch<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Option<Epoch>, StoreError>> {
        ask!(self, Command::Epoch(user.into()), Answer::Raised)
    }
    fn raise_epoch<'a>(
        &'a self,
        user: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Epoch, StoreError>> {
        ask!(self, Command::Raise(user.into(), ttl), Answer::Moment)
    }
    fn of_user<'a>(&'a self, user: &'a str) -> BoxFuture<'a, Result<Vec<Found>, StoreError>> {
        ask!(self, Command::OfUser(user.into()), Answer::Found)
    }
    fn scan(&self, _: Option<String>, _: usize) -> BoxFuture<'_, Result<Page, StoreError>> {
        unreachable!("no scenario lists all")
    }
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        unreachable!("no scenario asks for signs of life")
    }
}
