//! Which states, transitions and handshakes stand out.

use tracer_core::{
    analysis::{HandshakeAttempt, HandshakeOutcome, JoinedHandshake, Verdict, is_pathological},
    event::TcpState,
    lifecycle::{CloseReason, Handshake},
};

use crate::report::text::style::Mark;

/// Returns the mark of a state: opening, open, or waiting for the local process to close.
pub(in crate::report) fn state_mark(state: TcpState) -> Mark {
    match state {
        TcpState::SynSent | TcpState::SynReceived => Mark::Opening,
        TcpState::Established => Mark::Good,
        TcpState::CloseWait => Mark::Warning,
        _ => Mark::Plain,
    }
}

/// Returns the mark of the state that a transition enters. A close without a FIN exchange is bad.
pub(in crate::report) fn entered_mark(from: TcpState, to: TcpState) -> Mark {
    if is_pathological((from, to)) { Mark::Bad } else { state_mark(to) }
}

/// Returns the mark of a close reason.
pub(in crate::report) fn reason_mark(reason: CloseReason) -> Mark {
    Mark::Bad.when(reason.is_failure())
}

/// Returns the mark of a connection's handshake: whether a segment was sent again.
pub(in crate::report) fn handshake_mark(handshake: Option<Handshake>) -> Mark {
    let resent = handshake.and_then(|handshake| handshake.retransmits).unwrap_or(0) > 0;
    Mark::Warning.when(resent)
}

/// Returns the mark of the story of a handshake.
pub(in crate::report) fn attempt_mark(attempt: &HandshakeAttempt) -> Mark {
    let resent = attempt.retransmits.unwrap_or(0) > 0;
    outcome_mark(attempt.outcome, resent)
}

/// Returns the mark of the story of a handshake with both ends.
pub(in crate::report) fn joined_mark(joined: &JoinedHandshake<'_>) -> Mark {
    outcome_mark(joined.client.outcome, joined.fate.is_loss())
}

fn outcome_mark(outcome: HandshakeOutcome, lost: bool) -> Mark {
    match outcome {
        HandshakeOutcome::Established => Mark::Warning.when(lost),
        HandshakeOutcome::Failed(_) | HandshakeOutcome::Abandoned => Mark::Bad,
    }
}

/// Returns the mark of the length of an accept queue: full, or at least half full.
pub(in crate::report) fn queue_mark(length: Option<u32>, limit: Option<u32>) -> Mark {
    let (Some(length @ 1..), Some(limit)) = (length, limit) else { return Mark::Plain };
    // The kernel accepts one connection beyond the limit.
    if length > limit { Mark::Bad } else { Mark::Warning.when(length >= limit.div_ceil(2)) }
}

/// Returns the mark of a verdict about a measure.
pub(in crate::report) fn verdict_mark(verdict: Verdict) -> Mark {
    match verdict {
        Verdict::Worse => Mark::Bad,
        Verdict::Better => Mark::Good,
        Verdict::Changed => Mark::Warning,
        Verdict::NotProven | Verdict::TooFew => Mark::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_without_fins_is_bad_and_a_normal_one_is_plain() {
        use TcpState::{CloseWait, Closed, Established, FinWait1, LastAck, SynSent, TimeWait};
        for (from, to, mark) in [
            (Established, Closed, Mark::Bad),
            (SynSent, Closed, Mark::Bad),
            (LastAck, Closed, Mark::Plain),
            (TimeWait, Closed, Mark::Plain),
            (SynSent, Established, Mark::Good),
            (Closed, SynSent, Mark::Opening),
            (Established, CloseWait, Mark::Warning),
            (Established, FinWait1, Mark::Plain),
        ] {
            assert_eq!(entered_mark(from, to), mark, "{from:?} {to:?}");
        }
    }

    #[test]
    fn a_full_queue_is_bad_and_an_empty_one_is_not() {
        let mark = |length, limit| queue_mark(Some(length), Some(limit));
        assert_eq!(
            [0, 63, 64, 128, 129].map(|length| mark(length, 128)),
            [Mark::Plain, Mark::Plain, Mark::Warning, Mark::Warning, Mark::Bad]
        );
        assert_eq!(
            (mark(0, 0), mark(1, 0), queue_mark(Some(3), None)),
            (Mark::Plain, Mark::Bad, Mark::Plain)
        );
    }

    #[test]
    fn only_failures_are_bad() {
        for reason in CloseReason::ALL {
            assert_eq!(reason_mark(reason) == Mark::Bad, reason.is_failure(), "{reason:?}");
        }
    }
}
