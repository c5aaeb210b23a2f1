//! Rates of counts over the last second.

use std::{collections::VecDeque, hash::Hash};

use hashbrown::HashMap;
use tracer_core::event::{Nanos, Timestamp};

const SECOND: Nanos = Nanos::from_secs(1);

/// Counts by key.
pub(super) type Counts<K> = HashMap<K, u64, foldhash::fast::RandomState>;

/// The counts of at least the last second with their times, oldest first.
#[derive(Debug)]
pub(super) struct Rates<K> {
    past: VecDeque<(Timestamp, Counts<K>)>,
}

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self { past: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash> Rates<K> {
    /// Returns how much each count grew per second, in whole numbers, since the latest counts that are at least a second old.
    /// All rates are 0 the first time.
    pub(super) fn update(&mut self, now: Timestamp, counts: Counts<K>) -> Counts<K> {
        while self.past.get(1).is_some_and(|(time, _)| now.since(*time) >= SECOND) {
            self.past.pop_front();
        }
        let rates = match self.past.front() {
            None => Counts::default(),
            Some((time, before)) => {
                let elapsed = now.since(*time).max(SECOND);
                let rate = |(key, &count): (&K, &u64)| {
                    let new = count.saturating_sub(before.get(key).copied().unwrap_or(0));
                    (key.clone(), new.saturating_mul(SECOND.0) / elapsed.0)
                };
                counts.iter().map(rate).collect()
            }
        };
        if self.past.back().is_some_and(|(time, _)| *time == now) {
            self.past.pop_back();
        }
        if now > Timestamp(0) {
            self.past.push_back((now, counts));
        }
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(
        rates: &mut Rates<&'static str>,
        millis: u64,
        counts: &[(&'static str, u64)],
    ) -> Vec<Option<u64>> {
        let now = Timestamp(1_000_000_000 + millis * 1_000_000);
        let found = rates.update(now, counts.iter().copied().collect());
        counts.iter().map(|(key, _)| found.get(key).copied()).collect()
    }

    #[test]
    fn a_rate_covers_the_last_second() {
        let mut rates = Rates::default();
        assert_eq!(rate(&mut rates, 0, &[("a", 10)]), [None], "what was before cannot be known");
        assert_eq!(rate(&mut rates, 500, &[("a", 15)]), [Some(5)], "less than a second counts as one");
        assert_eq!(rate(&mut rates, 1000, &[("a", 30), ("b", 3)]), [Some(20), Some(3)]);
        assert_eq!(rate(&mut rates, 1500, &[("a", 35), ("b", 3)]), [Some(20), Some(3)]);
        assert_eq!(rate(&mut rates, 3500, &[("a", 75), ("b", 2)]), [Some(20), Some(0)]);
    }
}
