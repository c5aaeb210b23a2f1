//! `struct tcp_info` of `include/uapi/linux/tcp.h`, which only ever grows at its end.

use tracer_core::event::{TcpInfo, TcpState};

use crate::sources::sock_diag::{
    netlink::{u32_at, u64_at},
    socket::{Activity, Sending},
};

/// What `tcp_info` says of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) info: TcpInfo,
    pub(super) activity: Option<Activity>,
    pub(super) sending: Sending,
}

/// Reads `bytes`, the attribute `INET_DIAG_INFO` of a socket in `state`, with the queues of the
/// message beside it.
///
/// `None` when the structure ends before `tcpi_bytes_retrans`, the last field needed (Linux 4.19).
pub(super) fn decode(bytes: &[u8], state: TcpState, rqueue: u32, wqueue: u32) -> Option<Decoded> {
    let bytes_sent = u64_at(bytes, 200)?;
    let bytes_retransmitted = u64_at(bytes, 208)?;
    let info = TcpInfo {
        // The kernel counts each resend again.
        bytes_sent: bytes_sent.saturating_sub(bytes_retransmitted),
        bytes_received: u64_at(bytes, 128)?,
        segments_sent: u32_at(bytes, 136)?,
        segments_received: u32_at(bytes, 140)?,
        data_segments_received: u32_at(bytes, 152)?,
        retransmits: u32_at(bytes, 100)?,
        srtt_us: Some(u32_at(bytes, 68)?).filter(|&srtt| srtt != 0),
        min_rtt_us: Some(u32_at(bytes, 148)?).filter(|&rtt| rtt != u32::MAX),
        mss: u32_at(bytes, 16)?,
        user_timeout_ms: None,
        unacked_bytes: wqueue,
        unread_bytes: rqueue,
        segments_in_flight: u32_at(bytes, 24)?,
        pending_retransmits: *bytes.get(2)?,
        probes: *bytes.get(3)?,
        soft_error: 0,
    };
    let sending = Sending {
        not_sent_bytes: u32_at(bytes, 144)?,
        peer_window: u32_at(bytes, 228),
        rto_us: u32_at(bytes, 8)?,
        backoff: *bytes.get(4)?,
        busy_us: u64_at(bytes, 168)?,
        window_limited_us: u64_at(bytes, 176)?,
        buffer_limited_us: u64_at(bytes, 184)?,
    };
    Some(Decoded { info, activity: activity(bytes, state), sending })
}

/// Before `ESTABLISHED` the kernel has not set these times, and they would count from boot.
fn activity(bytes: &[u8], state: TcpState) -> Option<Activity> {
    match state {
        TcpState::SynSent | TcpState::SynReceived | TcpState::Closed | TcpState::Listen => None,
        _ => Some(Activity {
            data_sent_ms: u32_at(bytes, 44)?,
            data_received_ms: u32_at(bytes, 52)?,
            ack_received_ms: u32_at(bytes, 56)?,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `u32` of it says where it is.
    fn numbered(length: u32) -> Vec<u8> {
        (0..length / 4).flat_map(|word| (word * 4).to_ne_bytes()).collect()
    }

    #[test]
    fn the_least_length_is_that_of_4_19() {
        assert_eq!(decode(&numbered(212), TcpState::Established, 0, 0), None);
        let decoded = decode(&numbered(216), TcpState::Established, 5, 6).unwrap();
        assert_eq!(decoded.sending.peer_window, None);
        assert_eq!(decoded.info.segments_sent, 136);
        assert_eq!(decoded.info.segments_received, 140);
        assert_eq!(decoded.info.retransmits, 100);
        assert_eq!(decoded.info.srtt_us, Some(68));
        assert_eq!(decoded.info.min_rtt_us, Some(148));
        assert_eq!(decoded.info.mss, 16);
        assert_eq!(decoded.info.segments_in_flight, 24);
        assert_eq!(decoded.info.unread_bytes, 5);
        assert_eq!(decoded.info.unacked_bytes, 6);
        assert_eq!(decoded.sending.not_sent_bytes, 144);
        assert_eq!(decoded.sending.rto_us, 8);
        let expected = Activity { data_sent_ms: 44, data_received_ms: 52, ack_received_ms: 56 };
        assert_eq!(decoded.activity, Some(expected));
        assert_eq!(expected.idle_ms(), 44);
    }

    #[test]
    fn fields_of_later_kernels_do_not_disturb() {
        let decoded = decode(&numbered(400), TcpState::Established, 0, 0).unwrap();
        assert_eq!(decoded.sending.peer_window, Some(228));
    }

    #[test]
    fn resends_are_not_counted_as_sent() {
        let mut bytes = numbered(232);
        bytes[200..208].copy_from_slice(&5_000_000_000u64.to_ne_bytes());
        bytes[208..216].copy_from_slice(&1_000u64.to_ne_bytes());
        let decoded = decode(&bytes, TcpState::Established, 0, 0).unwrap();
        assert_eq!(decoded.info.bytes_sent, 4_999_999_000);
    }

    #[test]
    fn no_sample_is_no_value() {
        let mut bytes = numbered(232);
        bytes[68..72].fill(0);
        bytes[148..152].fill(0xff);
        let decoded = decode(&bytes, TcpState::SynSent, 0, 0).unwrap();
        assert_eq!(decoded.info.srtt_us, None);
        assert_eq!(decoded.info.min_rtt_us, None);
        assert_eq!(decoded.activity, None);
    }
}
