//! Where somebody else has the file.

use super::*;

#[test]
fn a_second_process_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let _first = open(folder.path()).unwrap();
    let error = open(folder.path()).err().unwrap().to_string();
    assert!(error.contains("another process"), "{error}");
}

#[tokio::test]
async fn a_predecessor_that_is_about_to_end_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    first.create(record("sess:a", HOUR)).await.unwrap();
    let path = folder.path().to_owned();
    let (ready, started) = mpsc::channel();
    let second = std::thread::spawn(move || {
        ready.send(()).unwrap();
        open(&path)
    });
    started.recv().unwrap();
    drop(first);
    let second = second.join().unwrap().unwrap();
    assert!(second.load("sess:a").await.unwrap().is_some());
}

/// However long that takes: it verifies all of the file.
#[test]
fn a_process_that_is_opening_the_file_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let other = disk::alone(folder.path()).unwrap();
    let path = folder.path().to_owned();
    let (done, opened) = mpsc::channel();
    let second = std::thread::spawn(move || {
        let store = open(&path).map(drop);
        done.send(()).unwrap();
        store
    });
    // Not for something to happen: it is longer than a held file is waited for.
    let early = opened.recv_timeout(Duration::from_millis(1200));
    assert_eq!(early, Err(mpsc::RecvTimeoutError::Timeout));
    drop(other);
    assert_eq!(second.join().unwrap(), Ok(()));
}
