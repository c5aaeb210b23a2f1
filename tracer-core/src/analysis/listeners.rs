//! The activity of listening sockets: their queues, drops and handshakes during a run.
//!
//! Socket dumps list the listeners, and events supply what happens between two dumps. An event names the local endpoint of a
//! connection, not its listener, so it counts for the listener on the exact address, else on a wildcard address.

mod dump;
mod index;
mod processes;
mod report;

use hashbrown::HashMap;

pub use dump::{AddressCounts, ListenAddress, ListenerDump, ListenerSnapshot, NetnsSet};
use index::ListenerIndex;
pub use processes::ListenerProcesses;
pub use report::{ListenerHandshakes, ListenerReport};

use crate::{
    analysis::{HandshakeAttempt, HandshakeOutcome},
    event::{AcceptQueue, Event, Nanos, Netns, Process, SocketCookie, TcpState},
    lifecycle::{Observation, Role},
};

/// Local endpoints counted separately; each takes up to 40 KiB.
const MAX_ADDRESSES: usize = 10_000;
/// Listeners whose owner is kept.
const MAX_OWNERS: usize = 65_536;

/// The events at one local endpoint.
#[derive(Clone, Debug, Default)]
struct AddressActivity {
    handshakes: ListenerHandshakes,
    queue_peak: Option<u32>,
}

/// What earlier dumps said about a listener.
#[derive(Clone, Copy, Debug)]
struct KnownListener {
    netns: Option<Netns>,
    drops_before: Option<u32>,
    queue_peak: Option<u32>,
}

/// Collects the activity of the listeners of a host.
///
/// Counts the first 10,000 local endpoints; [`uncounted`](Self::uncounted) has the events of the others.
#[derive(Clone, Debug)]
pub struct ListenerActivity {
    by_address: HashMap<ListenAddress, AddressActivity, foldhash::fast::RandomState>,
    uncounted: u64,
    owners: HashMap<SocketCookie, Process, foldhash::fast::RandomState>,
    known: HashMap<SocketCookie, KnownListener, foldhash::fast::RandomState>,
    /// The namespaces whose listeners were complete in an earlier dump.
    complete: NetnsSet,
    last: ListenerDump,
}

impl ListenerActivity {
    /// Begins with the first dump.
    pub fn new(first: ListenerDump) -> Self {
        let mut activity = Self {
            by_address: HashMap::default(),
            uncounted: 0,
            owners: HashMap::default(),
            known: HashMap::default(),
            complete: first.complete.clone(),
            last: ListenerDump::default(),
        };
        activity.keep(first, |listener| listener.drops);
        activity
    }

    /// Adds a later dump.
    pub fn dumped(&mut self, dump: ListenerDump) {
        let was_complete = std::mem::replace(&mut self.complete, dump.complete.clone());
        // A listener that a complete earlier dump lacked is newer than it, and began without drops.
        self.keep(dump, |listener| was_complete.contains(&listener.netns).then_some(0));
        // A namespace that was complete once stays complete: every listener since is new.
        self.complete.extend(was_complete);
    }

    /// Keeps a dump; `drops_before` returns the drops before the first dump of a listener without an earlier dump.
    fn keep(&mut self, dump: ListenerDump, drops_before: impl Fn(&ListenerSnapshot) -> Option<u32>) {
        let mut known: HashMap<_, _, foldhash::fast::RandomState> = HashMap::default();
        for listener in &dump.listeners {
            let mut it = self.known.remove(&listener.cookie).unwrap_or_else(|| KnownListener {
                netns: listener.netns,
                drops_before: drops_before(listener),
                queue_peak: None,
            });
            it.queue_peak = it.queue_peak.max(listener.accept_queue.map(|queue| queue.length));
            known.insert(listener.cookie, it);
        }
        // An incomplete dump may lack a listener that still exists.
        self.known.retain(|_, it| !dump.complete.contains(&it.netns));
        self.known.extend(known);
        self.last = dump;
    }

    /// Adds what an event shows: the process that holds a listener, and an accept queue.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Existing(socket) if socket.state == TcpState::Listen => {
                if let Some(process) = socket.process {
                    self.owned(socket.cookie, process);
                }
            }
            Event::Transition(transition) => {
                if let Some(queue) = transition.accept_queue {
                    self.queue_seen((transition.netns, transition.local), queue);
                }
                if let (TcpState::Listen, Some(cookie), Some(process)) =
                    (transition.to, transition.cookie, transition.process)
                {
                    self.owned(cookie, process);
                }
            }
            Event::SynAckRetransmit(retransmit) => {
                if let Some(queue) = retransmit.accept_queue {
                    self.queue_seen((retransmit.netns, retransmit.local), queue);
                }
            }
            _ => {}
        }
    }

    /// Adds the end of a handshake, and of a connection's wait for `accept()`. `attempt` is the handshake that the
    /// observation ends ([`HandshakeAttempt::ended_by`]).
    pub fn observe(&mut self, observation: &Observation<'_>, attempt: Option<&HandshakeAttempt>) {
        if let Observation::Accepted { connection, wait } = observation {
            self.accept_waited((connection.netns, connection.local), wait.duration());
        }
        if let Some(attempt) = attempt {
            self.handshake(attempt);
        }
    }

    /// Adds a finished handshake; only those of servers count.
    pub fn handshake(&mut self, attempt: &HandshakeAttempt) {
        // A port scan must not take the places of listeners.
        if attempt.role != Role::Server || attempt.unserved {
            return;
        }
        let Some(activity) = self.at((attempt.netns, attempt.local)) else { return };
        match attempt.outcome {
            HandshakeOutcome::Established => {
                activity.handshakes.established += 1;
                if let Some(duration) = attempt.duration {
                    activity.handshakes.durations.add(duration);
                }
            }
            HandshakeOutcome::Abandoned => activity.handshakes.abandoned += 1,
            HandshakeOutcome::Failed(_) => {}
        }
    }

    /// Adds the accept queue that an event saw.
    pub fn queue_seen(&mut self, address: ListenAddress, queue: AcceptQueue) {
        if let Some(activity) = self.at(address) {
            activity.queue_peak = activity.queue_peak.max(Some(queue.length));
        }
    }

    /// Adds the time that a connection waited for `accept()`.
    pub fn accept_waited(&mut self, address: ListenAddress, wait: Nanos) {
        if let Some(activity) = self.at(address) {
            activity.handshakes.accept_waits.add(wait);
        }
    }

    /// Adds the process that holds a listener. Beyond 65,536 listeners it is not kept.
    pub fn owned(&mut self, cookie: SocketCookie, process: Process) {
        if self.owners.len() < MAX_OWNERS || self.owners.contains_key(&cookie) {
            self.owners.insert(cookie, process);
        }
    }

    /// Returns the number of events that were not counted because their local endpoint exceeded the limit.
    pub fn uncounted(&self) -> u64 {
        self.uncounted
    }

    /// Returns the number of half-open handshakes in the last dump, also of those without a listener.
    pub fn half_open(&self) -> u64 {
        self.last.half_open.values().sum()
    }

    fn at(&mut self, address: ListenAddress) -> Option<&mut AddressActivity> {
        if self.by_address.len() >= MAX_ADDRESSES && !self.by_address.contains_key(&address) {
            self.uncounted += 1;
            return None;
        }
        Some(self.by_address.entry(address).or_default())
    }

    /// Returns the listeners of the last dump, the worst first.
    ///
    /// The order is by drops since the first dump, the share of the accept queue in use, all drops, abandoned handshakes,
    /// half-open handshakes, and port. `processes` is for listeners whose own process is unknown.
    pub fn report(&self, processes: &ListenerProcesses) -> Vec<ListenerReport> {
        let listeners = &self.last.listeners;
        let index = ListenerIndex::new(listeners);
        let mut reports: Vec<ListenerReport> = listeners
            .iter()
            .enumerate()
            .map(|(position, socket)| {
                let known = self.known.get(&socket.cookie);
                let alone = index.is_alone(position, socket);
                let complete = self.last.half_open_complete.contains(&socket.netns);
                ListenerReport {
                    socket: *socket,
                    process: self
                        .owners
                        .get(&socket.cookie)
                        .copied()
                        .or_else(|| processes.at((socket.netns, socket.local))),
                    accept_queue_peak: known.and_then(|known| known.queue_peak),
                    half_open: (alone && complete).then_some(0),
                    drops_during: known
                        .and_then(|known| known.drops_before)
                        .zip(socket.drops)
                        .map(|(before, drops)| drops.wrapping_sub(before)),
                    handshakes: alone.then(ListenerHandshakes::default),
                }
            })
            .collect();
        for (address, activity) in &self.by_address {
            let Some(report) = index.only_at(*address).and_then(|position| reports.get_mut(position)) else {
                continue;
            };
            if let Some(handshakes) = &mut report.handshakes {
                handshakes.merge(&activity.handshakes);
            }
            report.accept_queue_peak = report.accept_queue_peak.max(activity.queue_peak);
        }
        for (address, count) in &self.last.half_open {
            let half_open = index.only_at(*address).and_then(|position| reports[position].half_open.as_mut());
            if let Some(half_open) = half_open {
                *half_open += count;
            }
        }
        reports.sort_by_cached_key(ListenerReport::rank);
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Endpoint, Timestamp},
        lifecycle::{CloseReason, DurationSource},
    };

    const NETNS: Option<Netns> = Some(Netns(1));

    fn endpoint(text: &str) -> Endpoint {
        let address: std::net::SocketAddr = text.parse().unwrap();
        Endpoint { address: address.ip(), port: address.port() }
    }

    fn listener(cookie: u64, local: &str, length: u32, drops: u32) -> ListenerSnapshot {
        ListenerSnapshot {
            cookie: SocketCookie(cookie),
            netns: NETNS,
            local: endpoint(local),
            accept_queue: Some(AcceptQueue { length, limit: 9 }),
            drops: Some(drops),
            cgroup_id: None,
        }
    }

    fn dump(listeners: &[ListenerSnapshot]) -> ListenerDump {
        ListenerDump {
            listeners: listeners.to_vec(),
            half_open: AddressCounts::default(),
            complete: [NETNS].into_iter().collect(),
            half_open_complete: [NETNS].into_iter().collect(),
        }
    }

    fn attempt(local: &str, outcome: HandshakeOutcome, ms: u64) -> HandshakeAttempt {
        HandshakeAttempt {
            ended: Timestamp(0),
            role: Role::Server,
            local: endpoint(local),
            remote: endpoint("192.0.2.9:4000"),
            process: None,
            thread: None,
            netns: NETNS,
            cgroup_id: None,
            outcome,
            duration: Some(Nanos::from_millis(ms)),
            source: DurationSource::Measured,
            caveat: None,
            rtt: None,
            retransmits: None,
            lost: None,
            error: None,
            drops: crate::lifecycle::SegmentDrops::NONE,
            unserved: false,
            entered: None,
            sequences: None,
            half_open: None,
            backend: None,
        }
    }

    fn report(activity: &ListenerActivity) -> Vec<ListenerReport> {
        activity.report(&ListenerProcesses::default())
    }

    fn established(report: &ListenerReport) -> Option<u64> {
        report.handshakes.as_ref().map(ListenerHandshakes::established)
    }

    fn of<'a>(reports: &'a [ListenerReport], local: &str) -> &'a ListenerReport {
        reports.iter().find(|report| report.socket.local == endpoint(local)).unwrap()
    }

    #[test]
    fn events_count_for_the_exact_address_then_for_a_wildcard() {
        let listeners = [
            listener(1, "10.0.0.1:80", 0, 0),
            listener(2, "0.0.0.0:80", 0, 0),
            listener(3, "[::]:443", 0, 0),
            ListenerSnapshot { netns: Some(Netns(2)), ..listener(4, "0.0.0.0:80", 0, 0) },
        ];
        let mut activity = ListenerActivity::new(dump(&listeners));
        for local in ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:443", "[2001:db8::1]:443"] {
            activity.handshake(&attempt(local, HandshakeOutcome::Established, 10));
        }
        for local in ["[2001:db8::1]:80", "10.0.0.1:81"] {
            activity.handshake(&attempt(local, HandshakeOutcome::Established, 10));
        }
        let reports = report(&activity);
        assert_eq!(established(of(&reports, "10.0.0.1:80")), Some(1));
        assert_eq!(established(of(&reports, "[::]:443")), Some(2));
        let mut wildcards: Vec<_> = reports
            .iter()
            .filter(|report| report.socket.local == endpoint("0.0.0.0:80"))
            .map(|report| (report.socket.netns, established(report)))
            .collect();
        wildcards.sort_unstable();
        assert_eq!(wildcards, [(NETNS, Some(2)), (Some(Netns(2)), Some(0))]);
    }

    #[test]
    fn outcomes_durations_and_waits_are_kept_apart() {
        let mut activity = ListenerActivity::new(dump(&[listener(1, "0.0.0.0:80", 0, 0)]));
        for ms in [10, 10, 90] {
            activity.handshake(&attempt("10.0.0.1:80", HandshakeOutcome::Established, ms));
        }
        activity.handshake(&attempt("10.0.0.1:80", HandshakeOutcome::Abandoned, 3_000));
        activity.handshake(&attempt("10.0.0.1:80", HandshakeOutcome::Failed(CloseReason::Closed), 1));
        let client = HandshakeAttempt {
            role: Role::Client,
            ..attempt("10.0.0.1:80", HandshakeOutcome::Established, 1)
        };
        activity.handshake(&client);
        let handshakes = report(&activity)[0].handshakes.clone().unwrap();
        assert_eq!((handshakes.established(), handshakes.abandoned()), (3, 1));
        let median = handshakes.durations().quantile(0.5).unwrap().as_millis();
        assert!((9..=11).contains(&median), "{median}");
        assert_eq!(handshakes.accept_waits().quantile(0.5), None, "unknown is absent");
        activity.accept_waited((NETNS, endpoint("10.0.0.1:80")), Nanos::from_millis(7));
        let handshakes = report(&activity)[0].handshakes.clone().unwrap();
        assert_eq!(handshakes.accept_waits().max(), Some(Nanos::from_millis(7)));
    }

    #[test]
    fn listeners_that_share_an_address_have_only_their_own_figures() {
        let shared = [listener(1, "0.0.0.0:80", 4, 7), listener(2, "0.0.0.0:80", 1, 0)];
        let mut first = dump(&shared);
        first.half_open.insert((NETNS, endpoint("10.0.0.1:80")), 5);
        let mut activity = ListenerActivity::new(first);
        activity.handshake(&attempt("10.0.0.1:80", HandshakeOutcome::Established, 10));
        activity.queue_seen((NETNS, endpoint("10.0.0.1:80")), AcceptQueue { length: 9, limit: 9 });
        for report in report(&activity) {
            assert_eq!((established(&report), report.half_open), (None, None));
            let own = if report.socket.cookie.0 == 1 { 4 } else { 1 };
            assert_eq!((report.accept_queue_peak, report.drops_during), (Some(own), Some(0)));
        }
    }

    #[test]
    fn the_peak_is_the_most_in_any_dump_or_event() {
        let address = (NETNS, endpoint("10.0.0.1:80"));
        let mut activity = ListenerActivity::new(dump(&[listener(1, "0.0.0.0:80", 2, 0)]));
        activity.queue_seen(address, AcceptQueue { length: 1, limit: 9 });
        assert_eq!(report(&activity)[0].accept_queue_peak, Some(2));
        activity.queue_seen(address, AcceptQueue { length: 8, limit: 9 });
        activity.dumped(dump(&[listener(1, "0.0.0.0:80", 3, 0)]));
        activity.dumped(dump(&[listener(1, "0.0.0.0:80", 0, 0)]));
        assert_eq!(report(&activity)[0].accept_queue_peak, Some(8));
    }

    #[test]
    fn drops_count_from_the_first_dump_or_from_the_start_of_the_listener() {
        let mut activity = ListenerActivity::new(dump(&[listener(1, "0.0.0.0:80", 0, u32::MAX)]));
        let elsewhere = ListenerSnapshot { netns: None, ..listener(3, "0.0.0.0:82", 0, 5) };
        activity.dumped(dump(&[listener(1, "0.0.0.0:80", 0, 4), listener(2, "0.0.0.0:81", 0, 3), elsewhere]));
        let reports = report(&activity);
        let during = |local| of(&reports, local).drops_during;
        assert_eq!(during("0.0.0.0:80"), Some(5), "the kernel's counter wraps");
        assert_eq!(during("0.0.0.0:81"), Some(3));
        assert_eq!(during("0.0.0.0:82"), None, "its namespace was not dumped before");
    }

    #[test]
    fn an_incomplete_dump_forgets_no_listener() {
        let mut activity = ListenerActivity::new(dump(&[listener(1, "0.0.0.0:80", 6, 40)]));
        activity.dumped(ListenerDump::default());
        assert!(report(&activity).is_empty());
        activity.dumped(dump(&[listener(1, "0.0.0.0:80", 0, 42)]));
        let [again] = &report(&activity)[..] else { panic!("there is one") };
        assert_eq!((again.drops_during, again.accept_queue_peak), (Some(2), Some(6)));
        // A complete dump without the listener: it has closed.
        activity.dumped(dump(&[]));
        assert!(activity.known.is_empty());
    }

    #[test]
    fn half_open_handshakes_of_an_incomplete_dump_are_unknown() {
        let mut first = dump(&[listener(1, "0.0.0.0:80", 0, 0)]);
        first.half_open.insert((NETNS, endpoint("10.0.0.1:80")), 2);
        first.half_open.insert((NETNS, endpoint("10.0.0.2:80")), 3);
        assert_eq!(report(&ListenerActivity::new(first.clone()))[0].half_open, Some(5));
        first.half_open_complete.clear();
        assert_eq!(report(&ListenerActivity::new(first))[0].half_open, None);
    }

    #[test]
    fn the_worst_listener_comes_first() {
        let zero = ["0.0.0.0:9", "0.0.0.0:8", "0.0.0.0:7", "0.0.0.0:6", "0.0.0.0:5", "0.0.0.0:4"]
            .iter()
            .zip(1..)
            .map(|(local, cookie)| listener(cookie, local, 0, 0));
        let mut first = zero.collect::<Vec<_>>();
        first[2].drops = Some(9);
        let mut activity = ListenerActivity::new(dump(&first));
        activity.handshake(&attempt("10.0.0.1:6", HandshakeOutcome::Abandoned, 1));
        first[0].drops = Some(1);
        first[1].accept_queue = Some(AcceptQueue { length: 1, limit: 0 });
        let mut last = dump(&first);
        last.half_open.insert((NETNS, endpoint("10.0.0.1:5")), 1);
        activity.dumped(last);
        let ports: Vec<u16> = report(&activity).iter().map(|report| report.socket.local.port).collect();
        assert_eq!(ports, [9, 8, 7, 6, 5, 4]);
    }

    #[test]
    fn a_process_belongs_to_the_socket_before_the_address() {
        let process = |pid| Process { pid, uid: 0, comm: [0; 16] };
        let mut activity =
            ListenerActivity::new(dump(&[listener(1, "0.0.0.0:80", 0, 0), listener(2, "0.0.0.0:80", 0, 0)]));
        activity.owned(SocketCookie(1), process(11));
        let mut processes = ListenerProcesses::default();
        processes.add((NETNS, endpoint("0.0.0.0:80")), Some(process(99)));
        let reports = activity.report(&processes);
        let mut pids: Vec<_> =
            reports.iter().map(|it| (it.socket.cookie.0, it.process.map(|process| process.pid))).collect();
        pids.sort_unstable();
        assert_eq!(pids, [(1, Some(11)), (2, Some(99))]);
    }

    #[test]
    fn endpoints_over_the_limit_are_counted_together() {
        let mut activity = ListenerActivity::new(ListenerDump::default());
        let address = |port: usize| {
            (Some(Netns(u32::try_from(port >> 8).unwrap())), endpoint(&format!("10.0.0.{}:80", port & 255)))
        };
        for port in 0..MAX_ADDRESSES + 5 {
            activity.queue_seen(address(port), AcceptQueue { length: 1, limit: 9 });
        }
        activity.queue_seen(address(3), AcceptQueue { length: 2, limit: 9 });
        assert_eq!(activity.uncounted(), 5);
    }
}
