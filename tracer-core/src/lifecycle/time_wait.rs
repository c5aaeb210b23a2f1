//! What the kernel keeps of a connection after its application is done with it.

use crate::{
    event::TcpState,
    lifecycle::{DurationSource, StateSpan},
};

/// `TCP_TIMEWAIT_LEN`, `include/net/tcp.h`: 60 s in every kernel from 2.2 to 7.1, not configurable.
const TIME_WAIT_NS: u64 = 60_000_000_000;

/// How long the kernel keeps a mini-socket; the part that an administrator can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWaitModel {
    /// `net.ipv4.tcp_fin_timeout`, nanoseconds: how long an orphaned FIN_WAIT2 waits for the peer's FIN.
    pub fin_timeout_ns: u64,
}

impl Default for TimeWaitModel {
    fn default() -> Self {
        Self { fin_timeout_ns: 60_000_000_000 }
    }
}

/// A state that goes on without a socket: the kernel has replaced it by a mini-socket, which has no
/// transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterClose {
    /// `TIME_WAIT`, or `FIN_WAIT2` when the peer's FIN had not come yet.
    pub state: TcpState,
    /// How long it lasts, nanoseconds: for TIME_WAIT 2MSL, for FIN_WAIT2 the longest it can.
    pub duration_ns: u64,
    /// How that is known.
    pub source: DurationSource,
}

impl AfterClose {
    /// It as a state of the lifecycle.
    pub const fn span(&self) -> StateSpan {
        StateSpan { state: self.state, duration_ns: Some(self.duration_ns), source: self.source }
    }
}

impl TimeWaitModel {
    /// How long a mini-socket in `state` lives in all, nanoseconds; none for other states.
    pub const fn whole_ns(self, state: TcpState) -> Option<u64> {
        match state {
            TcpState::TimeWait => Some(TIME_WAIT_NS),
            TcpState::FinWait2 => Some(self.fin_timeout_ns),
            _ => None,
        }
    }

    /// What follows an orderly end in `from` (the hand-off in `tcp_time_wait`, 6.18
    /// tcp_minisocks.c). `peer_fin` is none when the kernel did not say.
    pub(super) fn after_close(self, from: TcpState, peer_fin: Option<bool>) -> Option<AfterClose> {
        let (state, duration_ns) = match (from, peer_fin) {
            (TcpState::Closing, _) | (TcpState::FinWait2, Some(true)) => (TcpState::TimeWait, TIME_WAIT_NS),
            (TcpState::FinWait2, Some(false)) => (TcpState::FinWait2, self.fin_timeout_ns),
            _ => return None,
        };
        Some(AfterClose { state, duration_ns, source: DurationSource::Modelled })
    }
}
