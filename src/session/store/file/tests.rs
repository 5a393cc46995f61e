//! Against real files, and against a device that fails on demand.

mod device;
mod opening;

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use redb::{ReadableDatabase, ReadableTableMetadata};
use tempfile::TempDir;

use super::*;
use crate::session::store::contract::{self, Time};

const HOUR: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(30);
const START: Timestamp = Timestamp(1_700_000_000_000);

fn open(folder: &Path) -> Result<FileStore, StoreError> {
    FileStore::open(folder, Clock::fixed(START), TIMEOUT)
}

fn record(key: &str, ttl: Duration) -> NewRecord {
    NewRecord {
        key: key.into(),
        user: "ann".into(),
        value: Bytes::from_static(b"value"),
        seen: Timestamp(1),
        ttl,
    }
}

/// A folder with a copy of the file as it is at this moment.
fn copy(folder: &Path) -> TempDir {
    let other = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join(FILE_NAME), other.path().join(FILE_NAME)).unwrap();
    other
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(START);
    let store = FileStore::open(folder.path(), clock.clone(), TIMEOUT).unwrap();
    let store = Arc::new(store);
    contract::run(|| store.clone(), Time::Fixed(clock)).await;
}

#[tokio::test]
async fn records_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.create(record("sess:a", HOUR)).await.unwrap();
    store.create(record("sess:b", HOUR)).await.unwrap();
    store.touch("sess:a", Timestamp(99), HOUR).await.unwrap();
    store.delete("sess:b").await.unwrap();
    let epoch = store.raise_epoch("ann", HOUR).await.unwrap();
    drop(store);

    let store = open(folder.path()).unwrap();
    let kept = store.load("sess:a").await.unwrap().unwrap();
    assert_eq!(&*kept.value, b"value");
    assert_eq!(
        kept.seen,
        Timestamp(99),
        "the last touch is written at the end"
    );
    assert_eq!(store.load("sess:b").await, Ok(None));
    assert_eq!(store.epoch("ann").await, Ok(Some(epoch)));
    assert!(store.raise_epoch("ann", HOUR).await.unwrap() > epoch);
}

#[tokio::test]
async fn an_answered_write_is_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.create(record("sess:a", HOUR)).await.unwrap();
    let created = copy(folder.path());
    let (old, new) = (Bytes::from("value"), Bytes::from("new"));
    store.update("sess:a", old, new).await.unwrap();
    let updated = copy(folder.path());
    store.delete("sess:a").await.unwrap();
    let deleted = copy(folder.path());
    let epoch = store.raise_epoch("ann", HOUR).await.unwrap();
    let raised = copy(folder.path());

    for (folder, value) in [
        (created, Some("value")),
        (updated, Some("new")),
        (deleted, None),
    ] {
        let then = open(folder.path()).unwrap();
        let found = then
            .load("sess:a")
            .await
            .unwrap()
            .map(|record| record.value);
        assert_eq!(found, value.map(Bytes::from));
        assert_eq!(then.epoch("ann").await, Ok(None));
    }
    let then = open(raised.path()).unwrap();
    assert_eq!(then.epoch("ann").await, Ok(Some(epoch)));
}

#[tokio::test]
async fn touches_reach_the_file_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.create(record("sess:a", HOUR)).await.unwrap();
    store.touch("sess:a", Timestamp(99), HOUR).await.unwrap();
    let seen = store.load("sess:a").await.unwrap().unwrap().seen;
    assert_eq!(seen, Timestamp(99), "visible at once");
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let there = open(copy(folder.path()).path()).unwrap();
        if there.load("sess:a").await.unwrap().unwrap().seen == Timestamp(99) {
            break;
        }
        assert!(Instant::now() < deadline, "the touch stays in memory");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_has_expired_is_removed_without_being_asked() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path(), Clock::system(), TIMEOUT).unwrap();
    let brief = Duration::from_millis(50);
    for n in 0..50 {
        store
            .create(record(&format!("sess:{n}"), brief))
            .await
            .unwrap();
    }
    store.raise_epoch("ann", brief).await.unwrap();
    store.create(record("sess:kept", HOUR)).await.unwrap();

    let deadline = Instant::now() + TIMEOUT;
    while lengths(&store) != (1, 0) {
        assert!(Instant::now() < deadline, "left: {:?}", lengths(&store));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(store.load("sess:kept").await.unwrap().is_some());
}

#[tokio::test]
async fn a_sweep_takes_as_many_commits_as_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(START);
    let store = FileStore::open(folder.path(), clock.clone(), TIMEOUT).unwrap();
    let store = Arc::new(store);
    let mut pending = tokio::task::JoinSet::new();
    for n in 0..2500 {
        let store = store.clone();
        pending.spawn(async move { store.create(record(&format!("sess:{n}"), HOUR)).await });
    }
    for created in pending.join_all().await {
        assert_eq!(created, Ok(true));
    }
    drop(store);
    clock.set(START.after(HOUR));
    // A store sweeps what its predecessor has left.
    let store = FileStore::open(folder.path(), clock, TIMEOUT).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while lengths(&store) != (0, 0) {
        assert!(Instant::now() < deadline, "left: {:?}", lengths(&store));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn lengths(store: &FileStore) -> (u64, u64) {
    let sessions: redb::TableDefinition<&str, (u64, u64, &[u8])> =
        redb::TableDefinition::new("sessions");
    let epochs: redb::TableDefinition<&str, (u64, u64)> = redb::TableDefinition::new("epochs");
    store
        .read(|database| {
            let view = database.begin_read()?;
            let sessions = view.open_table(sessions)?.len()?;
            Ok((sessions, view.open_table(epochs)?.len()?))
        })
        .unwrap()
}

#[test]
fn folder_and_file_are_for_the_owner_alone() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("a/b");
    drop(open(&folder).unwrap());
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join(FILE_NAME)), 0o600);
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    for n in 0..100 {
        store
            .create(record(&format!("sess:{n}"), HOUR))
            .await
            .unwrap();
    }
    drop(store);
    let path = folder.path().join(FILE_NAME);
    let good = std::fs::read(&path).unwrap();

    let mut cases = vec![
        ("foreign", b"SQLite format 3\0 and so on".repeat(1000)),
        ("text", b"hello".to_vec()),
        ("zeros", vec![0; good.len()]),
    ];
    for length in [
        0,
        1,
        100,
        319,
        320,
        512,
        4096,
        good.len() / 2,
        good.len() - 1,
    ] {
        cases.push(("cut off", good[..length].to_vec()));
    }
    // In the head, and all over the pages.
    let head = [0, 5, 8, 9, 10, 12, 20, 64, 70, 100, 128, 192, 200, 300];
    let pages = (4096..good.len() - 4).step_by(1531);
    for at in head.into_iter().chain(pages) {
        let mut bad = good.clone();
        for byte in &mut bad[at..at + 4] {
            *byte ^= 0xff;
        }
        cases.push(("flipped", bad));
    }
    let mut refused = 0;
    for (what, bad) in &cases {
        std::fs::write(&path, bad).unwrap();
        match open(folder.path()) {
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                assert!(text.contains("move it away"), "{what}: {text}");
                assert!(text.contains(FILE_NAME), "{what}: {text}");
                assert_eq!(&std::fs::read(&path).unwrap(), bad, "{what} was changed");
            }
            // redb has every commit twice: if it gets along, nothing is lost.
            Ok(store) => {
                assert_eq!(*what, "flipped", "a file of {} bytes", bad.len());
                for n in 0..100 {
                    let found = store.load(&format!("sess:{n}")).await.unwrap();
                    assert!(found.is_some(), "silently lost sess:{n}");
                }
            }
        }
    }
    assert!(refused > 30, "{refused} of {}", cases.len());

    std::fs::write(&path, &good).unwrap();
    assert!(
        open(folder.path())
            .unwrap()
            .load("sess:7")
            .await
            .unwrap()
            .is_some()
    );
}

#[test]
fn another_format_and_another_program_are_refused() {
    let meta: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("cloakroom");
    for (format, word) in [(Some(3), "format 3"), (None, "another program")] {
        let folder = tempfile::tempdir().unwrap();
        let database = redb::Database::create(folder.path().join(FILE_NAME)).unwrap();
        if let Some(format) = format {
            let change = database.begin_write().unwrap();
            change
                .open_table(meta)
                .unwrap()
                .insert("format", format)
                .unwrap();
            change.commit().unwrap();
        }
        drop(database);
        let error = open(folder.path()).err().unwrap().to_string();
        assert!(
            error.contains(word) && error.contains("move it away"),
            "{error}"
        );
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let parent = tempfile::NamedTempFile::new().unwrap();
    let error = open(&parent.path().join("x")).err().unwrap().to_string();
    assert!(error.contains("cannot make the folder"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let path = disk::prepare(folder.path()).unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let fault = full.clone();
    let disk = Disk::open(move || device::open(&path, &fault)).unwrap();
    let store = FileStore::start(disk, Clock::fixed(START), TIMEOUT).unwrap();
    store.create(record("sess:before", HOUR)).await.unwrap();

    full.store(true, Ordering::SeqCst);
    for n in 0..3 {
        let refused = store.create(record(&format!("sess:{n}"), HOUR)).await;
        assert!(
            matches!(refused, Err(StoreError::Unavailable(_))),
            "{refused:?}"
        );
        assert!(store.delete("sess:before").await.is_err());
    }
    full.store(false, Ordering::SeqCst);

    let deadline = Instant::now() + TIMEOUT;
    while let Err(error) = store.create(record("sess:after", HOUR)).await {
        assert!(Instant::now() < deadline, "still {error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(store.load("sess:before").await.unwrap().is_some());
    assert!(store.load("sess:after").await.unwrap().is_some());
    assert_eq!(store.load("sess:0").await, Ok(None), "refused, yet kept");
    drop(store);
    let store = open(folder.path()).unwrap();
    assert!(store.load("sess:after").await.unwrap().is_some());
}

#[tokio::test]
async fn a_reader_alone_brings_a_failed_file_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).unwrap();
    store.create(record("sess:a", HOUR)).await.unwrap();
    let failed: Result<(), _> = store.read(|_| Err(redb::Error::PreviousIo));
    assert!(failed.is_err());
    let deadline = Instant::now() + TIMEOUT;
    while store.disk.has_failed() {
        assert!(Instant::now() < deadline, "it is not opened again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(store.load("sess:a").await.unwrap().is_some());
}

#[tokio::test]
async fn no_answer_in_time_is_a_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let timeout = Duration::from_millis(1);
    let store = FileStore::open(folder.path(), Clock::fixed(START), timeout).unwrap();
    let hold = store
        .disk
        .with(|database| Ok(database.begin_write()?))
        .unwrap();
    let late = store.create(record("sess:a", HOUR)).await;
    assert_eq!(late, Err(StoreError::Timeout(timeout)));
    drop(hold);
}

/// A clock that was ahead, and was put back while the process was down, must
/// not keep users out who signed out everywhere.
#[tokio::test]
async fn moments_go_on_after_a_clock_was_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let ahead = Clock::fixed(Timestamp(2_000_000_000_000));
    let store = FileStore::open(folder.path(), ahead, HOUR).unwrap();
    let epoch = store.raise_epoch("ann", HOUR).await.unwrap();
    drop(store);
    let back = Clock::fixed(Timestamp(1_900_000_000_000));
    let store = FileStore::open(folder.path(), back, HOUR).unwrap();
    assert!(store.now().await.unwrap() > epoch);
}

/// A file of the version before this one, which had no index by user.
#[tokio::test]
async fn a_file_of_the_first_format_opens_with_its_sessions_and_gets_the_index() {
    type Sessions = redb::TableDefinition<'static, &'static str, (u64, u64, &'static [u8])>;
    type Due = redb::TableDefinition<'static, (u64, &'static str), ()>;
    const EPOCHS: redb::TableDefinition<'static, &'static str, (u64, u64)> =
        redb::TableDefinition::new("epochs");
    let meta: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("cloakroom");
    let folder = tempfile::tempdir().unwrap();
    let value = crate::session::layout::sealed::tests::sample("sess:a");
    let ends = START.after(HOUR).0;
    {
        let database = redb::Database::create(folder.path().join(FILE_NAME)).unwrap();
        let change = database.begin_write().unwrap();
        {
            let mut meta = change.open_table(meta).unwrap();
            meta.insert("format", 1).unwrap();
            let mut sessions = change.open_table(Sessions::new("sessions")).unwrap();
            let mut due = change.open_table(Due::new("sessions_due")).unwrap();
            for (key, value) in [("sess:a", &*value), ("sess:odd", b"no head")] {
                sessions.insert(key, (7, ends, value)).unwrap();
                due.insert((ends, key), ()).unwrap();
            }
            let mut epochs = change.open_table(EPOCHS).unwrap();
            epochs.insert("u1", (3, ends)).unwrap();
            let mut due = change.open_table(Due::new("epochs_due")).unwrap();
            due.insert((ends, "u1"), ()).unwrap();
        }
        change.commit().unwrap();
    }
    for _ in 0..2 {
        let store = open(folder.path()).unwrap();
        let found = store.of_user("u1").await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(&*found[0].key, "sess:a");
        assert_eq!(found[0].record.value, value);
        assert_eq!(found[0].ttl, HOUR);
        assert!(store.load("sess:odd").await.unwrap().is_some());
        assert_eq!(store.epoch("u1").await, Ok(Some(Epoch(3))));
    }
    let store = open(folder.path()).unwrap();
    assert_eq!(store.delete("sess:a").await, Ok(true));
    assert_eq!(store.delete("sess:odd").await, Ok(true));
    assert_eq!(store.of_user("u1").await, Ok(Vec::new()));
}
