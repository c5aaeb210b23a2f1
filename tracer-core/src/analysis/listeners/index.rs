//! Finds the listener of a connection's local endpoint.

use hashbrown::HashMap;

use crate::{
    analysis::{ListenAddress, ListenerSnapshot},
    lifecycle::listening_endpoints,
};

/// The listeners of a dump by the address they listen on.
pub(super) struct ListenerIndex(HashMap<ListenAddress, ListenersAt, foldhash::fast::RandomState>);

/// The listeners on one address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ListenersAt {
    /// One, by its position in the dump.
    One(usize),
    /// Several (`SO_REUSEPORT`): the kernel distributes the connections among them.
    Several,
}

impl ListenerIndex {
    pub(super) fn new(listeners: &[ListenerSnapshot]) -> Self {
        let mut by_address = HashMap::<_, _, foldhash::fast::RandomState>::default();
        for (position, listener) in listeners.iter().enumerate() {
            by_address
                .entry((listener.netns, listener.local))
                .and_modify(|at| *at = ListenersAt::Several)
                .or_insert(ListenersAt::One(position));
        }
        Self(by_address)
    }

    pub(super) fn is_alone(&self, position: usize, listener: &ListenerSnapshot) -> bool {
        self.0.get(&(listener.netns, listener.local)) == Some(&ListenersAt::One(position))
    }

    /// Returns the position of the listener of a connection's local endpoint, if there is just one.
    pub(super) fn only_at(&self, (netns, local): ListenAddress) -> Option<usize> {
        match listening_endpoints(local).find_map(|endpoint| self.0.get(&(netns, endpoint)))? {
            ListenersAt::One(position) => Some(*position),
            ListenersAt::Several => None,
        }
    }
}
