//! Which address of an upstream gets a request.

use super::settings::Balance;

/// Addresses by their number, as bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried(u64);

impl Tried {
    /// Adds one.
    pub fn add(&mut self, member: usize) {
        self.0 |= bit(member);
    }

    /// Whether it is among them.
    pub fn has(self, member: usize) -> bool {
        self.0 & bit(member) != 0
    }
}

fn bit(member: usize) -> u64 {
    u32::try_from(member)
        .ok()
        .and_then(|shift| 1_u64.checked_shl(shift))
        .unwrap_or(0)
}

/// The number of an address below `count`, beginning with number `turn`.
///
/// Those that are usable and were not tried come first, then those that were
/// not tried, then all: where everything looks bad, trying is better than
/// refusing.
pub fn choose(
    balance: Balance,
    count: usize,
    turn: usize,
    tried: Tried,
    is_usable: impl Fn(usize) -> bool,
    load: impl Fn(usize) -> usize,
) -> usize {
    if count < 2 {
        return 0;
    }
    let order = || (0..count).map(|step| turn.wrapping_add(step) % count);
    let pick = |fits: &dyn Fn(usize) -> bool| {
        let mut candidates = order().filter(|member| fits(*member));
        match balance {
            Balance::RoundRobin => candidates.next(),
            // The first of several: that one changes with `turn`.
            Balance::LeastRequests => candidates.min_by_key(|member| load(*member)),
        }
    };
    pick(&|member| !tried.has(member) && is_usable(member))
        .or_else(|| pick(&|member| !tried.has(member)))
        .or_else(|| pick(&|_| true))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_robin_takes_turns_and_leaves_out() {
        let choose = |turn, tried, bad: &[usize]| {
            let usable = |member| !bad.contains(&member);
            super::choose(Balance::RoundRobin, 3, turn, tried, usable, |_| 0)
        };
        let none = Tried::default();
        assert_eq!(
            [0, 1, 2, 3, 4].map(|t| choose(t, none, &[])),
            [0, 1, 2, 0, 1]
        );
        assert_eq!([0, 1, 2].map(|t| choose(t, none, &[1])), [0, 2, 2]);
        // All bad: all are tried anyway.
        assert_eq!([0, 1, 2].map(|t| choose(t, none, &[0, 1, 2])), [0, 1, 2]);
        let mut tried = Tried::default();
        tried.add(0);
        assert_eq!(choose(0, tried, &[1]), 2);
        // Better a bad one than the same again.
        tried.add(2);
        assert_eq!(choose(0, tried, &[1]), 1);
        tried.add(1);
        assert_eq!(choose(2, tried, &[]), 2);
    }

    #[test]
    fn the_least_loaded_is_taken_and_equals_take_turns() {
        let choose = |turn, load: [usize; 3]| {
            let balance = Balance::LeastRequests;
            super::choose(balance, 3, turn, Tried::default(), |_| true, |m| load[m])
        };
        assert_eq!(choose(0, [2, 1, 3]), 1);
        assert_eq!([0, 1, 2].map(|turn| choose(turn, [1, 1, 1])), [0, 1, 2]);
        assert_eq!([0, 1, 2].map(|turn| choose(turn, [0, 0, 1])), [0, 1, 0]);
    }
}
