//! The line that ends every run.

use std::fmt;

use crate::{event::SourceCounts, lifecycle::TrackerCounts};

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
        if source.others_lost != 0 {
            write!(formatter, ", {} other events lost in the ring", source.others_lost)?;
        }
        if source.malformed != 0 {
            write!(formatter, ", {} malformed records", source.malformed)?;
        }
        Ok(())
    }
}
