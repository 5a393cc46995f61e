use super::*;
use crate::base::clock::Timestamp;
use crate::session::data::Data;
use crate::session::known::Source;
use crate::session::record::{Head, Opened};
use crate::session::rules::tests::sample;
use crate::session::token::Token;

const KEY: &str = "sess:k";
const USER: &str = "name-of-u1";

/// A record as it is read: its user's epoch with it.
fn read(cache: &Cache, key: &str) -> (Reading, Arc<Known>) {
    let reading = cache.begin(key);
    let epoch = match cache.epoch(USER) {
        Some(copy) => copy,
        None => cache.keep_epoch(cache.begin(USER), USER, None),
    };
    let rules = sample();
    let now = Timestamp(1_000);
    let opened = Opened {
        head: Head::new("u1", Epoch(5), now, &rules.settings, "::1".into(), "curl"),
        data: Data::parse(r#"{"userId":"u1"}"#.into()).unwrap(),
        sealed_with: 0,
        stored: bytes::Bytes::new(),
        terms: None,
    };
    let token = Token::random().unwrap();
    let source = Source {
        seen: now,
        epoch: Some(epoch),
        era: reading.era(),
    };
    let common = cache.common();
    let known = Known::new(key, &token, opened, source, &rules, common);
    (reading, Arc::new(known))
}

fn fill(cache: &Cache, key: &str) -> Arc<Known> {
    let (reading, known) = read(cache, key);
    cache.keep(reading, &known);
    known
}

#[test]
fn a_copy_counts_until_its_record_changes() {
    let cache = Cache::new(10, None);
    assert!(cache.fresh(KEY).is_none());
    let known = fill(&cache, KEY);
    assert!(Arc::ptr_eq(&cache.fresh(KEY).unwrap(), &known));
    assert!(cache.holds(&known));
    let newer = fill(&cache, KEY);
    assert!(cache.holds(&newer) && !cache.holds(&known), "another one");
    cache.record_changed(KEY);
    assert!(cache.fresh(KEY).is_none() && !cache.holds(&newer));
}

#[test]
fn a_shortcut_leads_to_what_counts_and_is_meant() {
    const SIGHT: u64 = 7;
    let cache = Cache::new(10, Some(Duration::from_secs(3600)));
    cache.proven(Instant::now());
    let find = |is_meant: bool| cache.fresh_by_sight(SIGHT, |_| is_meant);
    assert!(find(true).is_none());
    let known = fill(&cache, KEY);
    assert!(find(true).is_none(), "not noted");
    cache.note_sight(SIGHT, &known);
    assert!(Arc::ptr_eq(&find(true).unwrap(), &known));
    assert!(find(false).is_none() && cache.fresh_by_sight(SIGHT + 1, |_| true).is_none());

    cache.record_changed(KEY);
    assert!(find(true).is_none(), "ended");
    let note = || cache.note_sight(SIGHT, &fill(&cache, KEY));
    note();
    assert!(find(true).is_some());
    cache.epoch_changed(USER);
    assert!(find(true).is_none(), "signed out everywhere");
    note();
    assert!(find(true).is_some());
    cache.lost();
    cache.proven(Instant::now());
    assert!(find(true).is_none(), "of an earlier era");
    note();
    assert!(find(true).is_some());
    cache.lost();
    assert!(find(true).is_none(), "nobody tells of changes");

    let none = Cache::new(0, None);
    none.note_sight(SIGHT, &fill(&none, KEY));
    assert!(none.fresh_by_sight(SIGHT, |_| true).is_none());
}

#[test]
fn a_shortcut_leads_to_what_is_kept_and_to_nothing_else() {
    const SIGHT: u64 = 7;
    let cache = Cache::new(100, None);
    let found = || cache.fresh_by_sight(SIGHT, |_| true);
    // What is kept no more is not noted.
    let old = fill(&cache, KEY);
    cache.note_sight(SIGHT, &old);
    assert!(found().is_some());
    let known = fill(&cache, KEY);
    cache.note_sight(SIGHT, &old);
    assert!(found().is_none(), "replaced");
    assert_eq!(Arc::strong_count(&old), 1);
    cache.note_sight(SIGHT, &known);
    assert!(found().is_some());
    // What replaces it takes the shortcut's memory, too.
    let newer = fill(&cache, KEY);
    assert!(found().is_none() && cache.holds(&newer));
    assert_eq!(Arc::strong_count(&known), 1);
    cache.note_sight(SIGHT, &newer);
    cache.note_sight(SIGHT + 1, &newer);
    assert!(found().is_none(), "it has another one now");
    assert!(cache.fresh_by_sight(SIGHT + 1, |_| true).is_some());
    cache.record_changed(KEY);
    assert_eq!(Arc::strong_count(&newer), 1);
}

#[test]
fn a_copy_that_is_put_out_counts_no_more() {
    let cache = Cache::new(1_024, None);
    let sights = (1..).map(|number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut all = Vec::new();
    for (number, sight) in (0..5_000).zip(sights) {
        let key = format!("sess:{number}");
        let known = fill(&cache, &key);
        cache.note_sight(sight, &known);
        all.push((key, sight, known));
    }
    let copies = cache.copies.as_ref().unwrap();
    let mut kept = 0;
    for (key, sight, known) in &all {
        let is_kept = copies.get(key).is_some();
        kept += usize::from(is_kept);
        assert_eq!(cache.holds(known), is_kept, "{key}");
        let found = cache.fresh_by_sight(*sight, |_| true).is_some();
        // A shortcut may have made room for another.
        assert!(is_kept || !found, "{key}");
    }
    assert_eq!(kept, copies.len());
}

/// Two tell of the same change, and a third puts another copy in: whoever of them takes the
/// first one out, it is out for all when they are done.
#[test]
fn a_copy_that_is_out_says_so_before_anybody_finds_it_out() {
    use std::sync::Barrier;
    for round in 0..2_000 {
        let cache = Cache::new(100, None);
        let known = fill(&cache, KEY);
        cache.note_sight(1, &known);
        assert!(cache.fresh_by_sight(1, |_| true).is_some());
        let start = Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    start.wait();
                    cache.record_changed(KEY);
                    assert!(!cache.holds(&known), "round {round}");
                    let found = cache.fresh_by_sight(1, |found| std::ptr::eq(found, &*known));
                    assert!(found.is_none(), "round {round}");
                });
            }
            start.wait();
            // Not with `fill`: where the change is seen but not done yet, it puts nothing in.
            let (_, other) = read(&cache, KEY);
            cache.copies.as_ref().unwrap().put(&other);
            assert!(!cache.holds(&known), "round {round}");
        });
    }
}

/// A change comes while a copy is put in that was read before it.
#[test]
fn a_copy_is_kept_only_if_nothing_has_changed_when_it_is_in() {
    let cache = Cache::new(100, None);
    let copies = cache.copies.as_ref().unwrap();
    let found = |known| cache.holds(known) || cache.fresh(KEY).is_some();
    let (reading, early) = read(&cache, KEY);
    cache.record_changed(KEY);
    copies.put(&early);
    cache.settle(copies, reading, &early);
    assert!(!found(&early) && copies.len() == 0);

    let (reading, late) = read(&cache, KEY);
    copies.put(&late);
    cache.record_changed(KEY);
    cache.settle(copies, reading, &late);
    assert!(!found(&late) && copies.len() == 0);

    // As if it had come just after the look.
    let (_, last) = read(&cache, KEY);
    copies.put(&last);
    cache.record_changed(KEY);
    last.standing().keep();
    assert!(!found(&last));
}

/// Somebody notes shortcuts to a copy, over and over, while its record changes: none is
/// left that leads to it.
#[test]
fn a_shortcut_that_is_noted_while_the_record_changes_leads_nowhere() {
    use std::sync::Barrier;
    for round in 0..3_000 {
        let cache = Cache::new(100, None);
        let known = fill(&cache, KEY);
        cache.note_sight(1, &known);
        assert!(cache.fresh_by_sight(1, |_| true).is_some());
        let (start, over) = (Barrier::new(2), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                while !over.load(Ordering::SeqCst) {
                    cache.note_sight(1, &known);
                }
            });
            start.wait();
            cache.record_changed(KEY);
            let found = cache.fresh_by_sight(1, |_| true);
            over.store(true, Ordering::SeqCst);
            assert!(found.is_none(), "round {round}");
        });
        assert_eq!(Arc::strong_count(&known), 1, "round {round}");
    }
}

/// A copy that is put in before it is known whether its record has changed.
#[test]
fn a_copy_that_is_not_kept_yet_does_not_count() {
    let cache = Cache::new(100, Some(Duration::from_secs(3600)));
    cache.proven(Instant::now());
    let (_, known) = read(&cache, KEY);
    known.standing().confirm(cache.belief.now());
    cache.copies.as_ref().unwrap().put(&known);
    assert!(cache.fresh(KEY).is_none() && !cache.holds(&known));
    assert!(cache.stale(KEY, Duration::from_secs(9)).is_none());
    cache.note_sight(7, &known);
    assert!(cache.fresh_by_sight(7, |_| true).is_none());
    assert!(!cache.counts(&known, cache.belief.now()));
}

#[test]
fn a_copy_that_is_used_by_its_shortcut_makes_no_room_for_those_that_are_not() {
    const SIGHT: u64 = 7;
    // As many as all its parts have room for, whatever the machine.
    let cache = Cache::new(1_024, None);
    let known = fill(&cache, KEY);
    cache.note_sight(SIGHT, &known);
    let mut idle = Vec::new();
    for number in 0..20_000_u64 {
        if cache.fresh_by_sight(SIGHT, |_| true).is_none() {
            // Its shortcut may have made room; it has not.
            assert!(cache.holds(&known), "after {number}");
            cache.note_sight(SIGHT, &known);
        }
        // Used once, as most are.
        let key = format!("sess:{number}");
        let other = fill(&cache, &key);
        assert!(cache.fresh(&key).is_some());
        cache.note_sight((number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15), &other);
        idle.push(other);
    }
    // Of those that were put out there is nothing left.
    let kept = |known: &&Arc<Known>| Arc::strong_count(known) > 1;
    let left = idle.iter().filter(kept).count();
    assert!(left < 1_024, "{left}");
}

#[test]
fn what_was_read_before_a_change_is_not_put_in_after_it() {
    let cache = Cache::new(10, None);
    let (reading, known) = read(&cache, KEY);
    cache.record_changed(KEY);
    cache.keep(reading, &known);
    assert!(cache.fresh(KEY).is_none());

    let (reading, known) = read(&cache, KEY);
    cache.epoch_changed(USER);
    cache.keep(reading, &known);
    assert!(cache.fresh(KEY).is_none());

    let (reading, known) = read(&cache, KEY);
    cache.lost();
    cache.keep(reading, &known);
    assert!(cache.fresh(KEY).is_none());
}

#[test]
fn an_epoch_that_was_read_before_a_change_is_good_for_one_request() {
    let cache = Cache::new(10, None);
    let reading = cache.begin(USER);
    cache.epoch_changed(USER);
    let copy = cache.keep_epoch(reading, USER, Some(Epoch(1)));
    assert!(!copy.is_valid() && cache.epoch(USER).is_none());
}

#[test]
fn a_change_of_the_epoch_ends_every_copy_of_the_user() {
    let cache = Cache::new(10, None);
    let (one, two) = (fill(&cache, "a"), fill(&cache, "b"));
    assert!(one.shares_epoch_with(&two));
    cache.epoch_changed(USER);
    assert!(cache.fresh("a").is_none() && cache.fresh("b").is_none());
    fill(&cache, "a");
    assert!(cache.fresh("a").is_some());
}

#[test]
fn a_channel_is_believed_for_a_while_after_it_was_proven() {
    let cache = Cache::new(10, Some(Duration::from_secs(3600)));
    fill(&cache, KEY);
    assert!(cache.fresh(KEY).is_none(), "never proven");
    cache.proven(Instant::now());
    assert!(cache.fresh(KEY).is_some());
    cache.lost();
    assert!(cache.fresh(KEY).is_none(), "closed");
    cache.proven(Instant::now());
    assert!(cache.fresh(KEY).is_none(), "read before the loss");
    fill(&cache, KEY);
    assert!(cache.fresh(KEY).is_some());

    let silent = Cache::new(10, Some(Duration::from_millis(50)));
    let long_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    silent.proven(long_ago);
    fill(&silent, KEY);
    assert!(silent.fresh(KEY).is_none());
}

#[test]
fn a_copy_outlives_the_channel_where_that_is_wanted() {
    let cache = Cache::new(10, Some(Duration::from_secs(3600)));
    cache.proven(Instant::now());
    fill(&cache, KEY);
    let hour = Duration::from_secs(3600);
    cache.lost();
    assert!(cache.stale(KEY, hour).is_some());
    cache.record_changed(KEY);
    assert!(cache.stale(KEY, hour).is_none(), "ended is ended");
    fill(&cache, KEY);
    cache.epoch_changed(USER);
    assert!(cache.stale(KEY, hour).is_none(), "ended is ended");
}

#[test]
fn without_entries_nothing_is_copied() {
    let cache = Cache::new(0, None);
    let known = fill(&cache, KEY);
    assert!(cache.fresh(KEY).is_none() && !cache.holds(&known));
    assert!(cache.stale(KEY, Duration::from_secs(9)).is_none());
}

#[test]
fn it_is_bounded_and_its_epochs_go_with_its_sessions() {
    let cache = Cache::new(100, None);
    for number in 0..5_000 {
        let name = format!("user-{number}");
        let epoch = cache.keep_epoch(cache.begin(&name), &name, None);
        drop(epoch);
        fill(&cache, &format!("sess:{number}"));
    }
    assert!(cache.copies.as_ref().unwrap().len() <= 100);
    assert!(cache.epochs().copies.len() <= 2 * FIRST_SWEEP);
}

#[test]
fn use_is_noted_found_or_not() {
    let cache = Cache::new(10, Some(Duration::from_secs(1)));
    assert!(!cache.is_used());
    assert!(cache.fresh(KEY).is_none());
    assert!(cache.is_used() && !cache.is_used());
}

/// Readers and a deleter of one record over a store that is a flag, from several
/// threads at once: what was ended before a look-up began is never found.
#[test]
fn no_copy_outlives_its_record() {
    use std::sync::Barrier;
    for round in 0..300_u64 {
        let (cache, alive) = (Cache::new(10, None), AtomicBool::new(true));
        let start = Barrier::new(3);
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (cache, alive, start) = (&cache, &alive, &start);
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..=(round % 7 + reader) {
                        let (reading, known) = read(cache, KEY);
                        if alive.load(Ordering::SeqCst) {
                            cache.keep(reading, &known);
                        }
                        if let Some(known) = cache.fresh(KEY) {
                            cache.note_sight(1, &known);
                            cache.fresh_by_sight(1, |_| true);
                        }
                    }
                });
            }
            start.wait();
            alive.store(false, Ordering::SeqCst);
            cache.record_changed(KEY);
        });
        assert!(cache.fresh(KEY).is_none(), "round {round}");
        assert!(cache.fresh_by_sight(1, |_| true).is_none(), "round {round}");
    }
}
