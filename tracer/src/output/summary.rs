//! The lines that end every run.

use std::fmt;

use super::text::EndpointText;
use crate::{
    event::SourceCounts,
    lifecycle::{AbandonedHandshakes, TrackerCounts},
};

/// What was seen and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The source's account.
    pub source: SourceCounts,
    /// The table's account.
    pub tracker: TrackerCounts,
    /// Connections still open at the end.
    pub live: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, tracker, live } = self;
        write!(formatter, "{} transitions seen, {} lost in the ring, ", source.seen, source.lost)?;
        match source.skipped {
            Some(skipped) => write!(formatter, "{skipped} skipped by the kernel")?,
            None => write!(formatter, "skips by the kernel unknown")?,
        }
        write!(
            formatter,
            ", {} connections closed, {live} open, {} evicted, {} unmatched, {} gaps",
            tracker.closed, tracker.evicted, tracker.unmatched, tracker.gaps
        )?;
        if tracker.abandoned_handshakes != 0 {
            write!(formatter, ", {} handshakes abandoned by their clients", tracker.abandoned_handshakes)?;
        }
        if tracker.unfollowed != 0 {
            write!(formatter, ", {} half-open or in TIME_WAIT beyond the table", tracker.unfollowed)?;
        }
        if source.renewed != 0 {
            write!(formatter, ", {} renewals of the view by a look at the sockets", source.renewed)?;
        }
        if source.others_lost != 0 {
            write!(formatter, ", {} other events lost in the ring", source.others_lost)?;
        }
        if source.malformed != 0 {
            write!(formatter, ", {} malformed records", source.malformed)?;
        }
        if source.recovered != 0 {
            write!(formatter, ", {} recovered from skips", source.recovered)?;
        }
        Ok(())
    }
}

/// Which listeners' clients have abandoned their handshakes, for people: the five worst, and the rest together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbandonedSummary(String);

/// Listeners that are named.
const NAMED: usize = 5;

impl AbandonedSummary {
    /// Describes them; none when there were none.
    pub fn new(abandoned: &AbandonedHandshakes) -> Option<Self> {
        let all = abandoned.by_listener();
        let (named, unnamed) = all.split_at(all.len().min(NAMED));
        // An address says less when several namespaces have it.
        let ambiguous = named.iter().any(|one| one.netns != named[0].netns);
        let mut parts: Vec<String> = named
            .iter()
            .map(|one| match one.netns.filter(|_| ambiguous) {
                Some(netns) => format!("{} in netns {netns} {}", EndpointText(one.local), one.count),
                None => format!("{} {}", EndpointText(one.local), one.count),
            })
            .collect();
        let others = unnamed.iter().map(|one| one.count).sum::<u64>() + abandoned.beyond();
        if others != 0 {
            parts.push(format!("others {others}"));
        }
        (!parts.is_empty())
            .then(|| Self(format!("handshakes abandoned by their clients: {}", parts.join(", "))))
    }
}

impl fmt::Display for AbandonedSummary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Endpoint, Timestamp},
        lifecycle::HalfOpen,
    };

    fn abandoned(counts: &[(&str, u16, u32, usize)]) -> Option<String> {
        let mut abandoned = AbandonedHandshakes::default();
        for &(address, port, netns, count) in counts {
            for _ in 0..count {
                abandoned.count(&HalfOpen {
                    local: Endpoint { address: address.parse().unwrap(), port },
                    remote: Endpoint { address: "192.0.2.99".parse().unwrap(), port: 40_000 },
                    netns: Some(netns),
                    answered: Timestamp(0),
                    answered_exactly: false,
                    last_sent: Timestamp(0),
                    retransmits: 1,
                    accept_queue: None,
                });
            }
        }
        AbandonedSummary::new(&abandoned).map(|summary| summary.to_string())
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        assert_eq!(abandoned(&[]), None);
    }

    #[test]
    fn the_five_worst_listeners_are_named() {
        let text =
            abandoned(&[("192.0.2.10", 443, 7, 2), ("192.0.2.10", 8080, 7, 17), ("2001:db8::1", 80, 7, 1)]);
        assert_eq!(
            text.unwrap(),
            "handshakes abandoned by their clients: 192.0.2.10:8080 17, 192.0.2.10:443 2, [2001:db8::1]:80 1"
        );
        let many: Vec<_> = (1..=7).map(|port: u16| ("10.0.0.1", port, 7, 10 - usize::from(port))).collect();
        let text = abandoned(&many).unwrap();
        assert!(
            text.ends_with(
                ": 10.0.0.1:1 9, 10.0.0.1:2 8, 10.0.0.1:3 7, 10.0.0.1:4 6, 10.0.0.1:5 5, others 7"
            ),
            "{text}"
        );
    }

    #[test]
    fn namespaces_are_named_where_there_are_several() {
        let text = abandoned(&[("10.0.0.1", 80, 7, 1), ("10.0.0.1", 80, 8, 2)]).unwrap();
        assert!(text.ends_with(": 10.0.0.1:80 in netns 8 2, 10.0.0.1:80 in netns 7 1"), "{text}");
    }
}
