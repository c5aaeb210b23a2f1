//! How many handshakes each listener's clients have abandoned.

use std::cmp::Reverse;

use hashbrown::HashMap;

use crate::{event::Endpoint, lifecycle::HalfOpen};

/// Most listeners that are told apart; a host under a flood has a few that matter.
const MAX_LISTENERS: usize = 1024;

/// The count of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbandonedAt {
    /// Inode of the network namespace.
    pub netns: Option<u32>,
    /// The address and port that the clients connected to: for a listener on any address, the one they used.
    pub local: Endpoint,
    /// Handshakes that were answered and never completed.
    pub count: u64,
}

/// Handshakes that were answered and never completed, by listener. Those of the first 1,024 are told apart,
/// those of any more are counted together.
#[derive(Clone, Debug, Default)]
pub struct AbandonedHandshakes {
    by_listener: HashMap<(Option<u32>, Endpoint), u64, foldhash::fast::RandomState>,
    beyond: u64,
}

impl AbandonedHandshakes {
    /// Counts an abandoned handshake.
    pub fn count(&mut self, half_open: &HalfOpen) {
        let key = (half_open.netns, half_open.local);
        if self.by_listener.len() < MAX_LISTENERS || self.by_listener.contains_key(&key) {
            *self.by_listener.entry(key).or_default() += 1;
        } else {
            self.beyond += 1;
        }
    }

    /// Each listener's count: the largest first, equal ones in the order of their ends.
    pub fn by_listener(&self) -> Vec<AbandonedAt> {
        let mut all: Vec<AbandonedAt> = self
            .by_listener
            .iter()
            .map(|(&(netns, local), &count)| AbandonedAt { netns, local, count })
            .collect();
        all.sort_unstable_by_key(|one| (Reverse(one.count), one.local, one.netns));
        all
    }

    /// Those of listeners that were too many to tell apart.
    pub fn beyond(&self) -> u64 {
        self.beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;

    fn half_open(address: &str, netns: u32) -> HalfOpen {
        let end = |text: &str| {
            let end: std::net::SocketAddr = text.parse().unwrap();
            Endpoint { address: end.ip(), port: end.port() }
        };
        HalfOpen {
            local: end(address),
            remote: end("192.0.2.1:40000"),
            netns: Some(netns),
            answered: Timestamp(0),
            answered_exactly: false,
            last_sent: Timestamp(0),
            retransmits: 1,
            accept_queue: None,
        }
    }

    fn counts(abandoned: &AbandonedHandshakes) -> Vec<(String, Option<u32>, u64)> {
        let all = abandoned.by_listener();
        all.iter()
            .map(|one| (format!("{}:{}", one.local.address, one.local.port), one.netns, one.count))
            .collect()
    }

    #[test]
    fn every_listener_has_its_count_the_worst_first() {
        let mut abandoned = AbandonedHandshakes::default();
        assert_eq!(counts(&abandoned), []);
        for (address, netns, times) in
            [("10.0.0.1:80", 1, 2), ("10.0.0.1:443", 1, 3), ("10.0.0.2:80", 1, 2), ("10.0.0.1:80", 2, 1)]
        {
            for _ in 0..times {
                abandoned.count(&half_open(address, netns));
            }
        }
        let expected =
            [("10.0.0.1:443", 1, 3), ("10.0.0.1:80", 1, 2), ("10.0.0.2:80", 1, 2), ("10.0.0.1:80", 2, 1)];
        assert_eq!(
            counts(&abandoned),
            expected.map(|(end, netns, count)| (end.to_owned(), Some(netns), count))
        );
        assert_eq!(abandoned.beyond(), 0);
    }

    #[test]
    fn listeners_beyond_the_limit_share_a_count() {
        let mut abandoned = AbandonedHandshakes::default();
        for netns in 0..1030 {
            abandoned.count(&half_open("10.0.0.1:80", netns));
        }
        // One that is there already still has its own.
        abandoned.count(&half_open("10.0.0.1:80", 5));
        let all = counts(&abandoned);
        assert_eq!((all.len(), abandoned.beyond()), (1024, 6));
        assert_eq!(all[0], ("10.0.0.1:80".to_owned(), Some(5), 2));
    }
}
