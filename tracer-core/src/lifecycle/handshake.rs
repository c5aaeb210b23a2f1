//! The duration of the three-way handshake.
//!
//! A client's handshake is the time from SYN_SENT to ESTABLISHED, including retransmitted SYNs. A server's handshake
//! is not visible in the transitions, because the kernel creates the socket when the final ACK arrives. Its duration
//! is the kernel's round-trip sample from SYN-ACK to ACK (`tcp_synack_rtt_meas`, 6.18 tcp_input.c), which the kernel
//! takes before the socket becomes ESTABLISHED.

use crate::{
    event::{Micros, Nanos, TcpInfo, TcpState, Transition},
    lifecycle::{Connection, DurationSource, HalfOpen, Role, backoff},
};

/// Why the duration of a handshake is not exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HandshakeCaveat {
    /// The SYN-ACK was retransmitted. The duration counts from the first SYN-ACK: observed if a hook saw the
    /// retransmission, else measured by TCP timestamps to the millisecond.
    SynAckRetransmitted,
    /// The SYN-ACK was retransmitted, and the kernel's sample, if any, covers only the last one. After one
    /// retransmission the duration is the kernel's timeout of 1 s plus the sample; after more it is unknown.
    RetransmitSchedule,
    /// The sample is a whole number of milliseconds and may come from a SYN cookie's timestamp. Such a timestamp
    /// carries TCP options in its low bits, so the sample may be up to 64 ms too long. One ordinary handshake in a
    /// thousand has the same granularity by chance.
    SynCookie,
    /// The final ACK carried the client's first data or FIN, or was the answer to a SYN-ACK that the kernel sent again
    /// after the client's ACK. So it is on a listener with `TCP_DEFER_ACCEPT`. The duration may include the time until
    /// the client had data to send.
    FirstData,
    /// `TCP_FASTOPEN_CONNECT` deferred the SYN to the first write. The duration is the kernel's sample from the SYN to
    /// the SYN-ACK; unknown if the SYN was retransmitted.
    FastOpenDeferred,
}

impl HandshakeCaveat {
    /// Returns the name in machine output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynAckRetransmitted => "syn_ack_retransmitted",
            Self::RetransmitSchedule => "retransmit_schedule",
            Self::SynCookie => "syn_cookie",
            Self::FirstData => "first_data",
            Self::FastOpenDeferred => "fast_open_deferred",
        }
    }
}

/// The handshake of a connection, completed or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The duration; none when unknown (failed, a SYN cookie without timestamps, no kernel statistics).
    pub duration: Option<Nanos>,
    /// The network round-trip time of the answered segment.
    pub rtt: Option<Micros>,
    /// How the duration was obtained.
    pub source: DurationSource,
    /// Why the duration is not exact.
    pub caveat: Option<HandshakeCaveat>,
    /// Retransmitted SYNs (for a server SYN-ACKs); none when the source did not read the count.
    pub retransmits: Option<u8>,
    /// Whether a segment of the handshake was lost; none when unknown. With a round trip above 1 s the kernel retransmits
    /// a segment that was not lost.
    pub lost: Option<bool>,
    /// The state that the connection is in during the handshake.
    state: TcpState,
    completed: bool,
}

/// The shortest time in SYN_RECV that may be a Fast Open handshake. An ordinary child socket leaves the state within
/// microseconds, unless its CPU is delayed.
const FAST_OPEN_MIN: Nanos = Nanos::from_millis(1);

/// How much the kernel's sample may exceed a Fast Open child's time in SYN_RECV. The child exists before it sends
/// the SYN-ACK, so only the clock granularity can make the sample longer.
const CLOCK_GRAIN: Nanos = Nanos::from_micros(100);

impl Handshake {
    /// Returns the handshake of a connection that became ESTABLISHED; none when its start was not seen.
    ///
    /// `half_open` describes the retransmissions of its SYN-ACK, if a hook saw any.
    pub(super) fn completed(
        connection: &Connection,
        transition: &Transition,
        half_open: Option<&HalfOpen>,
    ) -> Option<Self> {
        let established = transition.time;
        match connection.role {
            Role::Client | Role::Simultaneous => {
                let sent = connection.history.entered(TcpState::SynSent)?;
                let deferred = transition.flags.is_some_and(|flags| flags.fast_open_deferred);
                Some(Self::active(established.since(sent), deferred, transition.info.as_ref()))
            }
            Role::Server => {
                let child = connection.history.entered(TcpState::SynReceived);
                let elapsed = child.map(|since| established.since(since));
                let handshake = Self::passive(elapsed, transition.info.as_ref());
                let handshake = match half_open.filter(|half_open| half_open.answered_exactly) {
                    // The kernel's sample may cover only a retransmission; the time of the first SYN-ACK is exact.
                    Some(half_open) => Self {
                        duration: Some(established.since(half_open.answered)),
                        source: DurationSource::Observed,
                        caveat: Some(HandshakeCaveat::SynAckRetransmitted),
                        retransmits: Some(handshake.retransmits.unwrap_or(0).max(half_open.retransmits)),
                        ..handshake.since_first_syn_ack(
                            established.since(half_open.answered),
                            transition.info.as_ref(),
                        )
                    },
                    None => handshake,
                };
                let acked = half_open.map(|half_open| half_open.acked_retransmits);
                Some(match acked {
                    Some(0) | None if !connection.defer_accept => handshake,
                    _ => handshake.deferred(acked),
                })
            }
            Role::Unknown => None,
        }
    }

    /// Returns the handshake of a connection that closed before ESTABLISHED. It has no duration.
    pub(super) fn failed(connection: &Connection, info: Option<&TcpInfo>) -> Option<Self> {
        let state = match connection.role {
            Role::Client | Role::Simultaneous => TcpState::SynSent,
            Role::Server => TcpState::SynReceived,
            Role::Unknown => return None,
        };
        Some(Self {
            duration: None,
            rtt: None,
            source: DurationSource::Observed,
            caveat: None,
            retransmits: info.map(retransmits),
            lost: lost_without_answer(info),
            state,
            completed: false,
        })
    }

    /// Returns the handshake as one of a listener with `TCP_DEFER_ACCEPT`: it lasts until the client sends data or a FIN.
    ///
    /// The kernel retransmits the SYN-ACK at the end of the deferral although the client's ACK has arrived
    /// (`syn_ack_recalc`, 6.18 inet_connection_sock.c). `acked` counts these retransmissions; without it they cannot be
    /// told from lost SYN-ACKs, and the number of lost ones is unknown.
    fn deferred(self, acked: Option<u8>) -> Self {
        let retransmits = match (self.retransmits, acked) {
            (Some(retransmits), Some(acked)) => Some(retransmits.saturating_sub(acked)),
            (retransmits, None) => retransmits.filter(|&retransmits| retransmits == 0),
            (None, Some(_)) => None,
        };
        let is_modelled = self.source == DurationSource::Modelled;
        Self {
            // The model takes each retransmission for a loss.
            duration: self.duration.filter(|_| !is_modelled),
            rtt: None,
            caveat: Some(HandshakeCaveat::FirstData),
            retransmits,
            lost: retransmits.and_then(|count| if count == 0 { Some(false) } else { self.lost }),
            ..self
        }
    }

    /// Returns the server's handshake with what the time `since_first` SYN-ACK tells about losses.
    fn since_first_syn_ack(self, since_first: Nanos, info: Option<&TcpInfo>) -> Self {
        let Some(info) = info.filter(|info| info.retransmits > 0) else {
            // The ACK may arrive before the kernel counts the retransmission (`inet_rtx_syn_ack` counts after sending, 6.18
            // inet_connection_sock.c). The sample then covers both SYN-ACKs.
            return Self { rtt: None, lost: None, ..self };
        };
        let lost = lost(info, since_first);
        Self { rtt: info.srtt.filter(|_| lost.is_some()), lost, ..self }
    }

    /// Returns the handshake as one that the client's FIN completed: it may include the time until the client closed.
    pub(super) fn ended_by_fin(self) -> Self {
        self.deferred(None)
    }

    fn active(duration: Nanos, deferred: bool, info: Option<&TcpInfo>) -> Self {
        if deferred {
            let sample = info.filter(|info| info.retransmits == 0).and_then(|info| info.srtt);
            return Self {
                duration: sample.map(Nanos::from),
                rtt: sample,
                source: DurationSource::Measured,
                caveat: Some(HandshakeCaveat::FastOpenDeferred),
                retransmits: info.map(retransmits),
                lost: lost_without_answer(info),
                state: TcpState::SynSent,
                completed: true,
            };
        }
        let lost = info.and_then(|info| lost(info, duration));
        Self {
            duration: Some(duration),
            rtt: info.and_then(|info| info.srtt).filter(|_| lost.is_some()),
            source: DurationSource::Observed,
            caveat: None,
            retransmits: info.map(retransmits),
            lost,
            state: TcpState::SynSent,
            completed: true,
        }
    }

    fn passive(elapsed: Option<Nanos>, info: Option<&TcpInfo>) -> Self {
        let state = TcpState::SynReceived;
        let measured = info.and_then(|info| info.srtt).map(Nanos::from);
        let fast_open = elapsed.filter(|&elapsed| is_fast_open(elapsed, measured));
        let Some(info) = info else {
            return Self {
                duration: fast_open,
                rtt: None,
                source: DurationSource::Observed,
                caveat: None,
                retransmits: None,
                lost: None,
                state,
                completed: true,
            };
        };
        let retransmits = retransmits(info);
        let exact = |duration, source| Self {
            duration,
            rtt: info.srtt,
            source,
            caveat: None,
            retransmits: Some(retransmits),
            lost: Some(retransmits > 0),
            state,
            completed: true,
        };
        if let Some(elapsed) = fast_open {
            return exact(Some(elapsed), DurationSource::Observed);
        }
        match (measured, retransmits) {
            (Some(_), 0) => {
                let caveat = if info.data_segments_received > 0 {
                    Some(HandshakeCaveat::FirstData)
                } else if info.srtt.is_some_and(|rtt| rtt.0 % 1000 == 0) {
                    Some(HandshakeCaveat::SynCookie)
                } else {
                    None
                };
                // The sample includes the client's wait for data, so it is no network round trip.
                let rtt = info.srtt.filter(|_| caveat != Some(HandshakeCaveat::FirstData));
                Self { rtt, caveat, ..exact(measured, DurationSource::Measured) }
            }
            // A sample below the first timeout covers only the last SYN-ACK. With a single retransmission the time
            // of that SYN-ACK follows from the schedule. With more it does not: a retransmitted SYN is answered
            // immediately, and the kernel counts that answer as a retransmission too.
            (Some(sample), retransmits) if sample < backoff::offset(1) => Self {
                duration: (retransmits == 1).then(|| backoff::offset(1).saturating_add(sample)),
                caveat: Some(HandshakeCaveat::RetransmitSchedule),
                ..exact(None, DurationSource::Modelled)
            },
            (Some(_), _) => Self {
                caveat: Some(HandshakeCaveat::SynAckRetransmitted),
                // Without the time of the first SYN-ACK the sample may be of the first one or of a later one.
                rtt: None,
                lost: None,
                ..exact(measured, DurationSource::Measured)
            },
            (None, 0) => exact(None, DurationSource::Measured),
            (None, retransmits) => Self {
                caveat: Some(HandshakeCaveat::RetransmitSchedule),
                ..exact((retransmits == 1).then(|| backoff::offset(1)), DurationSource::Modelled)
            },
        }
    }

    /// Returns whether the duration of this handshake replaces the observed time in `state`.
    ///
    /// True for a server's SYN_RECV.
    pub fn replaces(&self, state: TcpState) -> bool {
        self.completed && self.state == state && state == TcpState::SynReceived
    }
}

/// Returns whether the time in SYN_RECV was the wait for the final ACK, as it is with Fast Open.
///
/// A Fast Open child sends the SYN-ACK itself, so the kernel's sample covers the same wait. The kernel creates an
/// ordinary child after the wait, so its time in SYN_RECV is unrelated to the sample.
fn is_fast_open(elapsed: Nanos, sample: Option<Nanos>) -> bool {
    elapsed >= FAST_OPEN_MIN
        && sample
            .is_none_or(|sample| sample <= elapsed.saturating_add(CLOCK_GRAIN) && elapsed.0 / 2 <= sample.0)
}

/// Returns whether a segment of a handshake of this duration was lost; none when unknown.
///
/// After a retransmission the kernel's sample is from a TCP timestamp. If it covers the whole time, the peer's answer has
/// the timestamp of the first segment, so that one arrived: either the round trip takes longer than the timeout, or the
/// answer was lost. The answer to a retransmission has the first timestamp, too (`tcp_check_req`, 6.18 tcp_minisocks.c).
/// Otherwise the first segment was lost, and without timestamps that is assumed.
fn lost(info: &TcpInfo, duration: Nanos) -> Option<bool> {
    if info.retransmits == 0 {
        return Some(false);
    }
    // The segments are sent at least one timeout apart.
    let half = Nanos(backoff::offset(1).0 / 2);
    let covers = |sample: Micros| Nanos::from(sample).saturating_add(half) >= duration;
    if info.srtt.is_some_and(covers) { None } else { Some(true) }
}

/// Returns whether a segment was lost, without an answer that tells which segment arrived.
fn lost_without_answer(info: Option<&TcpInfo>) -> Option<bool> {
    info.filter(|info| info.retransmits == 0).map(|_| false)
}

fn retransmits(info: &TcpInfo) -> u8 {
    u8::try_from(info.retransmits).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(srtt: Option<u32>, retransmits: u32) -> TcpInfo {
        TcpInfo { retransmits, srtt: srtt.map(Micros), ..TcpInfo::default() }
    }

    #[test]
    fn a_server_handshake_is_the_kernels_sample() {
        let handshake = Handshake::passive(Some(Nanos(15_000)), Some(&info(Some(79_123), 0)));
        assert_eq!(handshake.duration, Some(Nanos(79_123_000)));
        assert_eq!((handshake.source, handshake.caveat), (DurationSource::Measured, None));
        assert!(handshake.replaces(TcpState::SynReceived));
        assert!(!handshake.replaces(TcpState::SynSent));
    }

    #[test]
    fn a_fast_open_handshake_is_observed() {
        let handshake = Handshake::passive(Some(Nanos(219_175_000)), Some(&info(Some(219_000), 0)));
        assert_eq!(
            (handshake.duration, handshake.source),
            (Some(Nanos(219_175_000)), DurationSource::Observed)
        );
    }

    #[test]
    fn a_delayed_child_is_not_taken_for_fast_open() {
        // Measured on an emulated CPU; the last pair is a CPU delay after a short round trip.
        for (elapsed, sample) in
            [(2_066_130, 6_637), (1_596_046, 12_803), (2_638_000, 2_785), (5_000_000, 218)]
        {
            let handshake = Handshake::passive(Some(Nanos(elapsed)), Some(&info(Some(sample), 0)));
            assert_eq!(handshake.duration, Some(Nanos::from(Micros(sample))));
            assert_eq!((handshake.source, handshake.caveat), (DurationSource::Measured, None));
        }
    }

    #[test]
    fn retransmitted_syn_acks_have_a_caveat_and_no_round_trip_time() {
        let timestamps = Handshake::passive(Some(Nanos(9_000)), Some(&info(Some(1_007_000), 1)));
        assert_eq!(timestamps.duration, Some(Nanos(1_007_000_000)));
        assert_eq!(timestamps.caveat, Some(HandshakeCaveat::SynAckRetransmitted));
        assert_eq!((timestamps.rtt, timestamps.retransmits), (None, Some(1)));

        let none = Handshake::passive(Some(Nanos(9_000)), Some(&info(None, 1)));
        assert_eq!((none.duration, none.source), (Some(Nanos(1_000_000_000)), DurationSource::Modelled));
        assert_eq!(none.caveat, Some(HandshakeCaveat::RetransmitSchedule));
    }

    #[test]
    fn an_answer_to_the_first_segment_proves_no_loss() {
        // The answer to the first segment, by its timestamp.
        let sampled = info(Some(1_200_000), 1);
        let client = Handshake::active(Nanos::from_millis(1_201), false, Some(&sampled));
        assert_eq!((client.lost, client.rtt), (None, None));
        let server = Handshake::passive(Some(Nanos(9_000)), Some(&sampled));
        assert_eq!((server.lost, server.rtt), (None, None));
        let exact = server.since_first_syn_ack(Nanos::from_millis(1_201), Some(&sampled));
        assert_eq!((exact.lost, exact.rtt), (None, None));
        // The same sample, but the second segment was answered.
        let client = Handshake::active(Nanos::from_millis(2_201), false, Some(&sampled));
        assert_eq!((client.lost, client.rtt), (Some(true), Some(Micros(1_200_000))));
        let exact = server.since_first_syn_ack(Nanos::from_millis(2_201), Some(&sampled));
        assert_eq!((exact.lost, exact.rtt), (Some(true), Some(Micros(1_200_000))));
    }

    #[test]
    fn without_an_answer_a_retransmission_proves_no_loss() {
        assert_eq!(lost_without_answer(Some(&info(None, 0))), Some(false));
        assert_eq!(lost_without_answer(Some(&info(None, 3))), None);
        let deferred = Handshake::active(Nanos::from_secs(5), true, Some(&info(None, 1)));
        assert_eq!((deferred.lost, deferred.duration), (None, None));
    }

    #[test]
    fn a_retransmission_without_a_timestamp_counts_as_a_loss() {
        let without = info(None, 1);
        let client = Handshake::active(Nanos::from_millis(1_201), false, Some(&without));
        let server = Handshake::passive(Some(Nanos(9_000)), Some(&without));
        let server_exact = server.since_first_syn_ack(Nanos::from_millis(1_201), Some(&without));
        assert_eq!([client.lost, server.lost, server_exact.lost], [Some(true); 3]);
        let none = Handshake::active(Nanos::from_millis(20), false, Some(&info(Some(20_000), 0)));
        assert_eq!(none.lost, Some(false));
    }

    #[test]
    fn a_sample_of_a_retransmission_is_not_the_whole_handshake() {
        let one = Handshake::passive(Some(Nanos(9_000)), Some(&info(Some(30_000), 1)));
        assert_eq!((one.duration, one.source), (Some(Nanos(1_030_000_000)), DurationSource::Modelled));
        assert_eq!((one.rtt, one.caveat), (Some(Micros(30_000)), Some(HandshakeCaveat::RetransmitSchedule)));
        // Two retransmissions may be scheduled ones or answers to retransmitted SYNs, so the duration is unknown.
        for sample in [Some(30_000), None] {
            let two = Handshake::passive(Some(Nanos(9_000)), Some(&info(sample, 2)));
            assert_eq!((two.duration, two.retransmits), (None, Some(2)));
            assert_eq!(two.caveat, Some(HandshakeCaveat::RetransmitSchedule));
        }
    }

    #[test]
    fn syn_cookie_handshakes_have_a_caveat_or_no_duration() {
        let timestamps = Handshake::passive(Some(Nanos(9_000)), Some(&info(Some(242_000), 0)));
        assert_eq!(timestamps.caveat, Some(HandshakeCaveat::SynCookie));
        let none = Handshake::passive(Some(Nanos(9_000)), Some(&info(None, 0)));
        assert_eq!(none.duration, None);
    }

    #[test]
    fn a_final_ack_with_data_has_a_caveat() {
        let with_data = TcpInfo { data_segments_received: 1, ..info(Some(300_123), 0) };
        let handshake = Handshake::passive(Some(Nanos(9_000)), Some(&with_data));
        assert_eq!(handshake.duration, Some(Nanos(300_123_000)));
        assert_eq!((handshake.caveat, handshake.rtt), (Some(HandshakeCaveat::FirstData), None));
    }

    #[test]
    fn a_server_handshake_is_unknown_without_kernel_statistics() {
        assert_eq!(Handshake::passive(Some(Nanos(15_000)), None).duration, None);
        assert_eq!(Handshake::passive(None, None).duration, None);
    }
}
