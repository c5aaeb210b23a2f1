//! How long the three-way handshake took, as truly as the kernel lets one know.
//!
//! A client's is what its application waited: SYN_SENT to ESTABLISHED, lost SYNs included. A server's
//! cannot be seen in the transitions, because the kernel makes the socket only when the final ACK has
//! come; it is the kernel's own sample from SYN-ACK to ACK (`tcp_synack_rtt_meas`, 6.18 tcp_input.c),
//! which has been taken when the socket becomes ESTABLISHED.

use crate::{
    event::{TcpInfo, TcpState, Transition},
    lifecycle::{Connection, DurationSource, HalfOpen, Role},
};

/// Why a handshake's duration is less than exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HandshakeCaveat {
    /// The SYN-ACK was sent again. Observed from the first one where a hook saw the resend; else
    /// measured from it by TCP timestamps, to the millisecond.
    SynAckRetransmitted,
    /// The SYN-ACK was sent again, and the kernel's sample, if any, is of a resend. After one resend the
    /// duration is the second that the kernel waits before it, and the sample; after more it is unknown.
    RetransmitSchedule,
    /// The sample has the millisecond grain of a SYN cookie's timestamp, which also carries options in
    /// its low bits: up to 64 ms too long. One handshake in a thousand has that grain by chance.
    SynCookie,
    /// The final ACK came with data, as it always does on a listener with `TCP_DEFER_ACCEPT`: the
    /// client's wait until it had something to send may be included.
    FirstData,
}

impl HandshakeCaveat {
    /// The name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynAckRetransmitted => "syn_ack_retransmitted",
            Self::RetransmitSchedule => "retransmit_schedule",
            Self::SynCookie => "syn_cookie",
            Self::FirstData => "first_data",
        }
    }
}

/// How the opening of a connection went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Nanoseconds; none when it cannot be known (a SYN cookie without timestamps, no kernel figures).
    pub duration_ns: Option<u64>,
    /// The network's part, microseconds: the round-trip time of the segment that was answered.
    pub rtt_us: Option<u32>,
    /// How the duration was obtained.
    pub source: DurationSource,
    /// Why the duration is less than exact.
    pub caveat: Option<HandshakeCaveat>,
    /// SYNs (for a server SYN-ACKs) sent again; none when the kernel did not say.
    pub retransmits: Option<u8>,
    /// The state in which the handshake's time is spent.
    state: TcpState,
    completed: bool,
}

/// From this on a SYN_RECV may be a real one (Fast Open); an ordinary child passes it in microseconds, unless
/// its processor is held up.
const REAL_SYN_RECEIVED_NS: u64 = 1_000_000;

/// How much longer than a real SYN_RECV its sample may seem: the child is there before its SYN-ACK is
/// sent, so only by the grain of the clocks.
const SAMPLE_GRAIN_NS: u64 = 100_000;

impl Handshake {
    /// Of a connection that has just become ESTABLISHED; none when the opening was not seen.
    ///
    /// `resent` is what is known of its SYN-ACK's resends, when there were any and a hook saw them.
    pub(super) fn completed(
        connection: &Connection,
        transition: &Transition,
        resent: Option<&HalfOpen>,
    ) -> Option<Self> {
        let established = transition.time;
        match connection.role {
            Role::Client | Role::Simultaneous => {
                let sent = connection.history.entered(TcpState::SynSent)?;
                Some(Self::active(established.since(sent), transition.info.as_ref()))
            }
            Role::Server => {
                let child = connection.history.entered(TcpState::SynReceived);
                let passed = child.map(|since| established.since(since));
                let handshake = Self::passive(passed, transition.info.as_ref());
                Some(match resent.filter(|resent| resent.answered_exactly) {
                    // The kernel's sample may be of a resend only; the clock is not.
                    Some(resent) => Self {
                        duration_ns: Some(established.since(resent.answered)),
                        source: DurationSource::Observed,
                        caveat: Some(HandshakeCaveat::SynAckRetransmitted),
                        // The ACK may overtake the kernel's count of the resend that it answers (`inet_rtx_syn_ack`
                        // counts when it has sent, 6.18 inet_connection_sock.c). Its sample is then of both.
                        rtt_us: handshake.rtt_us.filter(|_| handshake.retransmits != Some(0)),
                        retransmits: Some(handshake.retransmits.unwrap_or(0).max(resent.retransmits)),
                        ..handshake
                    },
                    None => handshake,
                })
            }
            Role::Unknown => None,
        }
    }

    /// Of a connection that ended before it was established: it has no duration, but the resends count.
    pub(super) fn failed(connection: &Connection, info: Option<&TcpInfo>) -> Option<Self> {
        let state = match connection.role {
            Role::Client | Role::Simultaneous => TcpState::SynSent,
            Role::Server => TcpState::SynReceived,
            Role::Unknown => return None,
        };
        Some(Self {
            duration_ns: None,
            rtt_us: None,
            source: DurationSource::Observed,
            caveat: None,
            retransmits: info.map(retransmits),
            state,
            completed: false,
        })
    }

    fn active(duration_ns: u64, info: Option<&TcpInfo>) -> Self {
        Self {
            duration_ns: Some(duration_ns),
            rtt_us: info.and_then(|info| info.srtt_us),
            source: DurationSource::Observed,
            caveat: None,
            retransmits: info.map(retransmits),
            state: TcpState::SynSent,
            completed: true,
        }
    }

    fn passive(passed: Option<u64>, info: Option<&TcpInfo>) -> Self {
        let state = TcpState::SynReceived;
        let measured = info.and_then(|info| info.srtt_us).map(|rtt| u64::from(rtt) * 1000);
        let real = passed.filter(|&passed| is_real(passed, measured));
        let Some(info) = info else {
            return Self {
                duration_ns: real,
                rtt_us: None,
                source: DurationSource::Observed,
                caveat: None,
                retransmits: None,
                state,
                completed: true,
            };
        };
        let resent = retransmits(info);
        let exact = |duration_ns, source| Self {
            duration_ns,
            rtt_us: info.srtt_us,
            source,
            caveat: None,
            retransmits: Some(resent),
            state,
            completed: true,
        };
        if let Some(passed) = real {
            return exact(Some(passed), DurationSource::Observed);
        }
        match (measured, resent) {
            (Some(_), 0) => {
                let caveat = if info.data_segments_received > 0 {
                    Some(HandshakeCaveat::FirstData)
                } else if info.srtt_us.is_some_and(|rtt| rtt % 1000 == 0) {
                    Some(HandshakeCaveat::SynCookie)
                } else {
                    None
                };
                // A wait for data is no round trip of the network.
                let rtt_us = info.srtt_us.filter(|_| caveat != Some(HandshakeCaveat::FirstData));
                Self { rtt_us, caveat, ..exact(measured, DurationSource::Measured) }
            }
            // Shorter than any resend's wait: the client answered a resend, and by TCP timestamps the
            // sample is of that one. When it was sent is sure only for a single one: a SYN that came
            // again is answered at once, and counts as well.
            (Some(sample), resent) if sample < resend_schedule_ns(1) => Self {
                duration_ns: (resent == 1).then(|| resend_schedule_ns(1) + sample),
                caveat: Some(HandshakeCaveat::RetransmitSchedule),
                ..exact(None, DurationSource::Modelled)
            },
            (Some(_), _) => Self {
                caveat: Some(HandshakeCaveat::SynAckRetransmitted),
                // The sample covers the resends: it is no round trip of the network.
                rtt_us: None,
                ..exact(measured, DurationSource::Measured)
            },
            (None, 0) => exact(None, DurationSource::Measured),
            (None, resent) => Self {
                caveat: Some(HandshakeCaveat::RetransmitSchedule),
                ..exact((resent == 1).then(|| resend_schedule_ns(1)), DurationSource::Modelled)
            },
        }
    }

    /// Whether the handshake is the true duration of the connection's `state`.
    pub fn replaces(&self, state: TcpState) -> bool {
        self.completed && self.state == state && state == TcpState::SynReceived
    }
}

/// Whether this time in SYN_RECV was the wait for the final ACK.
///
/// With Fast Open the child sends the SYN-ACK itself, so the kernel's sample is that same wait. An ordinary
/// child is made when the wait is over: what it spends in SYN_RECV has nothing to do with the sample.
fn is_real(passed: u64, sample: Option<u64>) -> bool {
    passed >= REAL_SYN_RECEIVED_NS
        && sample
            .is_none_or(|sample| sample <= passed.saturating_add(SAMPLE_GRAIN_NS) && passed / 2 <= sample)
}

fn retransmits(info: &TcpInfo) -> u8 {
    u8::try_from(info.retransmits).unwrap_or(u8::MAX)
}

/// When the `count`th SYN-ACK is resent: after 1 s, doubling (`TCP_TIMEOUT_INIT`, RFC 6298).
fn resend_schedule_ns(count: u8) -> u64 {
    ((1_u64 << count.min(20)) - 1) * 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(srtt_us: Option<u32>, retransmits: u32) -> TcpInfo {
        TcpInfo { retransmits, srtt_us, ..TcpInfo::default() }
    }

    #[test]
    fn a_server_reports_the_kernels_sample_not_the_tracepoints_microseconds() {
        let handshake = Handshake::passive(Some(15_000), Some(&info(Some(79_123), 0)));
        assert_eq!(handshake.duration_ns, Some(79_123_000));
        assert_eq!((handshake.source, handshake.caveat), (DurationSource::Measured, None));
        assert!(handshake.replaces(TcpState::SynReceived));
        assert!(!handshake.replaces(TcpState::SynSent));
    }

    #[test]
    fn fast_open_is_observed() {
        let handshake = Handshake::passive(Some(219_175_000), Some(&info(Some(219_000), 0)));
        assert_eq!((handshake.duration_ns, handshake.source), (Some(219_175_000), DurationSource::Observed));
    }

    #[test]
    fn a_child_that_was_held_up_is_no_fast_open() {
        // Measured on an emulated processor, and one held up after a short round trip.
        for (passed, sample) in
            [(2_066_130, 6_637), (1_596_046, 12_803), (2_638_000, 2_785), (5_000_000, 218)]
        {
            let handshake = Handshake::passive(Some(passed), Some(&info(Some(sample), 0)));
            assert_eq!(handshake.duration_ns, Some(u64::from(sample) * 1000));
            assert_eq!((handshake.source, handshake.caveat), (DurationSource::Measured, None));
        }
    }

    #[test]
    fn resent_syn_acks_are_flagged_and_their_sample_is_no_round_trip() {
        let timestamps = Handshake::passive(Some(9_000), Some(&info(Some(1_007_000), 1)));
        assert_eq!(timestamps.duration_ns, Some(1_007_000_000));
        assert_eq!(timestamps.caveat, Some(HandshakeCaveat::SynAckRetransmitted));
        assert_eq!((timestamps.rtt_us, timestamps.retransmits), (None, Some(1)));

        let none = Handshake::passive(Some(9_000), Some(&info(None, 1)));
        assert_eq!((none.duration_ns, none.source), (Some(1_000_000_000), DurationSource::Modelled));
        assert_eq!(none.caveat, Some(HandshakeCaveat::RetransmitSchedule));
    }

    #[test]
    fn a_sample_of_a_resend_is_not_the_handshake() {
        let one = Handshake::passive(Some(9_000), Some(&info(Some(30_000), 1)));
        assert_eq!((one.duration_ns, one.source), (Some(1_030_000_000), DurationSource::Modelled));
        assert_eq!((one.rtt_us, one.caveat), (Some(30_000), Some(HandshakeCaveat::RetransmitSchedule)));
        // By the schedule, or because the client's SYN came again: nothing tells.
        for sample in [Some(30_000), None] {
            let two = Handshake::passive(Some(9_000), Some(&info(sample, 2)));
            assert_eq!((two.duration_ns, two.retransmits), (None, Some(2)));
            assert_eq!(two.caveat, Some(HandshakeCaveat::RetransmitSchedule));
        }
    }

    #[test]
    fn cookies_are_flagged_or_unknown() {
        let timestamps = Handshake::passive(Some(9_000), Some(&info(Some(242_000), 0)));
        assert_eq!(timestamps.caveat, Some(HandshakeCaveat::SynCookie));
        let none = Handshake::passive(Some(9_000), Some(&info(None, 0)));
        assert_eq!(none.duration_ns, None);
    }

    #[test]
    fn a_final_ack_with_data_is_flagged() {
        let with_data = TcpInfo { data_segments_received: 1, ..info(Some(300_123), 0) };
        let handshake = Handshake::passive(Some(9_000), Some(&with_data));
        assert_eq!(handshake.duration_ns, Some(300_123_000));
        assert_eq!((handshake.caveat, handshake.rtt_us), (Some(HandshakeCaveat::FirstData), None));
    }

    #[test]
    fn without_the_kernels_figures_a_server_handshake_is_unknown() {
        assert_eq!(Handshake::passive(Some(15_000), None).duration_ns, None);
        assert_eq!(Handshake::passive(None, None).duration_ns, None);
    }

    #[test]
    fn the_resend_schedule_doubles() {
        let seconds: Vec<_> = (1..=5).map(|count| resend_schedule_ns(count) / 1_000_000_000).collect();
        assert_eq!(seconds, [1, 3, 7, 15, 31]);
    }
}
