//! The fields that a source reads from a kernel socket.

use super::{Micros, Millis};

/// The kernel's connection statistics (`struct tcp_sock`), read at a transition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Payload bytes sent, without retransmissions.
    pub bytes_sent: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Segments sent.
    pub segments_sent: u32,
    /// Segments received.
    pub segments_received: u32,
    /// Segments with payload received. When a server's socket becomes ESTABLISHED, a value above 0 means that
    /// the final ACK of the handshake carried data.
    pub data_segments_received: u32,
    /// Segments retransmitted over the lifetime of the connection, including SYN and SYN-ACK.
    pub retransmits: u32,
    /// Smoothed round-trip time; none without a sample.
    pub srtt: Option<Micros>,
    /// Minimum round-trip time; none without a sample.
    pub min_rtt: Option<Micros>,
    /// Maximum segment size in use, bytes.
    pub mss: u32,
    /// `TCP_USER_TIMEOUT`; none if the application set none.
    pub user_timeout: Option<Millis>,
    /// Bytes that the application wrote and the peer has not acknowledged.
    pub unacked_bytes: u32,
    /// Bytes received that the application has not read.
    pub unread_bytes: u32,
    /// Segments in flight.
    pub segments_in_flight: u32,
    /// Retransmissions of the oldest unacknowledged segment (`icsk_retransmits`).
    pub pending_retransmits: u8,
    /// Unanswered keepalive or zero-window probes (`icsk_probes_out`).
    pub probes: u8,
    /// The last ICMP error that did not close the connection, an errno; 0 for none.
    pub soft_error: u16,
}

/// Flags of a socket, read when it enters ESTABLISHED or CLOSE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketFlags {
    /// `sk_err`, an errno; 0 for none.
    pub error: u16,
    /// `sk_shutdown`: the application shut down receiving.
    pub shutdown_receive: bool,
    /// `sk_shutdown`: the application shut down sending.
    pub shutdown_send: bool,
    /// The peer's FIN was received.
    pub peer_fin: bool,
    /// `SO_LINGER` with a timeout of 0 is set: `close()` sends a reset.
    pub linger_zero: bool,
    /// An application holds the socket (`sk_socket` is set): it is neither waiting for `accept()` nor orphaned.
    pub attached: bool,
    /// `TCP_REPAIR` is set (checkpoint and restore): no segment was sent or received for the transition.
    pub repair: bool,
    /// At FIN_WAIT1→CLOSE and FIN_WAIT2→CLOSE: `TCP_LINGER2` is negative, so the kernel resets the connection instead of
    /// waiting in FIN_WAIT2.
    pub linger2_negative: bool,
    /// At SYN_SENT→ESTABLISHED and SYN_SENT→CLOSE: `connect()` sent no SYN (`TCP_FASTOPEN_CONNECT`). The SYN left at the
    /// first write, or not at all.
    pub fast_open_deferred: bool,
}

/// The accept queue of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections waiting for `accept()`.
    pub length: u32,
    /// The limit of the queue: the backlog of `listen()`, capped by `somaxconn`.
    pub limit: u32,
}
