//! Hears what changes, on a connection of its own.
//!
//! The triggers of `schema.sql` tell each change to all who listen. That the
//! channel is alive is proven by questions on the same connection: the server
//! sends what it has to tell before it says that a question has been answered.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_postgres::{AsyncMessage, Client, Statement};

use super::link::{Driver, drive};
use super::schema::{NotReady, Schema, last};
use super::{PostgresTarget, jitter, written};
use crate::session::store::{Listener, StoreError};

/// The first pause before a new attempt; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The pause where the owner of the tables has to do something first.
const OWNERS_PAUSE: Duration = Duration::from_secs(5);

/// Questions are asked in distances within these bounds.
const PERIODS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// How long an answer that is late is still waited for before the connection is
/// given up. Until it comes, no copy counts.
const GIVE_UP: Duration = Duration::from_secs(1);

/// Follows the store until the runtime ends.
pub(super) async fn run(target: PostgresTarget, listener: Arc<dyn Listener>) {
    let mut follower = Follower {
        period: (target.staleness / 4).clamp(PERIODS.0, PERIODS.1),
        pause: FIRST_PAUSE,
        told: false,
        target,
        listener,
    };
    loop {
        let Err(why) = follower.hear().await;
        follower.listener.lost();
        follower.tell(&why);
        tokio::time::sleep(follower.pause / 2 + jitter(follower.pause / 2)).await;
        follower.pause = (follower.pause * 2).min(LONGEST_PAUSE);
    }
}

struct Follower {
    target: PostgresTarget,
    listener: Arc<dyn Listener>,
    /// The distance of questions, and the time that an answer has.
    period: Duration,
    pause: Duration,
    /// The log knows that the channel is lost.
    told: bool,
}

/// The channel, with the means to prove it.
struct Channel {
    client: Client,
    question: Statement,
    /// What the answer must be: the same tables, with all of their triggers.
    mark: String,
    driver: Driver<()>,
}

impl Follower {
    /// Opens the channel and stays with it to its end.
    async fn hear(&mut self) -> Result<Infallible, StoreError> {
        let opening = self.open();
        let limit = self.target.timeout.max(LONGEST_PAUSE);
        let mut channel = match tokio::time::timeout(limit, opening).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(why)) => {
                if !matches!(why, NotReady::Failed(_)) {
                    self.pause = OWNERS_PAUSE;
                }
                return Err(self.target.explain_setup(&why));
            }
            Err(_) => return Err(StoreError::Timeout(limit)),
        };
        // What was read before there was somebody to hear of its changes.
        self.listener.lost();
        self.prove(&channel).await?;
        self.pause = FIRST_PAUSE;
        if std::mem::take(&mut self.told) {
            tracing::info!("the session store's changes are heard again");
        }
        loop {
            tokio::select! {
                _ = &mut channel.driver => {
                    return Err(StoreError::Unavailable("the connection was closed".into()));
                }
                () = tokio::time::sleep(self.period) => {}
            }
            if self.listener.is_used() {
                self.prove(&channel).await?;
            }
        }
    }

    async fn open(&self) -> Result<Channel, NotReady> {
        let (client, wire) = self.target.connect().await?;
        let hearer = Hearer {
            listener: self.listener.clone(),
            prefix: self.target.prefix.clone(),
            plain_prefix: self.target.plain_prefix.clone(),
            shared: Arc::default(),
            told_zone: AtomicBool::new(false),
        };
        let shared = hearer.shared.clone();
        let driver = Driver(tokio::spawn(drive(wire, move |message| {
            if let AsyncMessage::Notification(told) = message {
                hearer.pass_on(told.payload());
            }
        })));
        let schema = &self.target.schema;
        let mark = schema.triggers(&client, &self.target.settings).await?;
        // Nothing is told before we listen.
        let _ = Schema::table_and_zone(&mark).map(|known| shared.set(known));
        let channel = last(&client, &schema.channel)
            .await?
            .ok_or(NotReady::Triggers)?;
        client.batch_execute(&format!("listen {channel}")).await?;
        Ok(Channel {
            question: client.prepare(&schema.mark).await?,
            client,
            mark,
            driver,
        })
    }

    /// Asks, and tells the listener that the answer has come.
    async fn prove(&self, channel: &Channel) -> Result<(), StoreError> {
        let asked = Instant::now();
        let answer = channel.client.query_one(&channel.question, &[]);
        let mut answer = std::pin::pin!(answer);
        let answered = match tokio::time::timeout(self.period, &mut answer).await {
            Ok(answered) => answered,
            Err(_) => {
                self.listener.lost();
                tokio::time::timeout(GIVE_UP, answer)
                    .await
                    .map_err(|_| StoreError::Timeout(GIVE_UP))?
            }
        };
        let mark: Option<String> = answered
            .and_then(|row| row.try_get(0))
            .map_err(|error| self.target.explain(&error))?;
        if mark.as_ref() != Some(&channel.mark) {
            let what = "its tables or triggers have changed";
            return Err(StoreError::Unavailable(what.into()));
        }
        self.listener.proven(asked);
        Ok(())
    }

    /// Once for each loss.
    fn tell(&mut self, why: &StoreError) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                "the session store's changes are not heard, so each request asks it: {why}"
            );
        }
    }
}

/// Who hears what triggers tell.
struct Hearer {
    listener: Arc<dyn Listener>,
    /// As it is written in our own tables.
    prefix: Arc<str>,
    /// As it is in keys.
    plain_prefix: Arc<str>,
    /// A shared table's number, and this connection's distance from UTC in seconds.
    shared: Arc<OnceLock<(u32, i64)>>,
    /// The log knows that applications write in another time zone than this connection,
    /// which keeps its own to its end.
    told_zone: AtomicBool,
}

impl Hearer {
    /// What a trigger has told, told to the listener.
    fn pass_on(&self, payload: &str) {
        let (listener, prefix) = (&self.listener, &*self.prefix);
        match payload.split_once(' ') {
            Some(("session", key)) if !key.starts_with(prefix) => {}
            Some(("session", key)) => listener.record_changed(&written::read(key)),
            Some(("epoch", rest)) => match rest.split_once(' ') {
                Some((name, whose)) if whose == prefix => listener.epoch_changed(name),
                _ => {}
            },
            Some(("shared", rest)) => self.pass_on_shared(rest),
            // Everything; or what another version tells.
            _ => listener.lost(),
        }
    }

    /// The table's number, the writer's distance from UTC if it wrote when the session
    /// ends, the session id.
    fn pass_on_shared(&self, rest: &str) {
        let mut parts = rest.splitn(3, ' ');
        let table = parts.next().and_then(|table| table.parse::<u32>().ok());
        let zone = parts.next().and_then(|zone| match zone {
            "-" => Some(None),
            zone => zone.parse::<i64>().ok().map(Some),
        });
        let (Some(table), Some(zone), Some(sid)) = (table, zone, parts.next()) else {
            self.listener.lost();
            return;
        };
        let Some(&(own_table, own_zone)) = self.shared.get() else {
            return;
        };
        if table != own_table {
            return;
        }
        if let Some(zone) = zone.filter(|zone| *zone != own_zone)
            && !self.told_zone.swap(true, Ordering::Relaxed)
        {
            tracing::error!(
                "an application writes its sessions in a time zone {zone} s from UTC, and the \
                 store's connection is {own_zone} s from it, so sessions end too early or too \
                 late: give both the same TimeZone, such as with ALTER ROLE … SET timezone = \
                 'UTC' for both roles"
            );
        }
        let prefix = &self.plain_prefix;
        self.listener.record_changed(&format!("{prefix}{sid}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Listener for Told {
        fn record_changed(&self, key: &str) {
            self.0.lock().unwrap().push(format!("record {key:?}"));
        }

        fn epoch_changed(&self, name: &str) {
            self.0.lock().unwrap().push(format!("epoch {name}"));
        }

        fn lost(&self) {
            self.0.lock().unwrap().push("lost".into());
        }

        fn proven(&self, _: Instant) {}

        fn is_used(&self) -> bool {
            false
        }
    }

    #[test]
    fn what_triggers_tell_is_understood() {
        for (payload, told) in [
            ("session sess:a", Some("record \"sess:a\"")),
            (r"session sess:a b\\c\0", Some(r#"record "sess:a b\\c\0""#)),
            ("session other:a", None),
            ("epoch abc sess:", Some("epoch abc")),
            ("epoch abc sess", None),
            ("epoch abc", None),
            ("all", Some("lost")),
            ("", Some("lost")),
            ("renamed a", Some("lost")),
            (r"shared 7 3600 a b\c", Some(r#"record "sess:a b\\c""#)),
            ("shared 7 0 a", Some("record \"sess:a\"")),
            ("shared 7 - a b", Some("record \"sess:a b\"")),
            ("shared 7 -- a", Some("lost")),
            ("shared 8 0 a", None),
            ("shared 7 a", Some("lost")),
        ] {
            let listener = Arc::new(Told::default());
            let hearer = Hearer {
                listener: listener.clone(),
                prefix: "sess:".into(),
                plain_prefix: "sess:".into(),
                shared: Arc::new(OnceLock::from((7, 3600))),
                told_zone: AtomicBool::new(false),
            };
            hearer.pass_on(payload);
            let heard = listener.0.lock().unwrap();
            assert_eq!(*heard, Vec::from_iter(told), "{payload}");
            let other_zone = payload.starts_with("shared 7 0 ");
            let told_zone = hearer.told_zone.load(Ordering::Relaxed);
            assert_eq!(told_zone, other_zone, "{payload}");
        }
    }
}
