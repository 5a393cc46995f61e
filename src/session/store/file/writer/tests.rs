//! The thread's decisions, without the thread.

use std::sync::mpsc::{self, Sender};

use tokio::sync::Semaphore;

use super::super::{disk, tables};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn writer(folder: &tempfile::TempDir) -> (Writer, Sender<Message>) {
    let path = disk::prepare(folder.path()).unwrap();
    let disk = Arc::new(Disk::open(move || disk::open(&path)).unwrap());
    let clock = Clock::fixed(Timestamp(1_700_000_000_000));
    let ticks = Arc::new(Ticks::new(clock.clone()));
    let (queue, messages) = mpsc::channel();
    (
        Writer::new(disk, clock, ticks, Arc::default(), messages),
        queue,
    )
}

fn job(change: Change) -> (Message, oneshot::Receiver<Result<u64, StoreError>>) {
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let (reply, answer) = oneshot::channel();
    let job = Job {
        change,
        reply,
        _place: place,
    };
    (Message::Job(job), answer)
}

fn creation(key: &str) -> Change {
    Change::Create(NewRecord {
        key: key.into(),
        user: "ann".into(),
        value: Bytes::from_static(b"value"),
        seen: Timestamp(1),
        ttl: 2 * HOUR,
    })
}

fn touch(key: &str) -> Change {
    Change::Touch {
        key: key.into(),
        seen: Timestamp(2),
        ttl: 2 * HOUR,
    }
}

#[test]
fn an_idle_store_has_nothing_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _queue) = writer(&folder);
    writer.tend();
    assert!(writer.patience() > HOUR / 2, "{:?}", writer.patience());

    let (message, mut answer) = job(creation("sess:a"));
    writer.serve(message);
    writer.tend();
    assert_eq!(answer.try_recv().unwrap(), Ok(1));
    assert!(writer.patience() > HOUR / 2, "{:?}", writer.patience());
}

#[test]
fn touches_are_synced_soon_and_misses_are_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _queue) = writer(&folder);
    writer.tend();
    let (message, mut answer) = job(touch("sess:a"));
    writer.serve(message);
    assert_eq!(answer.try_recv().unwrap(), Ok(0));
    assert_eq!(writer.sync_at, None);

    let (message, _answer) = job(creation("sess:a"));
    writer.serve(message);
    writer.serve(job(touch("sess:a")).0);
    let at = writer.sync_at.unwrap();
    writer.serve(job(touch("sess:a")).0);
    assert_eq!(writer.sync_at, Some(at), "the next touch puts it off");
    assert!(writer.patience() <= SETTLE);
    writer.sync();
    assert_eq!(writer.sync_at, None);
}

#[test]
fn a_record_that_nobody_waits_for_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, queue) = writer(&folder);
    let (given_up, answer) = job(creation("sess:a"));
    drop(answer);
    let (behind, mut answer) = job(creation("sess:b"));
    queue.send(behind).unwrap();
    writer.serve(given_up);
    assert_eq!(
        answer.try_recv().unwrap(),
        Ok(1),
        "they are served together"
    );
    let now = writer.clock.now();
    let load = |key: &str| writer.disk.with(|d| tables::load(d, key, now)).unwrap();
    assert!(load("sess:a").is_none());
    assert!(load("sess:b").is_some());
}

#[test]
fn a_sweep_takes_what_has_expired_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _queue) = writer(&folder);
    let start = writer.clock.now();
    let keys = ["sess:touched", "sess:left"];
    let mut answers = Vec::new();
    for change in keys.map(creation) {
        let (message, answer) = job(change);
        writer.serve(message);
        answers.push(answer);
    }
    writer.clock.set(start.after(HOUR));
    writer.serve(job(touch("sess:touched")).0);

    let remaining = |writer: &mut Writer, at: Timestamp| {
        writer.clock.set(at);
        writer.sweep();
        // By a clock that is put back, so that what is there is seen.
        let load = |key: &&str| writer.disk.with(|d| tables::load(d, key, start)).unwrap();
        keys.iter().filter(|key| load(key).is_some()).count()
    };
    let last = Duration::from_millis(1);
    assert_eq!(
        remaining(&mut writer, Timestamp(start.after(2 * HOUR).0 - 1)),
        2
    );
    assert_eq!(remaining(&mut writer, start.after(2 * HOUR)), 1);
    assert_eq!(remaining(&mut writer, start.after(3 * HOUR - last)), 1);
    assert_eq!(remaining(&mut writer, start.after(3 * HOUR)), 0);
    let due = writer.disk.with(|database| {
        let transaction = database.begin_write()?;
        Tables::open(&transaction)?.next_due()
    });
    assert_eq!(due, Ok(None), "the index is not empty");
}
