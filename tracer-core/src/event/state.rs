//! The TCP states of RFC 9293, section 3.3.2, with the numbers and names of Linux.

/// The numbers of the kernel (`include/net/tcp_states.h`).
mod kernel {
    pub(super) const ESTABLISHED: u8 = 1;
    pub(super) const SYN_SENT: u8 = 2;
    pub(super) const SYN_RECV: u8 = 3;
    pub(super) const FIN_WAIT1: u8 = 4;
    pub(super) const FIN_WAIT2: u8 = 5;
    pub(super) const TIME_WAIT: u8 = 6;
    pub(super) const CLOSE: u8 = 7;
    pub(super) const CLOSE_WAIT: u8 = 8;
    pub(super) const LAST_ACK: u8 = 9;
    pub(super) const LISTEN: u8 = 10;
    pub(super) const CLOSING: u8 = 11;
}

/// A TCP state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// The connection is open for data.
    Established = kernel::ESTABLISHED,
    /// The client sent its SYN.
    SynSent = kernel::SYN_SENT,
    /// The server answered a SYN and waits for the final ACK. The kernel creates the socket when that ACK arrives, so
    /// the tracepoint shows only microseconds in this state.
    SynReceived = kernel::SYN_RECV,
    /// The local side closed first; its FIN is not acknowledged.
    FinWait1 = kernel::FIN_WAIT1,
    /// The local FIN is acknowledged; the peer has not closed.
    FinWait2 = kernel::FIN_WAIT2,
    /// Both sides closed; late segments expire. Never seen in the tracepoint.
    TimeWait = kernel::TIME_WAIT,
    /// No connection.
    Closed = kernel::CLOSE,
    /// The peer closed; the local application has not.
    CloseWait = kernel::CLOSE_WAIT,
    /// The local side closed after the peer; its FIN is not acknowledged.
    LastAck = kernel::LAST_ACK,
    /// The socket accepts connections.
    Listen = kernel::LISTEN,
    /// Both sides closed at the same time; the local FIN is not acknowledged.
    Closing = kernel::CLOSING,
}

impl TcpState {
    /// All states, in the order of a connection's lifecycle.
    pub const ALL: [Self; 11] = [
        Self::Closed,
        Self::Listen,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
    ];

    /// Returns the state with the kernel's number (`include/net/tcp_states.h`), or `None` for numbers that no full
    /// socket has.
    pub const fn from_kernel(number: u8) -> Option<Self> {
        Some(match number {
            kernel::ESTABLISHED => Self::Established,
            kernel::SYN_SENT => Self::SynSent,
            kernel::SYN_RECV => Self::SynReceived,
            kernel::FIN_WAIT1 => Self::FinWait1,
            kernel::FIN_WAIT2 => Self::FinWait2,
            kernel::TIME_WAIT => Self::TimeWait,
            kernel::CLOSE => Self::Closed,
            kernel::CLOSE_WAIT => Self::CloseWait,
            kernel::LAST_ACK => Self::LastAck,
            kernel::LISTEN => Self::Listen,
            kernel::CLOSING => Self::Closing,
            _ => return None,
        })
    }

    /// Returns the name in machine output: OpenTelemetry's `network.connection.state`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Listen => "listen",
            Self::SynSent => "syn_sent",
            Self::SynReceived => "syn_received",
            Self::Established => "established",
            Self::FinWait1 => "fin_wait_1",
            Self::FinWait2 => "fin_wait_2",
            Self::CloseWait => "close_wait",
            Self::Closing => "closing",
            Self::LastAck => "last_ack",
            Self::TimeWait => "time_wait",
        }
    }

    /// Returns the name in tables: the kernel's, as in `/proc/net/tcp` tools and tcpstates.
    pub const fn kernel_name(self) -> &'static str {
        match self {
            Self::Closed => "CLOSE",
            Self::Listen => "LISTEN",
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::CloseWait => "CLOSE_WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
        }
    }

    /// Parses either name in any case, and the common variants without underscores or with dashes.
    pub fn parse(text: &str) -> Option<Self> {
        let normalized = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
        let wanted = normalized(text);
        Self::ALL
            .into_iter()
            .find(|state| normalized(state.name()) == wanted || normalized(state.kernel_name()) == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_numbers_of_the_kernel() {
        for state in TcpState::ALL {
            assert_eq!(TcpState::from_kernel(state as u8), Some(state));
        }
        for number in [0, 12, 13, 14, 255] {
            assert_eq!(TcpState::from_kernel(number), None, "{number}");
        }
    }

    #[test]
    fn both_names_are_parsed() {
        for state in TcpState::ALL {
            assert_eq!(TcpState::parse(state.name()), Some(state));
            assert_eq!(TcpState::parse(state.kernel_name()), Some(state));
            assert_eq!(TcpState::parse(&state.name().to_uppercase()), Some(state));
        }
        assert_eq!(TcpState::parse("syn-recv"), Some(TcpState::SynReceived));
        assert_eq!(TcpState::parse("fin-wait-1"), Some(TcpState::FinWait1));
        assert_eq!(TcpState::parse("open"), None);
    }
}
