//! The queue before the hash threads: bounded, and fair between networks.
//!
//! A request first takes one of its network's places and one of all, waiting
//! for them in turn, then stands in its network's line. Hash threads take from
//! the lines in rotation, so a network that floods waits for itself: another
//! one's request is at most one turn of every busy network away, once it has a
//! place. Where more than sixteen networks flood at once, all places may be
//! taken, and others wait for one in the order of their coming.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Places of one network.
pub const PLACES_PER_NETWORK: usize = 16;
/// Places of all networks together.
pub const PLACES: usize = 256;

/// Who shares a turn: an IPv4 address, or the first 64 bits of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// A /32. An IPv4 address written as IPv6 counts as what it is.
    V4(u32),
    /// A /64.
    V6(u64),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                let bits = [a, b, c, d]
                    .iter()
                    .fold(0_u64, |bits, part| (bits << 16) | u64::from(*part));
                Self::V6(bits)
            }
        }
    }
}

/// A queue of `T`.
#[derive(Debug)]
pub struct Queue<T> {
    line: Mutex<Line<T>>,
    ready: Condvar,
    places: Arc<Places>,
}

/// A right to stand in line; the place is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    network: Network,
    places: Arc<Places>,
    /// Emptied before the books are cleaned, hence optional.
    held: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

#[derive(Debug)]
struct Line<T> {
    /// Networks with something waiting, in the order of their turns.
    turns: VecDeque<Network>,
    waiting: HashMap<Network, VecDeque<(Place, T)>>,
    closed: bool,
}

#[derive(Debug)]
struct Places {
    all: Arc<Semaphore>,
    each: Mutex<HashMap<Network, Arc<Semaphore>>>,
    per_network: usize,
}

impl<T> Queue<T> {
    /// An empty queue with this many places in all and per network.
    pub fn new(places: usize, per_network: usize) -> Self {
        Self {
            line: Mutex::new(Line {
                turns: VecDeque::new(),
                waiting: HashMap::new(),
                closed: false,
            }),
            ready: Condvar::new(),
            places: Arc::new(Places {
                all: Arc::new(Semaphore::new(places)),
                each: Mutex::new(HashMap::new()),
                per_network,
            }),
        }
    }

    /// Waits for a place, first among the network's own, then among all.
    /// Dropping the future gives up the turn.
    pub async fn place(&self, network: Network) -> Option<Place> {
        let mut place = Place {
            network,
            places: self.places.clone(),
            held: None,
        };
        let own = lock(&self.places.each)
            .entry(network)
            .or_insert_with(|| Arc::new(Semaphore::new(self.places.per_network)))
            .clone();
        // The semaphores are never closed, so neither wait can fail.
        let own = own.acquire_owned().await.ok()?;
        let all = self.places.all.clone().acquire_owned().await.ok()?;
        place.held = Some((own, all));
        Some(place)
    }

    /// Puts something in line. It is dropped if the queue is closed.
    pub fn push(&self, place: Place, item: T) {
        let network = place.network;
        let mut line = lock(&self.line);
        if line.closed {
            return;
        }
        let own = line.waiting.entry(network).or_default();
        let first = own.is_empty();
        own.push_back((place, item));
        if first {
            line.turns.push_back(network);
        }
        drop(line);
        self.ready.notify_one();
    }

    /// Waits for the next in turn for which `wanted` holds; others are dropped
    /// on the way and cost their network no turn. `None` once closed.
    pub fn next(&self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let mut line = lock(&self.line);
        loop {
            if line.closed {
                return None;
            }
            if let Some(item) = line.take(&wanted) {
                return Some(item);
            }
            line = self
                .ready
                .wait(line)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the queue: what waits is dropped, and every [`Queue::next`] returns.
    pub fn close(&self) {
        let mut line = lock(&self.line);
        line.closed = true;
        line.turns.clear();
        let left = std::mem::take(&mut line.waiting);
        drop(line);
        drop(left);
        self.ready.notify_all();
    }
}

impl<T> Line<T> {
    fn take(&mut self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        while let Some(network) = self.turns.pop_front() {
            let Some(own) = self.waiting.get_mut(&network) else {
                continue;
            };
            let mut found = None;
            while let Some((_place, item)) = own.pop_front() {
                if wanted(&item) {
                    found = Some(item);
                    break;
                }
            }
            if own.is_empty() {
                self.waiting.remove(&network);
            } else {
                self.turns.push_back(network);
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held = None;
        // Nobody else waits for or holds one of this network's places: then
        // the books keep nothing of it, so they do not grow with addresses.
        let mut each = lock(&self.places.each);
        if each
            .get(&self.network)
            .is_some_and(|own| Arc::strong_count(own) == 1)
        {
            each.remove(&self.network);
        }
    }
}

/// A panic elsewhere leaves these books whole, so a poisoned lock is used on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(number: u32) -> Network {
        Network::V4(number)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    }

    /// A future that can be polled by hand.
    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn networks_are_addresses_or_halves_of_them() {
        let of = |text: &str| Network::from(text.parse::<IpAddr>().unwrap());
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    }

    #[test]
    fn networks_take_turns() {
        let queue = Queue::new(100, 100);
        runtime().block_on(async {
            for (network, item) in [
                (1, "a1"),
                (1, "a2"),
                (1, "a3"),
                (2, "b1"),
                (3, "c1"),
                (2, "b2"),
            ] {
                let place = queue.place(net(network)).await.unwrap();
                queue.push(place, item);
            }
        });
        let order: Vec<_> = (0..6).filter_map(|_| queue.next(|_| true)).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert!(lock(&queue.places.each).is_empty());
        assert!(lock(&queue.line).waiting.is_empty());
    }

    #[test]
    fn the_unwanted_are_dropped_and_cost_no_turn() {
        let queue = Queue::new(100, 100);
        runtime().block_on(async {
            for (network, item) in [(1, 0), (1, 0), (1, 7), (2, 8), (3, 0)] {
                let place = queue.place(net(network)).await.unwrap();
                queue.push(place, item);
            }
        });
        assert_eq!(queue.next(|item| *item > 0), Some(7));
        assert_eq!(queue.next(|item| *item > 0), Some(8));
        assert!(lock(&queue.line).take(|item| *item > 0).is_none());
        assert_eq!(queue.places.all.available_permits(), 100);
        assert!(lock(&queue.places.each).is_empty());
    }

    #[test]
    fn a_network_waits_for_its_own_places_only() {
        let queue: Queue<()> = Queue::new(10, 2);
        let mut first = Box::pin(queue.place(net(1)));
        let mut second = Box::pin(queue.place(net(1)));
        let mut third = Box::pin(queue.place(net(1)));
        let (a, b) = (poll(first.as_mut()), poll(second.as_mut()));
        assert!(a.is_ready() && b.is_ready());
        assert!(poll(third.as_mut()).is_pending());
        assert!(poll(Box::pin(queue.place(net(2))).as_mut()).is_ready());
        drop(a);
        assert!(poll(third.as_mut()).is_ready());
    }

    #[test]
    fn the_places_of_all_are_bounded_and_given_in_turn() {
        let queue: Queue<()> = Queue::new(1, 2);
        let mut first = Box::pin(queue.place(net(1)));
        let mut second = Box::pin(queue.place(net(2)));
        let mut third = Box::pin(queue.place(net(3)));
        let held = poll(first.as_mut());
        assert!(held.is_ready());
        assert!(poll(second.as_mut()).is_pending());
        assert!(poll(third.as_mut()).is_pending());
        // Giving up the wait leaves nothing behind.
        drop(second);
        assert_eq!(lock(&queue.places.each).len(), 2);
        drop(held);
        assert!(poll(third.as_mut()).is_ready());
    }

    #[test]
    fn closing_drops_what_waits_and_ends_the_waiting() {
        let queue = Arc::new(Queue::new(4, 4));
        let item = Arc::new(());
        let place = runtime().block_on(queue.place(net(1))).unwrap();
        queue.push(place, item.clone());
        queue.close();
        assert_eq!(Arc::strong_count(&item), 1);
        assert!(queue.next(|_| true).is_none());
        let place = runtime().block_on(queue.place(net(1))).unwrap();
        queue.push(place, item.clone());
        assert_eq!(Arc::strong_count(&item), 1);
        assert!(lock(&queue.places.each).is_empty());
    }
}
