use super::*;
use crate::event::{Endpoint, SocketId};
use crate::lifecycle::DurationSource;

const SECOND: u64 = 1_000_000_000;
const CONNECTION: ConnectionId = ConnectionId::new(SocketId(1), Timestamp(1));

fn key(port: u16) -> ConnKey {
    let address = "10.0.0.1".parse().unwrap();
    ConnKey {
        netns: Some(Netns(1)),
        local: Endpoint { address, port },
        remote: Endpoint { address, port: 80 },
    }
}

fn time_wait() -> AfterClose {
    AfterClose { state: TcpState::TimeWait, duration: Nanos::from_secs(60), source: DurationSource::Modelled }
}

#[test]
fn an_observed_removal_gives_the_observed_lifetime() {
    let mut time_wait_table = TimeWaitTable::default();
    time_wait_table.insert(key(1), CONNECTION, Timestamp(SECOND), time_wait());
    assert_eq!(time_wait_table.counts(), (1, 0));
    let ConnKey { netns, local, remote } = key(1);
    let time = Timestamp(62 * SECOND);
    let end = TimewaitEnd { time, state: TcpState::TimeWait, local, remote, netns };
    let removed = time_wait_table.end(&end).unwrap();
    assert_eq!((removed.duration, removed.connection), (Nanos::from_secs(61), Some(CONNECTION)));
    assert_eq!(time_wait_table.counts(), (0, 0));
    assert_eq!(time_wait_table.end(&end), None);
}

#[test]
fn a_socket_whose_removal_was_missed_expires_after_the_longest_lifetime() {
    let mut time_wait_table = TimeWaitTable::default();
    time_wait_table.insert(key(1), CONNECTION, Timestamp(SECOND), time_wait());
    assert_eq!(time_wait_table.pop_expired(Timestamp(69 * SECOND)), None);
    assert_eq!(time_wait_table.pop_expired(Timestamp(70 * SECOND)), Some(TcpState::TimeWait));
}

/// The kernel's timers fire late, and a FIN at the end of FIN_WAIT2 starts a full TIME_WAIT.
#[test]
fn entries_outlive_the_modelled_deadline_by_the_timer_slack() {
    for (state, seconds) in [(TcpState::TimeWait, 67), (TcpState::FinWait2, 134)] {
        let mut time_wait_table = TimeWaitTable::default();
        time_wait_table.insert(key(1), CONNECTION, Timestamp(SECOND), AfterClose { state, ..time_wait() });
        let time = Timestamp((1 + seconds) * SECOND);
        assert_eq!(time_wait_table.pop_expired(time), None);
        let ConnKey { netns, local, remote } = key(1);
        let end = TimewaitEnd { time, state: TcpState::TimeWait, local, remote, netns };
        assert_eq!(time_wait_table.end(&end).unwrap().duration, Nanos::from_secs(seconds));
    }
}

#[test]
fn each_state_expires_after_its_own_timeout() {
    let mut time_wait_table = TimeWaitTable::default();
    let fin_wait = AfterClose { state: TcpState::FinWait2, ..time_wait() };
    time_wait_table.insert(key(1), CONNECTION, Timestamp(SECOND), fin_wait);
    time_wait_table.insert(key(2), CONNECTION, Timestamp(2 * SECOND), time_wait());
    // A timestamp that goes backwards expires with the previous entry.
    time_wait_table.insert(key(3), CONNECTION, Timestamp(0), time_wait());
    let now = Timestamp(71 * SECOND);
    let removed: Vec<_> = std::iter::from_fn(|| time_wait_table.pop_expired(now)).collect();
    assert_eq!(removed, [TcpState::TimeWait; 2]);
    assert_eq!(time_wait_table.counts(), (0, 1));
    assert_eq!(time_wait_table.pop_expired(Timestamp(140 * SECOND)), Some(TcpState::FinWait2));
}

#[test]
fn a_key_reused_forever_keeps_the_queue_bounded() {
    let mut time_wait_table = TimeWaitTable::default();
    for time in 0..3 * MAX_ENTRIES as u64 {
        assert!(time_wait_table.insert(key(1), CONNECTION, Timestamp(time), time_wait()));
        time_wait_table.reuse(&key(1));
    }
    assert!(time_wait_table.queues[0].entries.len() <= 2 * MAX_ENTRIES);
}

#[test]
fn live_entries_survive_compaction() {
    let mut time_wait_table = TimeWaitTable::default();
    let fin_wait = AfterClose { state: TcpState::FinWait2, ..time_wait() };
    time_wait_table.insert(key(2), CONNECTION, Timestamp(0), time_wait());
    time_wait_table.insert(key(3), CONNECTION, Timestamp(0), fin_wait);
    for time in 0..2 * MAX_ENTRIES as u64 {
        time_wait_table.insert(key(1), CONNECTION, Timestamp(time), time_wait());
    }
    assert_eq!(time_wait_table.counts(), (2, 1));
    assert!(time_wait_table.queues[0].entries.len() < MAX_ENTRIES, "the queue was compacted");
    let mut ports: Vec<_> = time_wait_table.iter().map(|socket| socket.local.port).collect();
    ports.sort_unstable();
    assert_eq!(ports, [1, 2, 3]);
    assert!([1, 2, 3].map(key).iter().all(|key| time_wait_table.reuse(key)));
    assert_eq!(time_wait_table.counts(), (0, 0));
}

#[test]
fn early_reuse_is_reported_once() {
    let mut time_wait_table = TimeWaitTable::default();
    time_wait_table.insert(key(1), CONNECTION, Timestamp(SECOND), time_wait());
    assert!(time_wait_table.reuse(&key(1)));
    assert!(!time_wait_table.reuse(&key(1)));
    assert_eq!(time_wait_table.pop_expired(Timestamp(1000 * SECOND)), None);
}

fn found(port: u16, state: TcpState, due: u64) -> ExistingTimewait {
    let ConnKey { netns, local, remote } = key(port);
    ExistingTimewait {
        time: Timestamp(10 * SECOND),
        state,
        timer_due: Timestamp(due * SECOND),
        local,
        remote,
        netns,
    }
}

#[test]
fn a_resync_replaces_the_sockets_in_its_scope() {
    let mut table = TimeWaitTable::default();
    let fin_wait = AfterClose { state: TcpState::FinWait2, ..time_wait() };
    table.insert(key(1), CONNECTION, Timestamp(SECOND), fin_wait);
    table.insert(key(2), CONNECTION, Timestamp(2 * SECOND), time_wait());
    table.insert(key(3), CONNECTION, Timestamp(11 * SECOND), time_wait());
    let elsewhere = ConnKey { netns: Some(Netns(2)), ..key(4) };
    table.insert(elsewhere, CONNECTION, Timestamp(3 * SECOND), time_wait());
    let refused = table.resync(
        Timestamp(10 * SECOND),
        |netns| netns == Some(Netns(1)),
        &[
            found(1, TcpState::TimeWait, 70),
            found(3, TcpState::FinWait2, 60),
            found(5, TcpState::FinWait2, 40),
        ],
    );
    assert_eq!(refused, 0);
    let mut sockets: Vec<_> =
        table.iter().map(|it| (it.local.port, it.state, it.since.map(|since| since.0 / SECOND))).collect();
    sockets.sort_unstable_by_key(|socket| socket.0);
    assert_eq!(
        sockets,
        [
            (1, TcpState::TimeWait, Some(1)),
            // Newer than the dump.
            (3, TcpState::TimeWait, Some(11)),
            (4, TcpState::TimeWait, Some(3)),
            (5, TcpState::FinWait2, None),
        ]
    );
    assert_eq!(table.counts(), (3, 1));
}

#[test]
fn dumped_sockets_expire_after_their_own_timers() {
    let mut table = TimeWaitTable::default();
    let sockets = [found(1, TcpState::TimeWait, 60), found(2, TcpState::TimeWait, 12)];
    table.resync(Timestamp(10 * SECOND), |_| true, &sockets);
    assert_eq!(table.pop_expired(Timestamp(20 * SECOND)), None);
    assert_eq!(table.pop_expired(Timestamp(21 * SECOND)), Some(TcpState::TimeWait));
    assert_eq!(table.iter().map(|it| it.local.port).collect::<Vec<_>>(), [1]);
    // The next dump finds the other one again.
    table.resync(Timestamp(30 * SECOND), |_| true, &sockets[..1]);
    assert_eq!((table.counts(), table.pop_expired(Timestamp(60 * SECOND))), ((1, 0), None));
    assert_eq!(table.pop_expired(Timestamp(69 * SECOND)), Some(TcpState::TimeWait));
    assert_eq!(table.counts(), (0, 0));
}

#[test]
fn a_dump_beyond_the_capacity_is_counted() {
    let mut table = TimeWaitTable::default();
    for time in 0..MAX_ENTRIES as u64 {
        let elsewhere = Endpoint { port: u16::try_from(time % 65_536).unwrap(), ..key(0).local };
        let remote = Endpoint { port: u16::try_from(time / 65_536).unwrap(), ..key(0).remote };
        let key = ConnKey { netns: Some(Netns(2)), local: elsewhere, remote };
        assert!(table.insert(key, CONNECTION, Timestamp(time), time_wait()));
    }
    let scope = |netns| netns == Some(Netns(1));
    assert_eq!(table.resync(Timestamp(10 * SECOND), scope, &[found(1, TcpState::TimeWait, 60)]), 1);
}

#[test]
fn a_dumped_socket_of_a_later_connection_has_an_unknown_beginning() {
    let mut table = TimeWaitTable::default();
    table.insert(key(1), CONNECTION, Timestamp(SECOND), time_wait());
    // The known socket ends at 61 s.
    table.resync(Timestamp(10 * SECOND), |_| true, &[found(1, TcpState::TimeWait, 66)]);
    assert_eq!(table.iter().map(|it| it.since).collect::<Vec<_>>(), [None]);
    let ConnKey { netns, local, remote } = key(1);
    let end = TimewaitEnd { time: Timestamp(66 * SECOND), state: TcpState::TimeWait, local, remote, netns };
    assert_eq!(table.end(&end), None);
    assert_eq!(table.counts(), (0, 0));
}

#[test]
fn the_age_is_exact_if_the_socket_began_in_its_state() {
    let ages = |table: &TimeWaitTable, second| -> Vec<Age> {
        let now = Timestamp(second * SECOND);
        table.iter().map(|socket| socket.age(TimeWaitModel::default(), now)).collect()
    };
    let mut table = TimeWaitTable::default();
    table.insert(key(1), CONNECTION, Timestamp(SECOND), time_wait());
    assert_eq!(ages(&table, 10), [Age::Observed(Nanos::from_secs(9))]);
    // A dump that began after the start found this one, with 50 s on its timer at 15 s.
    table.resync(Timestamp(0), |_| true, &[found(2, TcpState::TimeWait, 65)]);
    assert_eq!(ages(&table, 15), [Age::Observed(Nanos::from_secs(14)), Age::AtLeast(Nanos::from_secs(10))]);
    let mut table = TimeWaitTable::default();
    let orphan = AfterClose { state: TcpState::FinWait2, ..time_wait() };
    table.insert(key(1), CONNECTION, Timestamp(SECOND), orphan);
    table.resync(Timestamp(40 * SECOND), |_| true, &[found(1, TcpState::TimeWait, 91)]);
    assert_eq!(ages(&table, 41), [Age::AtLeast(Nanos::from_secs(10))], "it began in FIN_WAIT2");
}

#[test]
fn a_dumped_fin_wait_2_may_become_a_late_time_wait() {
    let mut table = TimeWaitTable::default();
    table.resync(Timestamp(10 * SECOND), |_| true, &[found(1, TcpState::FinWait2, 60)]);
    // Its timer fires 8.5 s late, after a FIN that started a TIME_WAIT of up to 68.5 s.
    assert_eq!(table.pop_expired(Timestamp(136 * SECOND)), None);
    assert_eq!(table.pop_expired(Timestamp(137 * SECOND)), Some(TcpState::FinWait2));
}
