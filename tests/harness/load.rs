//! Users who are signed in and ask on and on, and what each of them gets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::cookies::CookieJar;
use super::eventually;
use super::http::{Client, Request};

/// One answer.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Whose, by the number of the jar.
    pub who: usize,
    /// When it was asked for, and when it was there.
    pub asked: Instant,
    pub took: Duration,
    pub status: u16,
}

/// Users who ask for `/`, each one request after the other. Only 200 and 503 for the
/// store's sake are answers that they may get, and no cookie with either.
pub struct Load {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    threads: Vec<JoinHandle<()>>,
    users: usize,
    outages: Arc<AtomicUsize>,
}

impl Load {
    /// The users of these jars, distributed over so many connections.
    pub fn begin(addr: SocketAddr, jars: &[CookieJar], connections: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let samples = Arc::new(Mutex::new(Vec::new()));
        let outages = Arc::new(AtomicUsize::new(0));
        let threads = (0..connections).map(|first| {
            let mine = jars.iter().cloned().enumerate();
            let mine: Vec<_> = mine.skip(first).step_by(connections).collect();
            let (stop, samples, outages) = (stop.clone(), samples.clone(), outages.clone());
            std::thread::spawn(move || {
                let mut client = Client::connect(addr);
                for (who, jar) in mine.iter().cycle() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let asked = Instant::now();
                    let response = client.request(&Request::get("/").cookies(jar));
                    match response.status {
                        200 => {}
                        503 => {
                            let why = response.refusal();
                            assert_eq!(why.as_deref(), Some("store_unavailable"));
                            outages.fetch_add(1, Ordering::SeqCst);
                        }
                        other => panic!("{other} {}", response.text()),
                    }
                    assert!(!response.fields().has("set-cookie"), "{response:?}");
                    samples.lock().unwrap().push(Sample {
                        who: *who,
                        asked,
                        took: asked.elapsed(),
                        status: response.status,
                    });
                }
            })
        });
        Self {
            threads: threads.collect(),
            stop,
            samples,
            users: jars.len(),
            outages,
        }
    }

    /// How many 503 there were.
    pub fn outages(&self) -> usize {
        self.outages.load(Ordering::SeqCst)
    }

    /// Waits until every user has got a 200 for a request from now on.
    pub fn wait_until_all_are_served(&self) {
        let since = Instant::now();
        eventually("everybody is served", || {
            assert!(self.threads.iter().all(|thread| !thread.is_finished()));
            let samples = self.samples.lock().unwrap();
            let recent = samples.iter().rev().take_while(|s| s.asked >= since);
            let mut served: Vec<_> = recent.filter(|s| s.status == 200).map(|s| s.who).collect();
            served.sort_unstable();
            served.dedup();
            (served.len() == self.users).then_some(())
        });
    }

    /// Waits for so many more 503.
    pub fn wait_for_outages(&self, more: usize) {
        let before = self.outages();
        eventually("the outage is noticed", || {
            assert!(self.threads.iter().all(|thread| !thread.is_finished()));
            (self.outages() >= before + more).then_some(())
        });
    }

    /// Ends it; all that was answered.
    ///
    /// # Panics
    /// If somebody got what nobody may get.
    pub fn end(mut self) -> Vec<Sample> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        std::mem::take(&mut self.samples.lock().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
