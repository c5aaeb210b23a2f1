//! The drops of listening ports, counted from one listener dump to the next.

use std::cmp::Reverse;

use hashbrown::HashMap;
use tracer_core::event::SocketCookie;

/// Most ports that have a count.
const MAX_PORTS: usize = 100;
/// Most listeners whose drops are remembered until the next dump.
const MAX_LISTENERS: usize = 65_536;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Counts what the listeners of one network namespace drop, by port.
///
/// The kernel counts for each socket, from its creation (`sk_drops`, which sock_diag reports as `SK_MEMINFO_DROPS`:
/// `sk_get_meminfo`, net/core/sock.c). The count of a port is the sum of what its listeners' counts increased by between
/// two dumps. It therefore never decreases when a listener closes, and another one begins with 0.
///
/// - The first dump is the baseline: earlier drops do not count.
/// - A listener that the previous dumps lacked began after them: all its drops count.
/// - What a listener drops between the last dump and its end is unknown and not counted.
#[derive(Debug, Default)]
pub struct PortDropCounter {
    listeners: Map<SocketCookie, Listener>,
    ports: Map<u16, Port>,
    /// The number of the current dump.
    dump: u64,
    /// The previous dump was complete, so a listener that it lacked is new.
    knows_all: bool,
    /// Listeners that the current dump found beyond the limit.
    beyond: u64,
    overflow: u64,
}

#[derive(Clone, Copy, Debug)]
struct Listener {
    /// Its own count, which wraps.
    drops: u32,
    dump: u64,
}

#[derive(Clone, Copy, Debug)]
struct Port {
    drops: u64,
    /// The last dump that found a listener.
    dump: u64,
}

impl PortDropCounter {
    /// Starts a dump.
    pub fn begin(&mut self) {
        self.dump += 1;
        self.beyond = 0;
    }

    /// Adds a listener with its own count of drops. The last of several reports in a dump counts.
    pub fn see(&mut self, cookie: SocketCookie, port: u16, drops: u32) {
        let dump = self.dump;
        let count = self.ports.entry(port).or_insert(Port { drops: 0, dump });
        count.dump = dump;
        if let Some(listener) = self.listeners.get_mut(&cookie) {
            // The kernel never resets the count of a socket. A lower one is not taken for 2^32 drops.
            let increase = drops.wrapping_sub(listener.drops);
            count.drops += u64::from(if increase < 1 << 31 { increase } else { 0 });
            *listener = Listener { drops, dump };
        } else if self.listeners.len() < MAX_LISTENERS {
            if self.knows_all {
                count.drops += u64::from(drops);
            }
            self.listeners.insert(cookie, Listener { drops, dump });
        } else {
            self.beyond += 1;
        }
    }

    /// Ends a dump. Drops and counts the ports beyond the limit. Call it after an incomplete dump, too.
    pub fn end(&mut self, is_complete: bool) {
        let dump = self.dump;
        self.knows_all = is_complete && self.beyond == 0;
        self.overflow += self.beyond;
        if is_complete {
            // A dump may miss a listener beside one that closes. Only the second dump in a row that lacks it is the proof.
            self.listeners.retain(|_, listener| listener.dump + 1 >= dump);
            self.ports.retain(|_, port| port.drops > 0 || port.dump + 1 >= dump);
        }
        let Some(over) = self.ports.len().checked_sub(MAX_PORTS).filter(|over| *over > 0) else { return };
        let mut ports: Vec<_> = self.ports.iter().map(|(number, port)| (*number, *port)).collect();
        // First those that drop nothing, then those without a listener, then those with the fewest drops; among equals
        // the highest port, so that the selection is stable.
        ports.sort_unstable_by_key(|(number, port)| {
            (port.drops > 0, port.dump == dump, port.drops, Reverse(*number))
        });
        for (number, _) in ports.into_iter().take(over) {
            self.ports.remove(&number);
        }
        self.overflow += over as u64;
    }

    /// Copies the counts.
    pub fn copy(&self) -> PortDrops {
        let mut ports: Vec<_> = self.ports.iter().map(|(number, port)| (*number, port.drops)).collect();
        ports.sort_unstable();
        PortDrops { ports, overflow: self.overflow }
    }
}

/// A copy of the counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortDrops {
    /// The ports in ascending order, with the drops of their listeners.
    pub(crate) ports: Vec<(u16, u64)>,
    /// How many ports and listeners exceeded the limits.
    pub(super) overflow: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dumps listeners, each with its cookie, port and count.
    fn dump(
        counter: &mut PortDropCounter,
        listeners: &[(u64, u16, u32)],
        is_complete: bool,
    ) -> Vec<(u16, u64)> {
        counter.begin();
        for &(cookie, port, drops) in listeners {
            counter.see(SocketCookie(cookie), port, drops);
        }
        counter.end(is_complete);
        counter.copy().ports
    }

    #[test]
    fn increases_after_the_first_dump_count() {
        let counter = &mut PortDropCounter::default();
        assert_eq!(dump(counter, &[(1, 80, 500), (2, 80, 7), (3, 443, 0)], true), [(80, 0), (443, 0)]);
        assert_eq!(dump(counter, &[(1, 80, 510), (2, 80, 8), (3, 443, 0)], true), [(80, 11), (443, 0)]);
        assert_eq!(dump(counter, &[(1, 80, 510), (2, 80, 8), (3, 443, 2)], true), [(80, 11), (443, 2)]);
    }

    #[test]
    fn a_port_keeps_its_count_when_its_listener_is_replaced() {
        let counter = &mut PortDropCounter::default();
        dump(counter, &[(1, 80, 0)], true);
        assert_eq!(dump(counter, &[(1, 80, 9)], true), [(80, 9)]);
        for _ in 0..3 {
            assert_eq!(dump(counter, &[], true), [(80, 9)]);
        }
        assert_eq!(dump(counter, &[(2, 80, 0)], true), [(80, 9)]);
        assert_eq!(dump(counter, &[(2, 80, 4)], true), [(80, 13)]);
        // It began and dropped between two dumps.
        assert_eq!(dump(counter, &[(3, 80, 5)], true), [(80, 18)]);
    }

    #[test]
    fn a_port_without_drops_ends_with_its_listener() {
        let counter = &mut PortDropCounter::default();
        assert_eq!(dump(counter, &[(1, 80, 3)], true), [(80, 0)]);
        assert_eq!(dump(counter, &[], true), [(80, 0)], "one dump may miss it");
        assert_eq!(dump(counter, &[], true), []);
    }

    #[test]
    fn a_listener_that_a_dump_misses_is_not_counted_again() {
        let counter = &mut PortDropCounter::default();
        dump(counter, &[(1, 80, 100)], true);
        dump(counter, &[], true);
        assert_eq!(dump(counter, &[(1, 80, 101)], true), [(80, 1)]);
        for _ in 0..3 {
            dump(counter, &[], false);
        }
        assert_eq!(dump(counter, &[(1, 80, 102)], true), [(80, 2)]);
    }

    #[test]
    fn an_incomplete_dump_proves_no_listener_new() {
        let counter = &mut PortDropCounter::default();
        dump(counter, &[], false);
        assert_eq!(dump(counter, &[(1, 80, 100)], true), [(80, 0)]);
        assert_eq!(dump(counter, &[(1, 80, 100), (2, 80, 5)], true), [(80, 5)]);
        dump(counter, &[(1, 80, 100)], false);
        assert_eq!(dump(counter, &[(1, 80, 100), (3, 80, 50)], true), [(80, 5)]);
    }

    #[test]
    fn the_count_of_a_socket_wraps() {
        let counter = &mut PortDropCounter::default();
        dump(counter, &[(1, 80, u32::MAX - 1)], true);
        assert_eq!(dump(counter, &[(1, 80, 3)], true), [(80, 5)]);
        assert_eq!(dump(counter, &[(1, 80, 3), (1, 80, 4)], true), [(80, 6)], "the same socket twice");
        assert_eq!(dump(counter, &[(1, 80, 2)], true), [(80, 6)], "impossible, and no jump");
    }

    #[test]
    fn ports_beyond_the_limit_are_counted_and_those_with_drops_stay() {
        let counter = &mut PortDropCounter::default();
        let listeners = |drops: u32| -> Vec<(u64, u16, u32)> {
            (1..=150_u16).map(|port| (port.into(), port, u32::from(port > 140) * drops)).collect()
        };
        let shown = dump(counter, &listeners(0), true);
        assert_eq!(shown.iter().map(|it| it.0).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
        assert_eq!(counter.copy().overflow, 50);
        let shown = dump(counter, &listeners(2), true);
        assert_eq!(
            shown.iter().map(|it| it.0).collect::<Vec<_>>(),
            (1..=90).chain(141..=150).collect::<Vec<_>>()
        );
        assert_eq!(shown[99], (150, 2));
        assert_eq!(counter.copy().overflow, 100);
    }

    #[test]
    fn listeners_beyond_the_limit_are_counted_and_never_jump() {
        let counter = &mut PortDropCounter::default();
        let most = MAX_LISTENERS as u64;
        let full: Vec<_> = (0..=most).map(|cookie| (cookie, 80, 1)).collect();
        assert_eq!(dump(counter, &full, true), [(80, 0)]);
        assert_eq!(counter.copy().overflow, 1);
        // There is room again only after the second dump without the others. Then its drops so far are the baseline.
        for drops in [2, 3, 4] {
            assert_eq!(dump(counter, &[(most, 80, drops)], true), [(80, 0)]);
        }
        assert_eq!(dump(counter, &[(most, 80, 6)], true), [(80, 2)]);
    }
}
