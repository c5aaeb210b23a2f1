//! The backends behind the addresses that clients dialled, until their connection closes.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::{
    event::{ConnKey, Endpoint, Nanos, Netns, Timestamp, Translated},
    lifecycle::{Connection, Role},
};

/// Most translations. Beyond it the oldest without a connection is dropped.
const MAX_TRANSLATIONS: usize = 131_072;
/// Most places in the order of arrival, which has those of connections that have closed, too.
const MAX_ORDER: usize = 2 * MAX_TRANSLATIONS;
/// A handshake lasts at most about two minutes (`tcp_syn_retries` of 6).
const LIFETIME: Nanos = Nanos::from_secs(180);

/// The client's endpoint and the one that it dialled.
type Ends = (Endpoint, Endpoint);

/// A translation.
#[derive(Clone, Copy, Debug)]
struct Translation {
    time: Timestamp,
    backend: Endpoint,
    netns: Option<Netns>,
    /// An open connection has it.
    held: bool,
}

impl Translation {
    /// Returns whether it is that of a connection with these ends. Namespaces share the addresses of a network, but each has
    /// a loopback of its own.
    fn is_of(&self, key: &ConnKey) -> bool {
        !key.local.address.is_loopback() || self.netns.is_none() || self.netns == key.netns
    }
}

/// The translations of handshakes that have not ended, and of connections that have not closed.
///
/// The translation of a container's connection happens in another network namespace than that of its socket, so a
/// connection is found by its endpoints.
#[derive(Debug, Default)]
pub(super) struct Backends {
    translations: HashMap<Ends, Translation, foldhash::fast::RandomState>,
    /// The translations in the order of arrival.
    order: VecDeque<(Timestamp, Ends)>,
}

impl Backends {
    /// Adds a translation. Returns false if the table is full of those of open connections.
    pub(super) fn add(&mut self, event: &Translated) -> bool {
        let ends = (event.client, event.service);
        self.expire(event.time);
        let known = self.translations.get(&ends).map(|known| known.held);
        if known.is_none() && self.translations.len() >= MAX_TRANSLATIONS && !self.drop_oldest() {
            return false;
        }
        let held = known.unwrap_or(false);
        let Translated { time, backend, netns, .. } = *event;
        self.translations.insert(ends, Translation { time, backend, netns, held });
        if self.order.len() >= MAX_ORDER {
            self.pop();
        }
        self.order.push_back((time, ends));
        true
    }

    /// Drops the oldest translation without a connection. Returns false if there is none.
    fn drop_oldest(&mut self) -> bool {
        while !self.order.is_empty() {
            if self.pop() {
                return true;
            }
        }
        false
    }

    /// Drops the translation at the front of the order unless it is newer or has a connection. Returns whether it did.
    fn pop(&mut self) -> bool {
        let Some((time, ends)) = self.order.pop_front() else { return false };
        let is_due = self.translations.get(&ends).is_some_and(|it| !it.held && it.time == time);
        is_due && self.translations.remove(&ends).is_some()
    }

    fn expire(&mut self, now: Timestamp) {
        while self.order.front().is_some_and(|&(time, _)| now.since(time) > LIFETIME) {
            self.pop();
        }
    }

    /// Returns the backend of a connection that is open now, and keeps it until the connection closes.
    pub(super) fn opened(&mut self, key: &ConnKey, role: Role) -> Option<Endpoint> {
        if self.translations.is_empty() || role == Role::Server {
            return None;
        }
        let translation = self.translations.get_mut(&(key.local, key.remote)).filter(|it| it.is_of(key))?;
        translation.held = true;
        Some(translation.backend)
    }

    /// Returns the backend of a connection that leaves the table, and forgets it.
    pub(super) fn closed(&mut self, connection: &Connection) -> Option<Endpoint> {
        if self.translations.is_empty() || connection.role == Role::Server {
            return None;
        }
        let key = connection.key();
        let ends = (key.local, key.remote);
        self.translations.get(&ends).filter(|it| it.is_of(&key))?;
        self.translations.remove(&ends).map(|translation| translation.backend)
    }

    /// Iterates over the translations of open connections, in no particular order.
    pub(super) fn held(&self) -> impl Iterator<Item = Translated> + '_ {
        self.translations.iter().filter(|(_, translation)| translation.held).map(
            |(&(client, service), &Translation { time, backend, netns, .. })| Translated {
                time,
                client,
                service,
                backend,
                netns,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str, port: u16) -> Endpoint {
        Endpoint { address: address.parse().unwrap(), port }
    }

    const SERVICE: &str = "10.96.0.1";
    const NETNS: Option<Netns> = Some(Netns(7));

    fn translated(at: u64, client: Endpoint, backend: u16) -> Translated {
        Translated {
            time: Timestamp(at),
            client,
            service: endpoint(SERVICE, 443),
            backend: endpoint("10.1.2.3", backend),
            netns: NETNS,
        }
    }

    fn key(client: Endpoint, netns: u32) -> ConnKey {
        ConnKey { netns: Some(Netns(netns)), local: client, remote: endpoint(SERVICE, 443) }
    }

    fn opened(backends: &mut Backends, key: &ConnKey) -> Option<u16> {
        backends.opened(key, Role::Client).map(|backend| backend.port)
    }

    #[test]
    fn a_connection_has_its_backend_in_any_namespace_except_on_loopback() {
        let mut backends = Backends::default();
        let (pod, loopback) = (endpoint("10.1.0.9", 4000), endpoint("127.0.0.1", 4000));
        assert_eq!(opened(&mut backends, &key(pod, 8)), None);
        for client in [pod, loopback] {
            assert!(backends.add(&translated(1, client, 8443)));
        }
        assert_eq!(opened(&mut backends, &key(pod, 8)), Some(8443));
        assert_eq!(opened(&mut backends, &key(loopback, 8)), None);
        assert_eq!(opened(&mut backends, &key(loopback, 7)), Some(8443));
        assert_eq!(backends.opened(&key(pod, 8), Role::Server), None);
        let other = ConnKey { remote: endpoint(SERVICE, 80), ..key(pod, 8) };
        assert_eq!(opened(&mut backends, &other), None);
    }

    #[test]
    fn a_translation_without_a_connection_expires_and_that_of_an_open_one_stays() {
        let mut backends = Backends::default();
        let clients = [1, 2, 3].map(|port| endpoint("10.1.0.9", port));
        backends.add(&translated(0, clients[0], 1));
        backends.add(&translated(0, clients[1], 2));
        opened(&mut backends, &key(clients[1], 8));
        backends.add(&translated(LIFETIME.0 + 1, clients[2], 3));
        assert_eq!(opened(&mut backends, &key(clients[0], 8)), None);
        assert_eq!(opened(&mut backends, &key(clients[1], 8)), Some(2));
        assert_eq!(backends.held().count(), 1);
        // The same endpoints again, before the first one's time is over.
        backends.add(&translated(LIFETIME.0 + 2, clients[2], 4));
        backends.add(&translated(2 * LIFETIME.0 + 2, clients[0], 5));
        assert_eq!(opened(&mut backends, &key(clients[2], 8)), Some(4));
    }

    #[test]
    fn a_full_table_drops_the_oldest_without_a_connection() {
        let mut backends = Backends::default();
        let client = |index: usize| {
            let high = u8::try_from(index >> 16).unwrap();
            endpoint(&format!("10.1.0.{high}"), u16::try_from(index & 0xffff).unwrap())
        };
        backends.add(&translated(0, client(0), 1));
        opened(&mut backends, &key(client(0), 8));
        for index in 1..=MAX_TRANSLATIONS {
            assert!(backends.add(&translated(0, client(index), 2)));
        }
        assert_eq!(backends.translations.len(), MAX_TRANSLATIONS);
        assert_eq!(opened(&mut backends, &key(client(0), 8)), Some(1));
        assert_eq!(opened(&mut backends, &key(client(1), 8)), None);
        for index in 2..=MAX_TRANSLATIONS {
            opened(&mut backends, &key(client(index), 8));
        }
        assert!(!backends.add(&translated(0, client(1), 2)), "all are of open connections");
        for _ in 0..3 * MAX_TRANSLATIONS {
            assert!(backends.add(&translated(0, client(2), 2)));
        }
        assert!(backends.order.len() <= MAX_ORDER);
    }
}
