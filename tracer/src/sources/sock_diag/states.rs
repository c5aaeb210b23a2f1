//! A set of TCP states, which selects the sockets of a dump.

use tracer_core::event::TcpState;

/// A set of TCP states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateSet(u16);

impl StateSet {
    /// Every state.
    pub const ALL: Self = Self(0b1111_1111_1110);
    /// No state.
    pub const NONE: Self = Self(0);

    /// Returns this set with `state`.
    #[must_use]
    pub const fn with(self, state: TcpState) -> Self {
        Self(self.0 | 1 << state as u8)
    }

    /// Returns whether the set contains `state`.
    pub const fn contains(self, state: TcpState) -> bool {
        self.0 & 1 << state as u8 != 0
    }

    /// Returns the value of `idiag_states` in a request (`1 << state`). The kernel adds request sockets to `SYN_RECV`.
    pub(super) fn mask(self) -> u32 {
        u32::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_contains_the_added_states() {
        let set = StateSet::NONE.with(TcpState::Listen).with(TcpState::TimeWait);
        assert_eq!(set.mask(), 1 << 10 | 1 << 6);
        for state in TcpState::ALL {
            assert_eq!(set.contains(state), matches!(state, TcpState::Listen | TcpState::TimeWait));
            assert!(StateSet::ALL.contains(state));
            assert!(!StateSet::NONE.contains(state));
        }
        assert_eq!(TcpState::ALL.into_iter().fold(StateSet::NONE, StateSet::with), StateSet::ALL);
    }
}
