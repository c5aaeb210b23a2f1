//! Drops the duplicates among the records of the twin program. The others are recovered transitions.
//!
//! The twin program records a transition whenever it cannot tell that the first program has recorded it
//! (`tracer-ebpf/src/programs/receipt.rs`). A record of the twin is a duplicate if the previous transition of the same
//! socket has the same two states. So the source remembers the recent transitions of all sockets. Remembering one costs
//! three stores and no search; only a record of the twin is looked up.

use tracer_core::event::{SocketId, TcpState, Transition};

/// Transitions that are remembered, a power of two. An interrupt's whole batch, on every CPU at once, is a small part
/// of it.
const REMEMBERED: usize = 1 << 16;

/// Chains of transitions that share a part of their sockets' ids, a power of two.
const CHAINS: usize = 1 << 14;

/// The recent transitions of all sockets.
#[derive(Debug)]
pub(super) struct RecentTransitions {
    /// A ring, indexed by the low bits of a transition's number.
    ring: Box<[Recent]>,
    /// The number of the latest transition of each chain.
    latest: Box<[u32]>,
    /// The number of the next transition. It wraps around.
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct Recent {
    socket: SocketId,
    /// The number of the transition before it in its chain.
    before: u32,
    from: TcpState,
    to: TcpState,
}

impl RecentTransitions {
    /// Remembers none.
    pub(super) fn new() -> Self {
        let none = Recent { socket: SocketId(0), before: 0, from: TcpState::Closed, to: TcpState::Closed };
        // Numbers that are too long ago: the first transition has the number `REMEMBERED`.
        let next = u32::try_from(REMEMBERED).unwrap_or_default() + 1;
        Self {
            ring: vec![none; REMEMBERED].into_boxed_slice(),
            latest: vec![0; CHAINS].into_boxed_slice(),
            next,
        }
    }

    /// Remembers a transition. Returns false, and forgets it, if the twin program recorded it and it is a duplicate.
    #[inline]
    pub(super) fn admit(&mut self, transition: &Transition, by_twin: bool) -> bool {
        let Transition { socket, from, to, .. } = *transition;
        // The ids are products with a random factor: their high bits are well mixed.
        let chain = usize::try_from(socket.0 >> (64 - CHAINS.trailing_zeros())).unwrap_or_default();
        let before = self.latest[chain];
        if by_twin && self.previous(before, socket) == Some((from, to)) {
            return false;
        }
        self.ring[self.next as usize % REMEMBERED] = Recent { socket, before, from, to };
        self.latest[chain] = self.next;
        self.next = self.next.wrapping_add(1);
        true
    }

    /// The states of the latest transition of a socket, searching a chain from this number on.
    fn previous(&self, mut number: u32, socket: SocketId) -> Option<(TcpState, TcpState)> {
        let mut age = self.next.wrapping_sub(number);
        while age as usize <= REMEMBERED {
            let recent = &self.ring[number as usize % REMEMBERED];
            if recent.socket == socket {
                return Some((recent.from, recent.to));
            }
            number = recent.before;
            let older = self.next.wrapping_sub(number);
            if older <= age {
                // The number has wrapped around.
                return None;
            }
            age = older;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_core::event::{Endpoint, Timestamp};

    fn transition(socket: u64, from: TcpState, to: TcpState) -> Transition {
        let nowhere = Endpoint { address: std::net::Ipv4Addr::UNSPECIFIED.into(), port: 0 };
        Transition {
            time: Timestamp(1),
            // All in one chain.
            socket: SocketId(socket),
            cookie: None,
            from,
            to,
            local: nowhere,
            remote: nowhere,
            process: None,
            thread: None,
            netns: None,
            cgroup_id: None,
            accept_queue: None,
            data_segments: None,
            unaccepted_segments: None,
            interface: None,
            transparent: false,
            defer_accept: false,
            flags: None,
            info: None,
            sequences: None,
        }
    }

    const CONNECTING: (TcpState, TcpState) = (TcpState::Closed, TcpState::SynSent);
    const CONNECTED: (TcpState, TcpState) = (TcpState::SynSent, TcpState::Established);

    #[test]
    fn only_the_twins_repetition_of_a_sockets_previous_transition_is_a_duplicate() {
        let mut recent = RecentTransitions::new();
        let mut admit = |socket, (from, to), by_twin| recent.admit(&transition(socket, from, to), by_twin);
        assert!(admit(1, CONNECTING, true), "the first of a socket");
        assert!(!admit(1, CONNECTING, true), "again");
        assert!(admit(2, CONNECTING, true), "of another socket");
        assert!(!admit(1, CONNECTING, true), "again, with another socket's in between");
        assert!(admit(1, CONNECTING, false), "by the first program");
        assert!(admit(1, CONNECTED, false));
        assert!(!admit(1, CONNECTED, true));
        assert!(admit(1, CONNECTING, true), "not the previous transition");
    }

    #[test]
    fn old_transitions_are_forgotten() {
        let mut recent = RecentTransitions::new();
        // Across the point where the numbers wrap around, too.
        recent.next = 0_u32.wrapping_sub(u32::try_from(REMEMBERED).unwrap() / 2);
        recent.latest.fill(recent.next.wrapping_sub(u32::try_from(REMEMBERED).unwrap() + 1));
        let mut admit =
            |socket, by_twin| recent.admit(&transition(socket, CONNECTING.0, CONNECTING.1), by_twin);
        assert!(admit(1, false));
        for _ in 1..REMEMBERED {
            assert!(admit(2, false));
        }
        assert!(!admit(1, true), "the oldest");
        assert!(admit(2, false));
        assert!(admit(1, true), "older than what is remembered");
        assert!(!admit(1, true));
    }
}
