//! The timewait socket that the kernel keeps after a connection closes.

use crate::{
    event::{Nanos, TcpState},
    lifecycle::{DurationSource, StateSpan},
};

/// `TCP_TIMEWAIT_LEN`, `include/net/tcp.h`: 60 s in every kernel from 2.2 to 7.1, not configurable.
const TIME_WAIT: Nanos = Nanos::from_secs(60);

/// The configurable part of the lifetime of a timewait socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWaitModel {
    /// `net.ipv4.tcp_fin_timeout`: the time an orphaned FIN_WAIT2 waits for the peer's FIN.
    pub fin_timeout: Nanos,
}

impl Default for TimeWaitModel {
    fn default() -> Self {
        Self { fin_timeout: Nanos::from_secs(60) }
    }
}

/// The state after the close, in which the kernel has replaced the socket with a timewait socket. A timewait socket
/// has no transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterClose {
    /// `TIME_WAIT`, or `FIN_WAIT2` when the peer's FIN had not arrived.
    pub state: TcpState,
    /// The duration: 2MSL for TIME_WAIT, the upper bound for FIN_WAIT2.
    pub duration: Nanos,
    /// How the duration was obtained.
    pub source: DurationSource,
}

impl AfterClose {
    /// Returns this state as a span of the lifecycle.
    pub(super) const fn span(&self) -> StateSpan {
        StateSpan { state: self.state, duration: Some(self.duration), source: self.source }
    }
}

impl TimeWaitModel {
    /// Returns the lifetime of the timewait socket of an orphan in FIN_WAIT2.
    ///
    /// The kernel keeps the full socket for the part of the timeout beyond 60 s and hands it over then with that part
    /// as the lifetime (`tcp_rcv_state_process`, `tcp_keepalive_timer`, 6.18).
    const fn orphaned_fin_wait_2(self) -> Nanos {
        let beyond = self.fin_timeout.saturating_sub(TIME_WAIT);
        if beyond.0 > 0 { beyond } else { self.fin_timeout }
    }

    /// Returns the lifetime of a timewait socket in `state`; none for other states.
    pub const fn lifetime(self, state: TcpState) -> Option<Nanos> {
        match state {
            TcpState::TimeWait => Some(TIME_WAIT),
            TcpState::FinWait2 => Some(self.orphaned_fin_wait_2()),
            _ => None,
        }
    }

    /// Returns the least time that a timewait socket has been in `state`, from the time `left` on its timer; none for other
    /// states.
    pub fn age_at_least(self, state: TcpState, left: Nanos) -> Option<Nanos> {
        Some(self.lifetime(state)?.saturating_sub(left))
    }

    /// Returns the state that follows an orderly close from `from` (the hand-over in `tcp_time_wait`, 6.18
    /// tcp_minisocks.c). `peer_fin` is none when it could not be read.
    pub(super) fn after_close(self, from: TcpState, peer_fin: Option<bool>) -> Option<AfterClose> {
        let (state, duration) = match (from, peer_fin) {
            (TcpState::Closing, _) | (TcpState::FinWait2, Some(true)) => (TcpState::TimeWait, TIME_WAIT),
            (TcpState::FinWait2, Some(false)) => (TcpState::FinWait2, self.orphaned_fin_wait_2()),
            _ => return None,
        };
        Some(AfterClose { state, duration, source: DurationSource::Modelled })
    }
}
