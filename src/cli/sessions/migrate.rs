//! `cloakroom sessions migrate`: all live sessions, from one store to another.
//!
//! Copied are the record as it is, when it was last used, what is left of its
//! time, and whose it is. A record is bound to its key, so the prefix stays the
//! same; its client's cookie goes on, with the same secrets.
//!
//! Epochs are carried out rather than carried over. A session that its user's
//! epoch has ended is not copied, and is removed from the target where an
//! earlier run has copied it. So the epoch has nothing left to end there. An epoch
//! itself means nothing elsewhere: it is a moment by the clock of its store. What
//! the target's own epochs have ended is left out as well.
//!
//! A single session that was signed out at the target after it was copied would
//! come back with another run: the proxies move when the copy is done, and not
//! back and forth.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::desk::there_is_a_file;
use super::{Common, Trouble, load, say};
use crate::base::clock::Clock;
use crate::config::settings::StoreUrl;
use crate::config::value::secret::store_url;
use crate::session::layout::sealed::head_of;
use crate::session::settings::{CacheSettings, LayoutKind, StoreSettings};
use crate::session::store::{self, Epoch, Found, NewRecord, SessionStore, StoreError};
use crate::session::{StoreLocation, token};

/// Records that are read at a time.
const PART: usize = 500;

/// The longest that one operation may take: a copy is in less of a hurry than
/// a request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How far the target's clock may be behind before it is not waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// `cloakroom sessions migrate`.
#[derive(Debug, Args)]
pub struct Migrate {
    /// The store to copy from [default: that of the configuration]
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// The store to copy to; env:NAME takes the URL from a variable
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// What the names of session keys begin with [default: as the configuration says, else sess:]
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// What became of the sessions.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    copied: usize,
    present: usize,
    ended: usize,
    unreadable: usize,
}

pub(super) async fn run(args: Migrate) -> Result<ExitCode, Trouble> {
    // With both stores named, a configuration is needed only where one is.
    let compiled = match (&args.from, &args.common.config) {
        (Some(_), None) => None,
        _ => Some(load(args.common.config.as_deref())?),
    };
    if let Some(compiled) = &compiled
        && matches!(compiled.store.layout, LayoutKind::Express { .. })
    {
        return Err(format!(
            "store.layout is \"express\" for {}: its sessions are the application's too, which would \
             not find them elsewhere; only sessions of the layout \"sealed\" can be moved",
            compiled.store_shown
        )
        .into());
    }
    let configured = compiled.as_ref().map(|compiled| &compiled.store);
    let prefix = args
        .prefix
        .or_else(|| configured.map(|store| store.prefix.clone()))
        .unwrap_or_else(|| "sess:".to_owned());
    let (from, from_shown) = match (&args.from, &compiled) {
        (Some(url), _) => understand("--from", url)?,
        (None, Some(compiled)) => (
            compiled.store.location.clone(),
            compiled.store_shown.clone(),
        ),
        (None, None) => return Err("--from is missing".to_owned().into()),
    };
    let (to, to_shown) = understand("--to", &args.to)?;
    for (location, what) in [(&from, "from"), (&to, "to")] {
        if matches!(location, StoreLocation::Memory) {
            return Err(format!(
                "memory: is gone with its process, so nothing can be copied {what} it"
            )
            .into());
        }
        if let StoreLocation::Postgres(url) = location
            && url.names_a_table()
        {
            return Err(format!(
                "table={} is an application's table (layout \"express\"), so nothing can be copied \
                 {what} it; only sessions of the layout \"sealed\" can be moved",
                url.table()
            )
            .into());
        }
    }
    if from_shown == to_shown {
        return Err(format!("--from and --to are the same store, {to_shown}").into());
    }
    if let StoreLocation::File(folder) = &from {
        there_is_a_file(folder)?;
    }
    let source = open(from, &prefix).map_err(|error| {
        format!("{from_shown}: {error}. Stop the proxy before its sessions are copied")
    })?;
    let target = open(to, &prefix).map_err(|error| format!("{to_shown}: {error}"))?;
    let tally = copy(&*source, &*target, &prefix).await?;
    say(&match args.common.json {
        true => format!(
            "{}\n",
            json!({ "copied": tally.copied, "present": tally.present,
                    "ended": tally.ended, "unreadable": tally.unreadable })
        ),
        false => format!(
            "from {from_shown} to {to_shown}: {} copied, {} there already, {} had been ended, {} cannot be read\n",
            tally.copied, tally.present, tally.ended, tally.unreadable
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn understand(option: &str, text: &str) -> Result<(StoreLocation, String), String> {
    let url = match text.strip_prefix("env:") {
        Some(name) => std::env::var(name).map_err(|_| format!("{option}: ${name} is not set"))?,
        None => text.to_owned(),
    };
    let StoreUrl { location, shown } =
        store_url(&url, Path::new("")).map_err(|why| format!("{option}: {why}"))?;
    Ok((location, shown))
}

fn open(location: StoreLocation, prefix: &str) -> Result<Arc<dyn SessionStore>, StoreError> {
    let settings = StoreSettings {
        location,
        layout: LayoutKind::Sealed,
        prefix: prefix.to_owned(),
        timeout: TIMEOUT,
        cache: CacheSettings {
            entries: 0,
            ..CacheSettings::default()
        },
    };
    Ok(store::open(&settings, Clock::system())?.handle())
}

async fn copy(
    source: &dyn SessionStore,
    target: &dyn SessionStore,
    prefix: &str,
) -> Result<Tally, String> {
    let at_source = |error: StoreError| format!("the store to copy from: {error}");
    let mut tally = Tally::default();
    let mut cursor = None;
    loop {
        let page = source.scan(cursor, PART).await.map_err(at_source)?;
        // Two questions for each user of a part.
        let mut epochs: HashMap<String, Option<Epoch>> = HashMap::new();
        for found in page.found {
            let Some(head) = head_of(&found.record.value) else {
                tally.unreadable += 1;
                continue;
            };
            let epoch = match epochs.get(&head.user) {
                Some(epoch) => *epoch,
                None => {
                    let here = source.epoch(&head.user).await.map_err(at_source)?;
                    let there = target.epoch(&head.user).await;
                    let there = there.map_err(|error| at_target(prefix, &found, &error))?;
                    let epoch = here.max(there);
                    epochs.insert(head.user.clone(), epoch);
                    epoch
                }
            };
            if !head.life().is_newer_than(epoch) {
                let removed = target.delete(&found.key).await;
                removed.map_err(|error| at_target(prefix, &found, &error))?;
                tally.ended += 1;
                continue;
            }
            wait_for(target, Epoch(head.epoch)).await?;
            match put(target, &head.user, &found).await {
                Ok(true) => tally.copied += 1,
                Ok(false) => tally.present += 1,
                Err(error) => return Err(at_target(prefix, &found, &error)),
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(tally);
        }
    }
}

async fn put(target: &dyn SessionStore, user: &str, found: &Found) -> Result<bool, StoreError> {
    target
        .create(NewRecord {
            key: found.key.clone(),
            user: user.to_owned(),
            value: found.record.value.clone(),
            seen: found.record.seen,
            ttl: found.ttl.max(Duration::from_millis(1)),
        })
        .await
}

/// Signing out everywhere sets the epoch to the present moment of the store, and
/// ends what is not newer. A session from the future of the target's clock would
/// be beyond its reach.
async fn wait_for(target: &dyn SessionStore, began: Epoch) -> Result<(), String> {
    let start = Instant::now();
    loop {
        let now = target.now().await;
        let now = now.map_err(|error| format!("the store to copy to: {error}"))?;
        if now > began {
            return Ok(());
        }
        let behind = Duration::from_micros(began.0.saturating_sub(now.0));
        if behind > PATIENCE.saturating_sub(start.elapsed()) {
            return Err(format!(
                "the clock of the store to copy to is {} s behind the session's; set the clocks \
                 right and run this again, which goes on where it ended",
                behind.as_secs()
            ));
        }
        tokio::time::sleep(behind + Duration::from_millis(1)).await;
    }
}

fn at_target(prefix: &str, found: &Found, error: &StoreError) -> String {
    let handle = token::handle_of(&found.key, prefix).unwrap_or_default();
    format!("the store to copy to, at session {handle}: {error}; run this again to go on")
}

#[cfg(test)]
mod tests;
