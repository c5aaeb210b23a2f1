//! Counts of abandoned handshakes by listener.

use std::cmp::Reverse;

use hashbrown::HashMap;

use crate::{
    event::{Endpoint, Netns},
    lifecycle::HalfOpen,
};

/// Listeners counted separately. Under a SYN flood only a few listeners matter.
const MAX_LISTENERS: usize = 1024;

/// The number of abandoned handshakes at one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbandonedAt {
    /// The network namespace.
    pub netns: Option<Netns>,
    /// The address and port the clients connected to. For a listener on a wildcard address this is the address used.
    pub local: Endpoint,
    /// Handshakes that this host answered and the client never completed.
    pub count: u64,
}

/// Counts abandoned handshakes by listener.
///
/// The first 1,024 listeners have their own count; all others share one, [`overflow`](Self::overflow).
#[derive(Clone, Debug, Default)]
pub struct AbandonedHandshakes {
    by_listener: HashMap<(Option<Netns>, Endpoint), u64, foldhash::fast::RandomState>,
    overflow: u64,
}

impl AbandonedHandshakes {
    /// Counts an abandoned handshake.
    pub(super) fn count(&mut self, half_open: &HalfOpen) {
        let key = (half_open.netns, half_open.local);
        if self.by_listener.len() < MAX_LISTENERS || self.by_listener.contains_key(&key) {
            *self.by_listener.entry(key).or_default() += 1;
        } else {
            self.overflow += 1;
        }
    }

    /// Returns the count of each listener: the largest first, equal counts in order of endpoint.
    pub fn by_listener(&self) -> Vec<AbandonedAt> {
        let mut all: Vec<AbandonedAt> = self
            .by_listener
            .iter()
            .map(|(&(netns, local), &count)| AbandonedAt { netns, local, count })
            .collect();
        all.sort_unstable_by_key(|one| (Reverse(one.count), one.local, one.netns));
        all
    }

    /// Returns the abandoned handshakes of the listeners without their own count.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Timestamp, lifecycle::SynAckResends};

    fn half_open(address: &str, netns: u32) -> HalfOpen {
        let endpoint = |text: &str| {
            let address: std::net::SocketAddr = text.parse().unwrap();
            Endpoint { address: address.ip(), port: address.port() }
        };
        HalfOpen {
            local: endpoint(address),
            remote: endpoint("192.0.2.1:40000"),
            netns: Some(Netns(netns)),
            answered: Timestamp(0),
            answered_exactly: false,
            last_sent: Timestamp(0),
            retransmits: 1,
            acked_retransmits: 0,
            accept_queue: None,
            sequences: None,
            resends: SynAckResends::default(),
        }
    }

    fn counts(abandoned: &AbandonedHandshakes) -> Vec<(String, Option<u32>, u64)> {
        let all = abandoned.by_listener();
        all.iter()
            .map(|one| {
                (format!("{}:{}", one.local.address, one.local.port), one.netns.map(|it| it.0), one.count)
            })
            .collect()
    }

    #[test]
    fn listeners_are_sorted_by_count() {
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
        assert_eq!(abandoned.overflow(), 0);
    }

    #[test]
    fn listeners_over_the_limit_share_a_count() {
        let mut abandoned = AbandonedHandshakes::default();
        for netns in 0..1030 {
            abandoned.count(&half_open("10.0.0.1:80", netns));
        }
        // A listener that is already in the table keeps its own count.
        abandoned.count(&half_open("10.0.0.1:80", 5));
        let all = counts(&abandoned);
        assert_eq!((all.len(), abandoned.overflow()), (1024, 6));
        assert_eq!(all[0], ("10.0.0.1:80".to_owned(), Some(5), 2));
    }
}
