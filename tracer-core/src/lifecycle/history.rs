//! The states a connection has been in, and since when, in a fixed amount of memory.

use crate::{
    event::{TcpState, Timestamp},
    lifecycle::DurationSource,
};

/// More states than any lifecycle has without gaps: SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT1,
/// CLOSING or FIN_WAIT2 are five.
const CAPACITY: usize = 7;
const UNKNOWN: u64 = u64::MAX;

/// A state and the time spent in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSpan {
    /// The state.
    pub state: TcpState,
    /// Nanoseconds spent in it; none when its beginning or its end was not seen.
    pub duration_ns: Option<u64>,
    /// How the duration was obtained.
    pub source: DurationSource,
}

/// The states entered so far, in order. The last is the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    entered_at: [u64; CAPACITY],
    states: [TcpState; CAPACITY],
    length: u8,
}

impl History {
    /// A history that begins in `state`, entered at `since` if that was seen.
    pub fn new(state: TcpState, since: Option<Timestamp>) -> Self {
        let mut history =
            Self { entered_at: [UNKNOWN; CAPACITY], states: [TcpState::Closed; CAPACITY], length: 0 };
        history.push(state, since);
        history
    }

    /// Enters a state. When gaps have filled the history, its oldest part is given up.
    pub fn push(&mut self, state: TcpState, since: Option<Timestamp>) {
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

    /// The present state.
    pub fn current(&self) -> TcpState {
        self.states[usize::from(self.length) - 1]
    }

    /// When the present state was entered, if that was seen.
    pub fn since(&self) -> Option<Timestamp> {
        known(self.entered_at[usize::from(self.length) - 1])
    }

    /// Whether the connection has been in `state`.
    pub fn contains(&self, state: TcpState) -> bool {
        self.states[..usize::from(self.length)].contains(&state)
    }

    /// When `state` was first entered, if that was seen.
    pub fn entered(&self, state: TcpState) -> Option<Timestamp> {
        let index = self.states[..usize::from(self.length)].iter().position(|&seen| seen == state)?;
        known(self.entered_at[index])
    }

    /// The states with the time spent in each, the present one close_cause at `end`.
    pub fn spans(&self, end: Timestamp) -> impl Iterator<Item = StateSpan> + '_ {
        (0..usize::from(self.length)).map(move |index| {
            let until = match self.entered_at[..usize::from(self.length)].get(index + 1) {
                Some(&next) => known(next),
                None => Some(end),
            };
            let duration_ns = match (known(self.entered_at[index]), until) {
                (Some(since), Some(until)) => Some(until.since(since)),
                _ => None,
            };
            StateSpan { state: self.states[index], duration_ns, source: DurationSource::Observed }
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
    fn spans_end_where_the_next_begins() {
        let mut history = History::new(TcpState::SynSent, Some(Timestamp(100)));
        history.push(TcpState::Established, Some(Timestamp(150)));
        let spans: Vec<_> =
            history.spans(Timestamp(450)).map(|span| (span.state, span.duration_ns)).collect();
        assert_eq!(spans, [(TcpState::SynSent, Some(50)), (TcpState::Established, Some(300))]);
        assert_eq!(history.current(), TcpState::Established);
        assert_eq!(history.since(), Some(Timestamp(150)));
        assert_eq!(history.entered(TcpState::SynSent), Some(Timestamp(100)));
        assert_eq!(history.entered(TcpState::LastAck), None);
    }

    #[test]
    fn an_unknown_beginning_leaves_unknown_durations_on_both_sides() {
        let mut history = History::new(TcpState::SynSent, Some(Timestamp(100)));
        history.push(TcpState::Established, None);
        history.push(TcpState::CloseWait, Some(Timestamp(300)));
        let spans: Vec<_> = history.spans(Timestamp(301)).map(|span| span.duration_ns).collect();
        assert_eq!(spans, [None, None, Some(1)]);
    }

    #[test]
    fn more_states_than_fit_give_up_the_oldest() {
        let mut history = History::new(TcpState::SynSent, Some(Timestamp(0)));
        for time in 1..=20 {
            history.push(TcpState::Established, Some(Timestamp(time)));
        }
        assert_eq!(history.spans(Timestamp(21)).count(), CAPACITY);
        assert!(!history.contains(TcpState::SynSent));
        assert_eq!(history.since(), Some(Timestamp(20)));
    }
}
