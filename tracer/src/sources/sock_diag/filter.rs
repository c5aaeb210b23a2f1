//! Which sockets a dump lists.

use tracer_core::event::TcpState;

use crate::sources::sock_diag::socket::SocketSnapshot;

/// A set of TCP states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSet(u16);

impl StateSet {
    /// Every state.
    pub const ALL: Self = Self(0b1111_1111_1110);
    /// No state.
    pub const NONE: Self = Self(0);

    /// This set and `state`.
    #[must_use]
    pub const fn with(self, state: TcpState) -> Self {
        Self(self.0 | 1 << state as u8)
    }

    /// Whether `state` is in it.
    pub const fn contains(self, state: TcpState) -> bool {
        self.0 & 1 << state as u8 != 0
    }

    /// As `idiag_states` of the request wants it (`1 << state`). The kernel adds half-open requests
    /// to `SYN_RECV` itself.
    pub(super) fn mask(self) -> u32 {
        u32::from(self.0)
    }
}

impl FromIterator<TcpState> for StateSet {
    fn from_iter<I: IntoIterator<Item = TcpState>>(states: I) -> Self {
        states.into_iter().fold(Self::NONE, Self::with)
    }
}

/// Which sockets a dump lists. The default is all of them.
///
/// States and ports are sorted out in the kernel, so that a narrow filter also costs less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The states wanted. A timewait mini-socket counts as the state it stands for.
    pub states: StateSet,
    /// Sockets whose local address is IPv4, v4-mapped ones included.
    pub ipv4: bool,
    /// Sockets whose local address is IPv6. A listener on `::` is one even if it takes IPv4 too.
    pub ipv6: bool,
    /// Only this local port.
    pub local_port: Option<u16>,
    /// Only this remote port. Listeners have none and are left out then.
    pub remote_port: Option<u16>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { states: StateSet::ALL, ipv4: true, ipv6: true, local_port: None, remote_port: None }
    }
}

impl Filter {
    /// Whether the filter wants the socket.
    ///
    /// The kernel asks most of this already, but of the state it asks before it describes the
    /// socket, which may have moved on in between.
    pub(super) fn matches(&self, socket: &SocketSnapshot) -> bool {
        let wanted = if socket.local.address.is_ipv4() { self.ipv4 } else { self.ipv6 };
        wanted
            && self.states.contains(socket.state)
            && self.local_port.is_none_or(|port| port == socket.local.port)
            && self.remote_port.is_none_or(|port| port == socket.remote.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: StateSet = [TcpState::Listen, TcpState::TimeWait].into_iter().collect();
        assert_eq!(set.mask(), 1 << 10 | 1 << 6);
        for state in TcpState::ALL {
            assert_eq!(set.contains(state), matches!(state, TcpState::Listen | TcpState::TimeWait));
            assert!(StateSet::ALL.contains(state));
            assert!(!StateSet::NONE.contains(state));
        }
        assert_eq!(TcpState::ALL.into_iter().collect::<StateSet>(), StateSet::ALL);
    }
}
