//! The kernel's own figures of a connection.

/// The kernel's own account of a connection (`struct tcp_sock`), read at one of its transitions.
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
    /// Segments with payload received; at ESTABLISHED of a server more than none means that the final
    /// ACK of the handshake came with data.
    pub data_segments_received: u32,
    /// Segments sent again over the whole life, SYN and SYN-ACK included.
    pub retransmits: u32,
    /// Smoothed round-trip time, microseconds, when there was a sample.
    pub srtt_us: Option<u32>,
    /// Minimum round-trip time, microseconds, when there was a sample.
    pub min_rtt_us: Option<u32>,
    /// Maximum segment size in use, bytes.
    pub mss: u32,
    /// `TCP_USER_TIMEOUT`, milliseconds, when the application set one.
    pub user_timeout_ms: Option<u32>,
    /// Bytes written by the application and not yet acknowledged.
    pub unacked_bytes: u32,
    /// Bytes received and not yet read by the application.
    pub unread_bytes: u32,
    /// Segments in flight.
    pub segments_in_flight: u32,
    /// Resends of the segment that now waits for its acknowledgement (`icsk_retransmits`).
    pub pending_retransmits: u8,
    /// Keepalive or zero-window probes unanswered (`icsk_probes_out`).
    pub probes: u8,
    /// An ICMP error that was noted but did not end the connection, an errno; 0 for none.
    pub soft_error: u16,
}

/// What only the socket itself knows, read when it becomes ESTABLISHED or CLOSE.
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
    /// `SO_LINGER` with a time of 0 is set: `close()` sends a reset.
    pub linger_zero: bool,
    /// An application still holds, or ever held, a descriptor of the socket.
    pub attached: bool,
}

/// The queue of connections waiting for `accept()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections waiting.
    pub length: u32,
    /// The most that may wait: the backlog of `listen()`, capped by `somaxconn`.
    pub limit: u32,
}
