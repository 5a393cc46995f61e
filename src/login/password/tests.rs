use std::fs;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::base::secret::Secret;

const HASH: &str = "$2y$04$UuTkLRZZ6QofpDOlMz32MuuxEHA43WOemOYHPz6.SjsVsyO1tDU96";

fn settings(files: Vec<PathBuf>) -> LoginSettings {
    LoginSettings {
        page: true,
        title: "Sign in".to_owned(),
        after_login: "/".to_owned(),
        after_logout: "/".to_owned(),
        redirect_hosts: Vec::new(),
        hash_concurrency: 2,
        users_files: files,
    }
}

fn credentials(name: &str, password: impl Into<Vec<u8>>) -> Credentials {
    Credentials {
        username: name.to_owned(),
        password: Secret::new(password),
    }
}

fn address() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

/// Two files: `alice` in the first, `bob` (and another `alice`) in the second.
fn two_files(dir: &tempfile::TempDir) -> Vec<PathBuf> {
    let first = dir.path().join("users.toml");
    let second = dir.path().join("htpasswd");
    let text = format!("[[user]]\nname = \"alice\"\nid = \"u-1\"\npassword = \"{HASH}\"\n");
    fs::write(&first, text).unwrap();
    fs::write(&second, format!("bob:{HASH}\nalice:{HASH}\n")).unwrap();
    vec![first, second]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

/// The verifier's inside without any thread, so that nothing moves by itself.
fn unstaffed(per_network: usize, patience: Duration) -> Arc<Shared> {
    let none: [PathBuf; 0] = [];
    Arc::new(Shared {
        queue: Queue::new(8, per_network),
        directory: Mutex::new(Directory::open(&none).unwrap()),
        hashes: AtomicU64::new(0),
        patience,
    })
}

#[test]
fn one_login_costs_one_hash_wherever_its_name_stands() {
    let dir = tempfile::tempdir().unwrap();
    let logins = Logins::start(&settings(two_files(&dir))).unwrap();
    let long = vec![b'a'; hash::MAX_PASSWORD + 1];
    let cases: [(&str, Vec<u8>, Option<&str>); 8] = [
        ("alice", b"password".to_vec(), Some("u-1")),
        ("alice", b"wrong".to_vec(), None),
        ("bob", b"password".to_vec(), Some("bob")),
        ("bob", b"wrong".to_vec(), None),
        ("nobody", b"password".to_vec(), None),
        ("", b"".to_vec(), None),
        ("bob", long.clone(), None),
        ("nobody", long, None),
    ];
    runtime().block_on(async {
        for (count, (name, password, id)) in (1..).zip(cases) {
            let outcome = logins.verify(credentials(name, password), address()).await;
            match (outcome.unwrap(), id) {
                (Outcome::Accepted(identity), Some(id)) => assert_eq!(identity.user, id),
                (Outcome::Rejected, None) => {}
                (outcome, _) => panic!("{name}: {outcome:?}"),
            }
            assert_eq!(logins.hashes(), count, "{name}");
        }
    });
}

#[test]
fn many_at_once_are_all_decided() {
    let dir = tempfile::tempdir().unwrap();
    let logins = Logins::start(&settings(two_files(&dir))).unwrap();
    let count: u32 = 400;
    runtime().block_on(async {
        let mut running = tokio::task::JoinSet::new();
        for number in 0..count {
            let logins = logins.clone();
            running.spawn(async move {
                let password = if number % 2 == 0 { "password" } else { "wrong" };
                let from = IpAddr::from([10, 0, 0, u8::try_from(number % 7).unwrap()]);
                let outcome = logins.verify(credentials("alice", password), from).await;
                (number % 2 == 0, outcome.unwrap())
            });
        }
        while let Some(done) = running.join_next().await {
            let (right, outcome) = done.unwrap();
            assert_eq!(right, matches!(outcome, Outcome::Accepted(_)));
        }
    });
    assert_eq!(logins.hashes(), u64::from(count));
}

#[test]
fn a_changed_file_counts_at_the_next_login() {
    let dir = tempfile::tempdir().unwrap();
    let files = two_files(&dir);
    let logins = Logins::start(&settings(files.clone())).unwrap();
    let outcome = |name: &str| {
        let credentials = credentials(name, "password");
        runtime()
            .block_on(logins.verify(credentials, address()))
            .unwrap()
    };
    assert_eq!(outcome("carol"), Outcome::Rejected);
    fs::write(&files[1], format!("carol:{HASH}\n")).unwrap();
    assert!(matches!(outcome("carol"), Outcome::Accepted(_)));
    assert_eq!(outcome("bob"), Outcome::Rejected);
    fs::write(&files[1], "carol:broken\n").unwrap();
    assert!(matches!(outcome("carol"), Outcome::Accepted(_)));
    fs::remove_file(&files[1]).unwrap();
    assert!(matches!(outcome("carol"), Outcome::Accepted(_)));
}

#[test]
fn no_turn_within_the_time_is_busy() {
    let patience = Duration::from_millis(20);
    let shared = unstaffed(1, patience);
    runtime().block_on(async {
        let began = Instant::now();
        let waits_for_a_thread = shared.verify(credentials("a", "b"), address());
        let waits_for_a_place = shared.verify(credentials("a", "b"), address());
        let (first, second) = tokio::join!(waits_for_a_thread, waits_for_a_place);
        assert_eq!(first, Err(LoginError::Busy));
        assert_eq!(second, Err(LoginError::Busy));
        assert!(began.elapsed() >= patience);
    });
    // A thread that comes now serves only who comes after.
    let worker = shared.clone();
    let thread = std::thread::spawn(move || worker.work());
    shared.queue.close();
    thread.join().unwrap();
    assert_eq!(shared.hashes.load(Ordering::Relaxed), 0);
}

#[test]
fn a_hash_that_began_in_time_is_waited_for() {
    let patience = Duration::from_millis(200);
    let shared = unstaffed(8, patience);
    runtime().block_on(async {
        let waiting = shared.verify(credentials("a", "b"), address());
        let slow_thread = async {
            let job = shared.queue.next(|_| true).unwrap();
            job.started.store(true, Ordering::Release);
            tokio::time::sleep(patience * 2).await;
            job.verdict.send(Ok(Outcome::Rejected)).unwrap();
        };
        let (outcome, ()) = tokio::join!(waiting, slow_thread);
        assert_eq!(outcome, Ok(Outcome::Rejected));
    });
}

#[test]
fn a_dropped_request_is_skipped() {
    let shared = unstaffed(8, PATIENCE);
    runtime().block_on(async {
        let mut gone: Pin<Box<_>> = Box::pin(shared.verify(credentials("gone", "x"), address()));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(gone.as_mut().poll(&mut context), Poll::Pending));
        drop(gone);
        let worker = shared.clone();
        let thread = std::thread::spawn(move || worker.work());
        let outcome = shared.verify(credentials("here", "x"), address()).await;
        assert_eq!(outcome, Ok(Outcome::Rejected));
        shared.queue.close();
        thread.join().unwrap();
    });
    assert_eq!(shared.hashes.load(Ordering::Relaxed), 1);
}

#[test]
fn a_job_that_is_lost_is_no_verdict() {
    let shared = unstaffed(8, PATIENCE);
    runtime().block_on(async {
        let waiting = shared.verify(credentials("a", "b"), address());
        let lost = async { drop(shared.queue.next(|_| true)) };
        let (outcome, ()) = tokio::join!(waiting, lost);
        assert!(matches!(outcome, Err(LoginError::Unavailable(_))));
    });
}

#[test]
fn the_threads_end_with_the_last_handle() {
    let logins = Logins::start(&settings(Vec::new())).unwrap();
    let weak = Arc::downgrade(&logins.0.0);
    let other = logins.clone();
    drop(logins);
    let outcome = runtime().block_on(other.verify(credentials("a", "b"), address()));
    assert_eq!(outcome, Ok(Outcome::Rejected));
    drop(other);
    // The threads hold the last references; each lets go as it ends.
    let (ended, wait) = mpsc::channel();
    std::thread::spawn(move || {
        while weak.strong_count() > 0 {
            std::thread::yield_now();
        }
        ended.send(()).unwrap();
    });
    wait.recv_timeout(Duration::from_secs(30)).unwrap();
}

#[test]
fn what_is_wrong_at_start_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("users.toml");
    std::fs::write(&bad, "[[user]]\n").unwrap();
    let error = Logins::start(&settings(vec![bad])).unwrap_err();
    assert!(error.contains("users.toml: line 1"), "{error}");
}
