//! The rows of a batch while they are collected.

use std::time::Duration;

use super::{
    Kind,
    addresses::Addresses,
    batches::Batches,
    figures::Figures,
    owners::Owners,
    presence::Presence,
    sparse::{Flag, Names, Sparse, Values},
    to_utc,
};
use crate::{
    event::{
        AcceptQueue, Endpoint, Event, ExistingSocket, FirstRead, MiniSocketEnd, Process, SocketFlags,
        SourceCounts, SynAckRetransmit, Timestamp, Transition,
    },
    lifecycle::TcpState,
    owner::Attribution,
    source::ClockOffset,
};

/// The rows of a batch while they are collected.
#[derive(Debug)]
pub(super) struct Columns {
    clock: ClockOffset,
    rows: usize,
    kinds: Names,
    kind: Sparse<i8>,
    time: Sparse<i64>,
    socket: Sparse<u64>,
    cookie: Sparse<u64>,
    states: [Names; 2],
    from: Sparse<i8>,
    to: Sparse<i8>,
    local_address: Sparse<i32>,
    local_addresses: Addresses,
    local_port: Sparse<u16>,
    remote_address: Sparse<i32>,
    remote_addresses: Addresses,
    remote_port: Sparse<u16>,
    owners: Owners,
    netns: Sparse<u32>,
    queued: Presence,
    accept_queue: [Values<u32>; 2],
    flagged: Presence,
    error: Values<u16>,
    flags: [Flag; 5],
    figures: Figures,
    state_age: Sparse<u64>,
    attempts: Sparse<u8>,
    first_sent: Sparse<i64>,
    counts: [Sparse<u64>; 8],
    more_flags: [Flag; 3],
    data_segments: Sparse<u32>,
    interface: Sparse<u32>,
    unaccepted_segments: Sparse<u32>,
    transparent: (Presence, Flag),
    defer_accept: (Presence, Flag),
    acked: (Presence, Flag),
}

impl Columns {
    pub(super) fn new(clock: ClockOffset) -> Self {
        let states = || Names::new(TcpState::ALL.map(TcpState::name));
        Self {
            clock,
            rows: 0,
            kinds: Names::new(Kind::ALL.map(Kind::name)),
            kind: Sparse::default(),
            time: Sparse::default(),
            socket: Sparse::default(),
            cookie: Sparse::default(),
            states: [states(), states()],
            from: Sparse::default(),
            to: Sparse::default(),
            local_address: Sparse::default(),
            local_addresses: Addresses::default(),
            local_port: Sparse::default(),
            remote_address: Sparse::default(),
            remote_addresses: Addresses::default(),
            remote_port: Sparse::default(),
            owners: Owners::default(),
            netns: Sparse::default(),
            queued: Presence::default(),
            accept_queue: Default::default(),
            flagged: Presence::default(),
            error: Values::default(),
            flags: Default::default(),
            figures: Figures::default(),
            state_age: Sparse::default(),
            attempts: Sparse::default(),
            first_sent: Sparse::default(),
            counts: Default::default(),
            more_flags: Default::default(),
            data_segments: Sparse::default(),
            interface: Sparse::default(),
            unaccepted_segments: Sparse::default(),
            transparent: Default::default(),
            defer_accept: Default::default(),
            acked: Default::default(),
        }
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds an event, with what `attribution` knows of its cgroups.
    pub(super) fn event(&mut self, event: &Event, attribution: &mut Attribution) {
        match event {
            Event::Transition(transition) => self.transition(transition, attribution),
            Event::Existing(socket) => self.existing(socket, attribution),
            Event::SnapshotScope { started, netns } => {
                self.begin(Kind::SnapshotScope, *started);
                self.netns.put(self.rows, *netns);
            }
            Event::SnapshotEnd { started } => self.begin(Kind::SnapshotEnd, *started),
            Event::SynAckRetransmit(event) => self.syn_ack_retransmit(event),
            Event::FirstRead(event) => self.first_read(event, attribution),
            Event::MiniSocketEnd(event) => self.mini_socket_end(event),
            Event::Time(time) => self.begin(Kind::Time, *time),
        }
        self.rows += 1;
    }

    /// Adds the source's account.
    pub(super) fn counts(&mut self, time: Timestamp, counts: &SourceCounts) {
        let SourceCounts { seen, lost, skipped, others_lost, renewed, malformed, recovered, duplicates } =
            *counts;
        self.begin(Kind::Counts, time);
        let values = [
            Some(seen),
            Some(lost),
            skipped,
            Some(others_lost),
            Some(renewed),
            Some(malformed),
            Some(recovered),
            Some(duplicates),
        ];
        for (column, value) in self.counts.iter_mut().zip(values) {
            column.put_known(self.rows, value);
        }
        self.rows += 1;
    }

    fn begin(&mut self, kind: Kind, time: Timestamp) {
        self.kind.put(self.rows, kind as i8);
        self.time.put(self.rows, to_utc(time, self.clock));
    }

    fn transition(&mut self, transition: &Transition, attribution: &mut Attribution) {
        let Transition {
            time,
            socket,
            cookie,
            from,
            to,
            local,
            remote,
            process,
            thread,
            netns,
            cgroup_id,
            accept_queue,
            data_segments,
            interface,
            transparent,
            defer_accept,
            unaccepted_segments,
            flags,
            info,
        } = transition;
        let row = self.rows;
        self.begin(Kind::Transition, *time);
        self.socket.put(row, socket.0);
        self.cookie.put_known(row, *cookie);
        self.from.put(row, place(*from));
        self.to.put(row, place(*to));
        self.ends(*local, *remote, *netns);
        let begins = matches!((from, to), (TcpState::Closed, TcpState::SynSent | TcpState::Listen));
        self.owner(process.as_ref(), *cgroup_id, begins, *time, attribution);
        self.thread(*thread);
        self.accept_queue(*accept_queue);
        self.data_segments.put_known(row, *data_segments);
        self.interface.put_known(row, *interface);
        self.unaccepted_segments.put_known(row, *unaccepted_segments);
        for (flag, (presence, column)) in
            [(*transparent, &mut self.transparent), (*defer_accept, &mut self.defer_accept)]
        {
            if flag {
                presence.put(row);
                column.put(row, true);
            }
        }
        if let Some(flags) = flags {
            self.flags(*flags);
        }
        if let Some(info) = info {
            self.figures.put(row, info);
        }
    }

    fn existing(&mut self, socket: &ExistingSocket, attribution: &mut Attribution) {
        let ExistingSocket {
            time,
            cookie,
            state,
            state_age_ns,
            local,
            remote,
            process,
            netns,
            cgroup_id,
            info,
        } = socket;
        let row = self.rows;
        self.begin(Kind::Existing, *time);
        self.cookie.put(row, *cookie);
        self.to.put(row, place(*state));
        self.state_age.put_known(row, *state_age_ns);
        self.ends(*local, *remote, *netns);
        self.owner(process.as_ref(), *cgroup_id, false, *time, attribution);
        if let Some(info) = info {
            self.figures.put(row, info);
        }
    }

    fn syn_ack_retransmit(&mut self, event: &SynAckRetransmit) {
        let SynAckRetransmit {
            time,
            listener,
            local,
            remote,
            netns,
            attempts,
            first_sent,
            accept_queue,
            acked,
        } = event;
        self.begin(Kind::SynAckRetransmit, *time);
        self.socket.put(self.rows, listener.0);
        self.ends(*local, *remote, *netns);
        self.attempts.put(self.rows, *attempts);
        self.first_sent.put_known(self.rows, first_sent.map(|time| to_utc(time, self.clock)));
        self.accept_queue(*accept_queue);
        self.acked.0.put(self.rows);
        self.acked.1.put(self.rows, *acked);
    }

    fn first_read(&mut self, event: &FirstRead, attribution: &mut Attribution) {
        let FirstRead { time, socket, process, thread } = event;
        self.begin(Kind::FirstRead, *time);
        self.socket.put(self.rows, socket.0);
        self.owner(Some(process), None, false, *time, attribution);
        self.thread(*thread);
    }

    fn mini_socket_end(&mut self, event: &MiniSocketEnd) {
        let MiniSocketEnd { time, state, local, remote, netns } = event;
        self.begin(Kind::MiniSocketEnd, *time);
        self.from.put(self.rows, place(*state));
        self.ends(*local, *remote, *netns);
    }

    fn ends(&mut self, local: Endpoint, remote: Endpoint, netns: Option<u32>) {
        let row = self.rows;
        self.local_address.put(row, self.local_addresses.index(local.address));
        self.local_port.put_known(row, known(local.port));
        // Absent stands for the unspecified address of the local end's family, which is what the kernel
        // has where there is no remote end.
        if !remote.address.is_unspecified() || remote.address.is_ipv4() != local.address.is_ipv4() {
            self.remote_address.put(row, self.remote_addresses.index(remote.address));
        }
        self.remote_port.put_known(row, known(remote.port));
        self.netns.put_known(row, netns);
    }

    fn owner(
        &mut self,
        process: Option<&Process>,
        cgroup_id: Option<u64>,
        begins: bool,
        time: Timestamp,
        attribution: &mut Attribution,
    ) {
        let row = self.rows;
        let now = Duration::from_nanos(time.0);
        let owners = &mut self.owners;
        let telling = cgroup_id.is_some_and(|id| owners.put_cgroup(row, id, now, attribution));
        let Some(process) = process else { return };
        owners.put_process(row, process);
        if telling {
            return;
        }
        if begins {
            attribution.forget_process(process.pid, now);
        }
        if let Some(cgroup) = attribution.of_process(process.pid, now) {
            owners.put_process_cgroup(row, &cgroup.path);
        }
    }

    fn thread(&mut self, name: Option<[u8; 16]>) {
        if let Some(name) = name {
            self.owners.put_thread(self.rows, name);
        }
    }

    fn accept_queue(&mut self, queue: Option<AcceptQueue>) {
        if let Some(AcceptQueue { length, limit }) = queue {
            self.queued.put(self.rows);
            let [lengths, limits] = &mut self.accept_queue;
            lengths.put(length);
            limits.put(limit);
        }
    }

    fn flags(&mut self, flags: SocketFlags) {
        let SocketFlags {
            error,
            shutdown_receive,
            shutdown_send,
            peer_fin,
            linger_zero,
            attached,
            repair,
            linger2_negative,
            fast_open_deferred,
        } = flags;
        self.flagged.put(self.rows);
        self.error.put(error);
        let values = [shutdown_receive, shutdown_send, peer_fin, linger_zero, attached];
        let more = [repair, linger2_negative, fast_open_deferred];
        let columns = self.flags.iter_mut().chain(&mut self.more_flags);
        for (column, value) in columns.zip(values.into_iter().chain(more)) {
            column.put(self.rows, value);
        }
    }

    /// Appends the rows to `out` as a batch, with the dictionaries that it needs; the next begins empty.
    pub(super) fn write(&mut self, batches: &mut Batches, out: &mut Vec<u8>) {
        self.write_dictionaries(batches, out);
        batches.begin(std::mem::take(&mut self.rows));
        self.write_columns(batches);
        batches.finish_batch(out);
    }

    /// The dictionaries have numbers in the order of their columns.
    fn write_dictionaries(&mut self, batches: &mut Batches, out: &mut Vec<u8>) {
        let [from, to] = &mut self.states;
        self.kinds.write(0, batches, out);
        from.write(1, batches, out);
        to.write(2, batches, out);
        self.local_addresses.write(3, batches, out);
        self.remote_addresses.write(4, batches, out);
        self.owners.write_dictionaries(5, batches, out);
    }

    /// In the order of [`COLUMNS`](super::COLUMNS).
    fn write_columns(&mut self, to: &mut Batches) {
        self.kind.write(to);
        self.time.write(to);
        self.socket.write(to);
        self.cookie.write(to);
        self.from.write(to);
        self.to.write(to);
        self.local_address.write(to);
        self.local_port.write(to);
        self.remote_address.write(to);
        self.remote_port.write(to);
        self.owners.write_processes(to);
        self.netns.write(to);
        self.owners.write_cgroups(to);
        for column in &mut self.accept_queue {
            column.write(&mut self.queued, to);
        }
        self.queued.clear();
        self.error.write(&mut self.flagged, to);
        for column in &mut self.flags {
            column.write(&mut self.flagged, to);
        }
        self.figures.write(to);
        self.state_age.write(to);
        self.attempts.write(to);
        self.first_sent.write(to);
        for column in &mut self.counts {
            column.write(to);
        }
        for column in &mut self.more_flags {
            column.write(&mut self.flagged, to);
        }
        self.flagged.clear();
        self.data_segments.write(to);
        self.interface.write(to);
        self.unaccepted_segments.write(to);
        for (presence, column) in [&mut self.transparent, &mut self.defer_accept, &mut self.acked] {
            column.write(presence, to);
            presence.clear();
        }
        self.owners.write_threads(to);
    }
}

fn known(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

/// The index of a state in the dictionary.
fn place(state: TcpState) -> i8 {
    match state {
        TcpState::Closed => 0,
        TcpState::Listen => 1,
        TcpState::SynSent => 2,
        TcpState::SynReceived => 3,
        TcpState::Established => 4,
        TcpState::FinWait1 => 5,
        TcpState::FinWait2 => 6,
        TcpState::CloseWait => 7,
        TcpState::Closing => 8,
        TcpState::LastAck => 9,
        TcpState::TimeWait => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_in_the_order_of_their_dictionary() {
        for (index, state) in TcpState::ALL.into_iter().enumerate() {
            assert_eq!(usize::try_from(place(state)), Ok(index));
        }
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
