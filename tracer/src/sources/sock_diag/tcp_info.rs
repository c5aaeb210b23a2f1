//! Decodes `struct tcp_info` of `include/uapi/linux/tcp.h`. New kernel versions add fields only at its end.

use tracer_core::event::{Micros, Millis, TcpInfo, TcpState};

use crate::sources::sock_diag::{
    netlink::{u32_at, u64_at},
    socket::{own_syn_or_fin, peer_fin},
};

/// The decoded fields of `tcp_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) info: TcpInfo,
    pub(super) since_ack: Option<Millis>,
    pub(super) rto: Micros,
}

/// Decodes the attribute `INET_DIAG_INFO` of a socket in `state`, together with the queues of the same message.
///
/// Returns `None` when the structure ends before `tcpi_bytes_retrans`, the last field that is read (Linux 4.19).
pub(super) fn decode(bytes: &[u8], state: TcpState, rqueue: u32, wqueue: u32) -> Option<Decoded> {
    let bytes_sent = u64_at(bytes, 200)?;
    let bytes_retransmitted = u64_at(bytes, 208)?;
    let info = TcpInfo {
        // The kernel counts retransmitted bytes again.
        bytes_sent: bytes_sent.saturating_sub(bytes_retransmitted),
        bytes_received: u64_at(bytes, 128)?.saturating_sub(peer_fin(state).into()),
        segments_sent: u32_at(bytes, 136)?,
        segments_received: u32_at(bytes, 140)?,
        data_segments_received: u32_at(bytes, 152)?,
        retransmits: u32_at(bytes, 100)?,
        srtt: Some(Micros(u32_at(bytes, 68)?)).filter(|&srtt| srtt != Micros(0)),
        min_rtt: Some(Micros(u32_at(bytes, 148)?)).filter(|&rtt| rtt != Micros(u32::MAX)),
        mss: u32_at(bytes, 16)?,
        user_timeout: None,
        unacked_bytes: wqueue.saturating_sub(own_syn_or_fin(state)),
        unread_bytes: rqueue.saturating_sub(peer_fin(state)),
        segments_in_flight: u32_at(bytes, 24)?,
        pending_retransmits: *bytes.get(2)?,
        probes: *bytes.get(3)?,
        soft_error: 0,
    };
    let since_ack = match state {
        // Before `ESTABLISHED` the kernel has not set the time, and the value counts from boot.
        TcpState::SynSent | TcpState::SynReceived | TcpState::Closed | TcpState::Listen => None,
        _ => Some(Millis(u32_at(bytes, 56)?)),
    };
    Some(Decoded { info, since_ack, rto: Micros(u32_at(bytes, 8)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A structure in which the value of every `u32` is its offset.
    fn numbered(length: u32) -> Vec<u8> {
        (0..length / 4).flat_map(|word| (word * 4).to_ne_bytes()).collect()
    }

    #[test]
    fn the_minimum_length_is_that_of_4_19() {
        assert_eq!(decode(&numbered(212), TcpState::Established, 0, 0), None);
        let decoded = decode(&numbered(216), TcpState::Established, 5, 6).unwrap();
        assert_eq!(decoded.info.segments_sent, 136);
        assert_eq!(decoded.info.segments_received, 140);
        assert_eq!(decoded.info.retransmits, 100);
        assert_eq!(decoded.info.srtt, Some(Micros(68)));
        assert_eq!(decoded.info.min_rtt, Some(Micros(148)));
        assert_eq!(decoded.info.mss, 16);
        assert_eq!(decoded.info.segments_in_flight, 24);
        assert_eq!(decoded.info.unread_bytes, 5);
        assert_eq!(decoded.info.unacked_bytes, 6);
        assert_eq!((decoded.since_ack, decoded.rto), (Some(Millis(56)), Micros(8)));
        assert_eq!(decode(&numbered(400), TcpState::Established, 5, 6), Some(decoded), "a later kernel");
    }

    #[test]
    fn retransmitted_bytes_are_not_counted_twice() {
        let mut bytes = numbered(232);
        bytes[200..208].copy_from_slice(&5_000_000_000u64.to_ne_bytes());
        bytes[208..216].copy_from_slice(&1_000u64.to_ne_bytes());
        let decoded = decode(&bytes, TcpState::Established, 0, 0).unwrap();
        assert_eq!(decoded.info.bytes_sent, 4_999_999_000);
    }

    #[test]
    fn the_segments_that_open_and_close_are_no_bytes() {
        let mut bytes = numbered(232);
        bytes[128..136].copy_from_slice(&1_001u64.to_ne_bytes());
        let of = |state| {
            let info = decode(&bytes, state, 11, 21).unwrap().info;
            (info.bytes_received, info.unread_bytes, info.unacked_bytes)
        };
        assert_eq!(of(TcpState::Established), (1001, 11, 21));
        assert_eq!(of(TcpState::CloseWait), (1000, 10, 21));
        assert_eq!(of(TcpState::FinWait1), (1001, 11, 20));
        assert_eq!(of(TcpState::LastAck), (1000, 10, 20));
    }

    #[test]
    fn without_a_sample_there_is_no_value() {
        let mut bytes = numbered(232);
        bytes[68..72].fill(0);
        bytes[148..152].fill(0xff);
        let decoded = decode(&bytes, TcpState::SynSent, 0, 0).unwrap();
        assert_eq!(decoded.info.srtt, None);
        assert_eq!(decoded.info.min_rtt, None);
        assert_eq!(decoded.since_ack, None);
    }
}
