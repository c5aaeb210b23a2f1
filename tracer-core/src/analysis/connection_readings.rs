//! The kernel's counters of open connections from one socket dump after another, and the byte rates between two dumps.

use hashbrown::HashMap;

use crate::{
    event::{ConnKey, Micros, Nanos, TcpInfo, Timestamp},
    lifecycle::Connection,
};

/// The kernel's counters of an open connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounters {
    /// Payload bytes sent, without retransmissions.
    pub bytes_sent: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Segments retransmitted, including SYN and SYN-ACK.
    pub retransmits: u32,
    /// Smoothed round-trip time; none without a sample.
    pub srtt: Option<Micros>,
    /// Minimum round-trip time; none without a sample.
    pub min_rtt: Option<Micros>,
    /// Bytes received that the application has not read.
    pub unread_bytes: u32,
    /// Bytes that the application wrote and the peer has not acknowledged.
    pub unacked_bytes: u32,
}

impl From<&TcpInfo> for ConnectionCounters {
    fn from(info: &TcpInfo) -> Self {
        let TcpInfo {
            bytes_sent,
            bytes_received,
            retransmits,
            srtt,
            min_rtt,
            unread_bytes,
            unacked_bytes,
            ..
        } = *info;
        Self { bytes_sent, bytes_received, retransmits, srtt, min_rtt, unread_bytes, unacked_bytes }
    }
}

/// An open connection in a socket dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionSnapshot {
    /// The connection.
    pub key: ConnKey,
    /// When the dump of its network namespace started; the counters are not older.
    pub read_at: Timestamp,
    /// Its counters.
    pub counters: ConnectionCounters,
}

/// The open connections in a socket dump.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionDump {
    /// The connections.
    pub connections: Vec<ConnectionSnapshot>,
    /// Connections beyond the limit of the reader, which are not in `connections`.
    pub omitted: u64,
}

/// Payload bytes per second between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRates {
    /// The time of the first of both readings.
    since: Timestamp,
    /// Bytes sent per second.
    pub sent: u64,
    /// Bytes received per second.
    pub received: u64,
}

/// The last counters of an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionReading {
    /// The time of the reading; the counters are not older.
    pub read_at: Timestamp,
    /// The counters.
    pub counters: ConnectionCounters,
    /// The rates since the reading before; none for the first reading of a connection.
    pub rates: Option<ByteRates>,
}

/// The last reading of each open connection.
#[derive(Clone, Debug, Default)]
pub struct ConnectionReadings {
    by_key: HashMap<ConnKey, ConnectionReading, foldhash::fast::RandomState>,
    omitted: u64,
}

impl ConnectionReadings {
    /// Returns the readings of a later dump, with the rates since this one. Connections that the dump does not contain are
    /// dropped.
    #[must_use]
    pub fn next(&self, dump: &ConnectionDump) -> Self {
        let reading = |snapshot: &ConnectionSnapshot| {
            let ConnectionSnapshot { key, read_at, counters } = *snapshot;
            let before = self.by_key.get(&key);
            let rates = before.and_then(|before| rates(before, read_at, &counters));
            (key, ConnectionReading { read_at, counters, rates })
        };
        Self { by_key: dump.connections.iter().map(reading).collect(), omitted: dump.omitted }
    }

    /// Returns the reading of a connection. An earlier connection with the same key, and rates that include it, are ignored.
    pub fn of(&self, connection: &Connection) -> Option<ConnectionReading> {
        let reading = self.by_key.get(&connection.key())?;
        let rates = reading.rates.filter(|rates| rates.since >= connection.first_seen);
        (reading.read_at >= connection.first_seen).then_some(ConnectionReading { rates, ..*reading })
    }

    /// Returns the number of open connections that were not read because of the reader's limit.
    pub fn omitted(&self) -> u64 {
        self.omitted
    }
}

/// Returns the rates between a reading and later counters. None if a count fell: then the key belongs to another connection.
fn rates(before: &ConnectionReading, now: Timestamp, counters: &ConnectionCounters) -> Option<ByteRates> {
    let elapsed = now.since(before.read_at);
    let per_second = |count: u64| {
        let scaled = u128::from(count) * u128::from(Nanos::from_secs(1).0);
        Some(u64::try_from(scaled.checked_div(elapsed.0.into())?).unwrap_or(u64::MAX))
    };
    Some(ByteRates {
        since: before.read_at,
        sent: per_second(counters.bytes_sent.checked_sub(before.counters.bytes_sent)?)?,
        received: per_second(counters.bytes_received.checked_sub(before.counters.bytes_received)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Endpoint, Event, ExistingSocket, Netns, SocketCookie, TcpState},
        lifecycle::{Tracker, TrackerOptions},
    };

    fn endpoint(port: u16) -> Endpoint {
        Endpoint { address: "10.0.0.1".parse().unwrap(), port }
    }

    fn key(port: u16) -> ConnKey {
        ConnKey { netns: Some(Netns(1)), local: endpoint(port), remote: endpoint(443) }
    }

    /// Returns a connection that was first seen at this second.
    fn connection(port: u16, second: u64) -> Connection {
        let ConnKey { netns, local, remote } = key(port);
        let mut tracker = Tracker::new(TrackerOptions::default());
        let socket = ExistingSocket {
            time: Timestamp(second * 1_000_000_000),
            cookie: SocketCookie(1),
            state: TcpState::Established,
            state_age: None,
            local,
            remote,
            process: None,
            netns,
            cgroup_id: None,
            info: None,
            interface: None,
        };
        tracker.observe(&Event::Existing(socket), &mut |_| {});
        *tracker.connections().next().unwrap().1
    }

    fn dump(second: u64, connections: &[(u16, u64, u64)]) -> ConnectionDump {
        let snapshot = |&(port, bytes_sent, bytes_received): &(u16, u64, u64)| ConnectionSnapshot {
            key: key(port),
            read_at: Timestamp(second * 1_000_000_000),
            counters: ConnectionCounters { bytes_sent, bytes_received, ..ConnectionCounters::default() },
        };
        ConnectionDump { connections: connections.iter().map(snapshot).collect(), omitted: 0 }
    }

    fn rates_of(readings: &ConnectionReadings, connection: &Connection) -> Option<(u64, u64)> {
        readings.of(connection).unwrap().rates.map(|rates| (rates.sent, rates.received))
    }

    #[test]
    fn rates_are_the_difference_of_two_readings() {
        let connection = connection(1, 5);
        let first = ConnectionReadings::default().next(&dump(10, &[(1, 1_000, 50), (2, 7, 7)]));
        assert_eq!(rates_of(&first, &connection), None, "one reading has no rate");
        assert_eq!(first.of(&connection).unwrap().counters.bytes_sent, 1_000);
        let second = first.next(&dump(14, &[(1, 9_000, 50)]));
        assert_eq!(rates_of(&second, &connection), Some((2_000, 0)));
        assert_eq!(second.of(&connection).unwrap().read_at, Timestamp(14_000_000_000));
        let third = second.next(&dump(15, &[]));
        assert_eq!(third.of(&connection), None, "the connection has closed");
    }

    #[test]
    fn an_earlier_connection_with_the_same_key_is_ignored() {
        let connection = connection(1, 12);
        let first = ConnectionReadings::default().next(&dump(10, &[(1, 1_000, 0)]));
        assert_eq!(first.of(&connection), None);
        let second = first.next(&dump(13, &[(1, 4_000, 0)]));
        assert_eq!(rates_of(&second, &connection), None, "the rate includes the earlier connection");
        let third = second.next(&dump(14, &[(1, 4_500, 0)]));
        assert_eq!(rates_of(&third, &connection), Some((500, 0)));
        let fallen = third.next(&dump(15, &[(1, 4_400, 0)]));
        assert_eq!(rates_of(&fallen, &connection), None);
    }

    #[test]
    fn extreme_counts_do_not_overflow() {
        let connection = connection(1, 1);
        let first = ConnectionReadings::default().next(&dump(1, &[(1, 0, 0)]));
        let same = first.next(&dump(1, &[(1, u64::MAX, 0)]));
        assert_eq!(rates_of(&same, &connection), None, "no time has passed");
        let second = first.next(&dump(2, &[(1, u64::MAX, u64::MAX)]));
        assert_eq!(rates_of(&second, &connection), Some((u64::MAX, u64::MAX)));
    }
}
