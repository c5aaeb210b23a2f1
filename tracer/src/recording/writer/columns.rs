//! Collects the rows of a batch in columns.

use std::time::Duration;

use tracer_core::event::{
    AcceptQueue, Call, CgroupId, ClockOffset, Endpoint, Event, ExistingSocket, ExistingTimewait,
    HandshakeSegment, InitialSequences, KernelName, Netns, Process, ResetReceived, ResetSent, SegmentDropped,
    SocketFlags, SourceCounts, SynAckRetransmit, TcpState, ThreadName, Timestamp, TimewaitEnd, Transition,
    Translated,
};

use crate::{
    host::CgroupResolver,
    recording::{
        Kind, to_utc,
        writer::{
            addresses::Addresses,
            batches::Batches,
            info::InfoColumns,
            interner::Interner,
            owners::Owners,
            sparse::{Flag, Names, Sparse, Values},
            validity::Validity,
        },
    },
};

/// The columns of a batch that is being collected.
#[derive(Debug)]
pub(super) struct BatchColumns {
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
    queued: Validity,
    accept_queue: [Values<u32>; 2],
    flagged: Validity,
    error: Values<u16>,
    flags: [Flag; 5],
    info: InfoColumns,
    state_age: Sparse<u64>,
    attempts: Sparse<u8>,
    first_sent: Sparse<i64>,
    counts: [Sparse<u64>; 8],
    timer_due: Sparse<i64>,
    more_flags: [Flag; 3],
    data_segments: Sparse<u32>,
    unaccepted_segments: Sparse<u32>,
    interface: Sparse<u32>,
    transparent: (Validity, Flag),
    defer_accept: (Validity, Flag),
    acked: (Validity, Flag),
    reason: Sparse<i32>,
    reasons: Interner<KernelName>,
    function: Sparse<i32>,
    functions: Interner<KernelName>,
    segment: Sparse<i8>,
    segments: Names,
    isns: [Sparse<u32>; 2],
    backend_address: Sparse<i32>,
    backend_addresses: Addresses,
    backend_port: Sparse<u16>,
}

impl BatchColumns {
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
            queued: Validity::default(),
            accept_queue: Default::default(),
            flagged: Validity::default(),
            error: Values::default(),
            flags: Default::default(),
            info: InfoColumns::default(),
            state_age: Sparse::default(),
            attempts: Sparse::default(),
            first_sent: Sparse::default(),
            counts: Default::default(),
            timer_due: Sparse::default(),
            more_flags: Default::default(),
            data_segments: Sparse::default(),
            unaccepted_segments: Sparse::default(),
            interface: Sparse::default(),
            transparent: Default::default(),
            defer_accept: Default::default(),
            acked: Default::default(),
            reason: Sparse::default(),
            reasons: Interner::default(),
            function: Sparse::default(),
            functions: Interner::default(),
            segment: Sparse::default(),
            segments: Names::new(HandshakeSegment::ALL.map(HandshakeSegment::name)),
            isns: Default::default(),
            backend_address: Sparse::default(),
            backend_addresses: Addresses::default(),
            backend_port: Sparse::default(),
        }
    }

    /// Returns the number of rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds an event, with the cgroup paths from `resolver`.
    pub(super) fn event(&mut self, event: &Event, resolver: &mut CgroupResolver) {
        match event {
            Event::Transition(transition) => self.transition(transition, resolver),
            Event::Existing(socket) => self.existing(socket, resolver),
            Event::DumpScope { started, netns } => {
                self.begin(Kind::SnapshotScope, *started);
                self.netns.put(self.rows, netns.0);
            }
            Event::ExistingTimewait(socket) => self.existing_timewait(socket),
            Event::DumpEnd { started, timewait } => {
                self.begin(Kind::SnapshotEnd, *started);
                if *timewait {
                    self.to.put(self.rows, state_index(TcpState::TimeWait));
                }
            }
            Event::SynAckRetransmit(event) => self.syn_ack_retransmit(event),
            Event::FirstRead(call) => self.call(Kind::FirstRead, call, resolver),
            Event::FirstWrite(call) => self.call(Kind::FirstWrite, call, resolver),
            Event::TimewaitEnd(event) => self.timewait_end(event),
            Event::Accepted(call) => self.call(Kind::Accepted, call, resolver),
            Event::ResetSent(event) => self.reset_sent(event),
            Event::ResetReceived(event) => self.reset_received(event),
            Event::SegmentDropped(event) => self.segment_dropped(event),
            Event::Translated(event) => self.translated(event),
            Event::Time(time) => self.begin(Kind::Time, *time),
        }
        self.rows += 1;
    }

    /// Adds the counts of the source.
    pub(super) fn counts(&mut self, time: Timestamp, counts: &SourceCounts) {
        let SourceCounts { seen, lost, skipped, others_lost, resyncs, malformed, recovered, duplicates } =
            *counts;
        self.begin(Kind::Counts, time);
        let values = [
            Some(seen),
            Some(lost),
            skipped,
            Some(others_lost),
            Some(resyncs),
            Some(malformed),
            Some(recovered),
            Some(duplicates),
        ];
        for (column, value) in self.counts.iter_mut().zip(values) {
            column.put_optional(self.rows, value);
        }
        self.rows += 1;
    }

    fn begin(&mut self, kind: Kind, time: Timestamp) {
        self.kind.put(self.rows, kind as i8);
        self.time.put(self.rows, to_utc(time, self.clock));
    }

    fn transition(&mut self, transition: &Transition, resolver: &mut CgroupResolver) {
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
            unaccepted_segments,
            interface,
            transparent,
            defer_accept,
            flags,
            info,
            sequences,
        } = transition;
        let row = self.rows;
        self.begin(Kind::Transition, *time);
        self.socket.put(row, socket.0);
        self.cookie.put_optional(row, cookie.map(|cookie| cookie.0));
        self.from.put(row, state_index(*from));
        self.to.put(row, state_index(*to));
        self.endpoints(*local, *remote, *netns);
        let starts = matches!((from, to), (TcpState::Closed, TcpState::SynSent | TcpState::Listen));
        self.owner(process.as_ref(), *cgroup_id, starts, *time, resolver);
        self.thread(*thread);
        self.accept_queue(*accept_queue);
        self.data_segments.put_optional(row, *data_segments);
        self.unaccepted_segments.put_optional(row, *unaccepted_segments);
        self.interface.put_optional(row, *interface);
        for (is_set, (validity, column)) in
            [(*transparent, &mut self.transparent), (*defer_accept, &mut self.defer_accept)]
        {
            if is_set {
                validity.put(row);
                column.put(row, true);
            }
        }
        if let Some(flags) = flags {
            self.flags(*flags);
        }
        if let Some(info) = info {
            self.info.put(row, info);
        }
        self.isns(*sequences);
    }

    fn existing(&mut self, socket: &ExistingSocket, resolver: &mut CgroupResolver) {
        let ExistingSocket {
            time,
            cookie,
            state,
            state_age,
            local,
            remote,
            process,
            netns,
            cgroup_id,
            info,
            interface,
        } = socket;
        let row = self.rows;
        self.begin(Kind::Existing, *time);
        self.cookie.put(row, cookie.0);
        self.to.put(row, state_index(*state));
        self.state_age.put_optional(row, state_age.map(|age| age.0));
        self.endpoints(*local, *remote, *netns);
        self.owner(process.as_ref(), *cgroup_id, false, *time, resolver);
        if let Some(info) = info {
            self.info.put(row, info);
        }
        self.interface.put_optional(row, *interface);
    }

    fn existing_timewait(&mut self, socket: &ExistingTimewait) {
        let ExistingTimewait { time, state, timer_due, local, remote, netns } = *socket;
        self.begin(Kind::ExistingTimewait, time);
        self.to.put(self.rows, state_index(state));
        self.timer_due.put(self.rows, to_utc(timer_due, self.clock));
        self.endpoints(local, remote, netns);
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
            sequences,
        } = event;
        self.begin(Kind::SynAckRetransmit, *time);
        self.socket.put(self.rows, listener.0);
        self.endpoints(*local, *remote, *netns);
        self.attempts.put(self.rows, *attempts);
        self.first_sent.put_optional(self.rows, first_sent.map(|time| to_utc(time, self.clock)));
        self.accept_queue(*accept_queue);
        self.acked.0.put(self.rows);
        self.acked.1.put(self.rows, *acked);
        self.isns(*sequences);
    }

    fn call(&mut self, kind: Kind, call: &Call, resolver: &mut CgroupResolver) {
        let Call { time, socket, process, thread } = call;
        self.begin(kind, *time);
        self.socket.put(self.rows, socket.0);
        self.owner(Some(process), None, false, *time, resolver);
        self.thread(*thread);
    }

    fn timewait_end(&mut self, event: &TimewaitEnd) {
        let TimewaitEnd { time, state, local, remote, netns } = event;
        self.begin(Kind::TimewaitEnd, *time);
        self.from.put(self.rows, state_index(*state));
        self.endpoints(*local, *remote, *netns);
    }

    fn reset_sent(&mut self, event: &ResetSent) {
        let ResetSent { time, socket, state, local, remote, netns, reason } = *event;
        self.begin(Kind::ResetSent, time);
        self.socket.put_optional(self.rows, socket.map(|socket| socket.0));
        self.from.put_optional(self.rows, state.map(state_index));
        self.endpoints(local, remote, netns);
        self.reason(reason);
    }

    fn reset_received(&mut self, event: &ResetReceived) {
        let ResetReceived { time, socket } = *event;
        self.begin(Kind::ResetReceived, time);
        self.socket.put(self.rows, socket.0);
    }

    fn segment_dropped(&mut self, event: &SegmentDropped) {
        let SegmentDropped { time, socket, source, destination, netns, segment, reason, function } = *event;
        self.begin(Kind::SegmentDropped, time);
        self.socket.put_optional(self.rows, socket.map(|socket| socket.0));
        self.endpoints(source, destination, netns);
        self.segment.put(self.rows, segment as i8);
        self.reason(Some(reason));
        if let Some(function) = function {
            let index = self.functions.index(function, |to| to.extend_from_slice(function.text().as_bytes()));
            self.function.put(self.rows, index);
        }
    }

    fn translated(&mut self, event: &Translated) {
        let Translated { time, client, service, backend, netns } = *event;
        self.begin(Kind::Translated, time);
        self.endpoints(client, service, netns);
        self.backend_address.put(self.rows, self.backend_addresses.index(backend.address));
        self.backend_port.put_optional(self.rows, nonzero(backend.port));
    }

    fn reason(&mut self, reason: Option<KernelName>) {
        if let Some(reason) = reason {
            let index = self.reasons.index(reason, |to| to.extend_from_slice(reason.text().as_bytes()));
            self.reason.put(self.rows, index);
        }
    }

    fn endpoints(&mut self, local: Endpoint, remote: Endpoint, netns: Option<Netns>) {
        let row = self.rows;
        self.local_address.put(row, self.local_addresses.index(local.address));
        self.local_port.put_optional(row, nonzero(local.port));
        // Null means the unspecified address of the local address family, the kernel's value without a remote endpoint.
        if !remote.address.is_unspecified() || remote.address.is_ipv4() != local.address.is_ipv4() {
            self.remote_address.put(row, self.remote_addresses.index(remote.address));
        }
        self.remote_port.put_optional(row, nonzero(remote.port));
        self.netns.put_optional(row, netns.map(|netns| netns.0));
    }

    fn owner(
        &mut self,
        process: Option<&Process>,
        cgroup_id: Option<CgroupId>,
        starts: bool,
        time: Timestamp,
        resolver: &mut CgroupResolver,
    ) {
        let row = self.rows;
        let now = Duration::from_nanos(time.0);
        let owners = &mut self.owners;
        let informative = cgroup_id.is_some_and(|id| owners.put_cgroup(row, id, process, now, resolver));
        let Some(process) = process else { return };
        owners.put_process(row, process);
        if informative {
            return;
        }
        if starts {
            resolver.expire_process(process.pid, now);
        }
        if let Some(cgroup) = resolver.of_process(process.pid, now) {
            owners.put_process_cgroup(row, &cgroup);
        }
    }

    fn thread(&mut self, name: Option<ThreadName>) {
        if let Some(name) = name {
            self.owners.put_thread(self.rows, name);
        }
    }

    fn isns(&mut self, sequences: Option<InitialSequences>) {
        if let Some(InitialSequences { local, remote }) = sequences {
            let [locals, remotes] = &mut self.isns;
            locals.put(self.rows, local);
            remotes.put_optional(self.rows, remote);
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

    /// Appends the rows to `out` as a batch with its dictionaries, and clears the columns.
    pub(super) fn write(&mut self, batches: &mut Batches, out: &mut Vec<u8>) {
        self.write_dictionaries(batches, out);
        batches.begin(std::mem::take(&mut self.rows));
        self.write_columns(batches);
        batches.finish_batch(out);
    }

    /// Writes the dictionaries, numbered in the order of their columns.
    fn write_dictionaries(&mut self, batches: &mut Batches, out: &mut Vec<u8>) {
        let [from, to] = &mut self.states;
        self.kinds.write(0, batches, out);
        from.write(1, batches, out);
        to.write(2, batches, out);
        self.local_addresses.write(3, batches, out);
        self.remote_addresses.write(4, batches, out);
        self.owners.write_dictionaries(5, batches, out);
        self.reasons.write(9, batches, out);
        self.functions.write(10, batches, out);
        self.segments.write(11, batches, out);
        self.backend_addresses.write(12, batches, out);
        self.owners.write_name_dictionaries(13, batches, out);
    }

    /// Writes the columns in the order of [`COLUMNS`](crate::recording::COLUMNS).
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
        self.info.write(to);
        self.state_age.write(to);
        self.attempts.write(to);
        self.first_sent.write(to);
        for column in &mut self.counts {
            column.write(to);
        }
        self.timer_due.write(to);
        for column in &mut self.more_flags {
            column.write(&mut self.flagged, to);
        }
        self.flagged.clear();
        self.data_segments.write(to);
        self.unaccepted_segments.write(to);
        self.interface.write(to);
        for (validity, column) in [&mut self.transparent, &mut self.defer_accept, &mut self.acked] {
            column.write(validity, to);
            validity.clear();
        }
        self.owners.write_threads(to);
        self.reason.write(to);
        self.function.write(to);
        self.segment.write(to);
        for column in &mut self.isns {
            column.write(to);
        }
        self.backend_address.write(to);
        self.backend_port.write(to);
        self.owners.write_names(to);
    }
}

fn nonzero(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

/// Returns the index of a state in the dictionary.
fn state_index(state: TcpState) -> i8 {
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
            assert_eq!(usize::try_from(state_index(state)), Ok(index));
        }
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index);
        }
    }
}
