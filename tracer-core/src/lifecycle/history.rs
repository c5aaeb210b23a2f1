//! The states of a connection with the times they were entered, in constant memory.

use crate::{
    event::{Nanos, TcpState, Timestamp},
    lifecycle::DurationSource,
};

/// The longest lifecycle: SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT1, and CLOSING or FIN_WAIT2. A gap skips states of a
/// lifecycle, so only a gap that hides the start of another one needs more.
const CAPACITY: usize = 5;
const UNKNOWN: u64 = u64::MAX;

/// A state and the time spent in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSpan {
    /// The state.
    pub state: TcpState,
    /// The time spent in the state; none when its start or its end was not seen.
    pub duration: Option<Nanos>,
    /// How the duration was obtained.
    pub source: DurationSource,
}

/// The states entered so far, in order. The last one is the current state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    entered_at: [u64; CAPACITY],
    states: [TcpState; CAPACITY],
    length: u8,
}

impl History {
    /// Creates a history that starts in `state`. `since` is none when the entry was not seen.
    pub(super) fn new(state: TcpState, since: Option<Timestamp>) -> Self {
        let mut history =
            Self { entered_at: [UNKNOWN; CAPACITY], states: [TcpState::Closed; CAPACITY], length: 0 };
        history.push(state, since);
        history
    }

    /// Enters a state. A full history drops its oldest state; only gaps can fill it.
    pub(super) fn push(&mut self, state: TcpState, since: Option<Timestamp>) {
        let mut index = usize::from(self.length);
        if index == CAPACITY {
            self.states.copy_within(1.., 0);
            self.entered_at.copy_within(1.., 0);
            index -= 1;
        } else {
            self.length += 1;
        }
        self.states[index] = state;
        self.entered_at[index] = since.map_or(UNKNOWN, |time| time.0);
    }

    /// Returns the current state.
    pub fn current(&self) -> TcpState {
        self.states[usize::from(self.length) - 1]
    }

    /// Returns when the current state was entered, if that was seen.
    pub fn since(&self) -> Option<Timestamp> {
        known(self.entered_at[usize::from(self.length) - 1])
    }

    /// Returns whether the history contains `state`.
    pub fn contains(&self, state: TcpState) -> bool {
        self.states[..usize::from(self.length)].contains(&state)
    }

    /// Returns when `state` was first entered, if that was seen.
    pub(crate) fn entered(&self, state: TcpState) -> Option<Timestamp> {
        let index = self.states[..usize::from(self.length)].iter().position(|&seen| seen == state)?;
        known(self.entered_at[index])
    }

    /// Iterates over the states with the time spent in each; the current state ends at `end`.
    pub fn spans(&self, end: Timestamp) -> impl Iterator<Item = StateSpan> + '_ {
        (0..usize::from(self.length)).map(move |index| {
            let until = match self.entered_at[..usize::from(self.length)].get(index + 1) {
                Some(&next) => known(next),
                None => Some(end),
            };
            let duration = match (known(self.entered_at[index]), until) {
                (Some(since), Some(until)) => Some(until.since(since)),
                _ => None,
            };
            StateSpan { state: self.states[index], duration, source: DurationSource::Observed }
        })
    }
}

fn known(time: u64) -> Option<Timestamp> {
    (time != UNKNOWN).then_some(Timestamp(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_span_ends_where_the_next_begins() {
        let mut history = History::new(TcpState::SynSent, Some(Timestamp(100)));
        history.push(TcpState::Established, Some(Timestamp(150)));
        let spans: Vec<_> = history.spans(Timestamp(450)).map(|span| (span.state, span.duration)).collect();
        assert_eq!(spans, [(TcpState::SynSent, Some(Nanos(50))), (TcpState::Established, Some(Nanos(300)))]);
        assert_eq!(history.current(), TcpState::Established);
        assert_eq!(history.since(), Some(Timestamp(150)));
        assert_eq!(history.entered(TcpState::SynSent), Some(Timestamp(100)));
        assert_eq!(history.entered(TcpState::LastAck), None);
    }

    #[test]
    fn an_unseen_entry_leaves_both_neighbors_without_a_duration() {
        let mut history = History::new(TcpState::SynSent, Some(Timestamp(100)));
        history.push(TcpState::Established, None);
        history.push(TcpState::CloseWait, Some(Timestamp(300)));
        let spans: Vec<_> = history.spans(Timestamp(301)).map(|span| span.duration).collect();
        assert_eq!(spans, [None, None, Some(Nanos(1))]);
    }

    #[test]
    fn a_full_history_drops_the_oldest_state() {
        let mut history = History::new(TcpState::SynSent, Some(Timestamp(0)));
        for time in 1..=20 {
            history.push(TcpState::Established, Some(Timestamp(time)));
        }
        assert_eq!(history.spans(Timestamp(21)).count(), CAPACITY);
        assert!(!history.contains(TcpState::SynSent));
        assert_eq!(history.since(), Some(Timestamp(20)));
    }
}
