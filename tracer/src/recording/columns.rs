//! The rows of a batch while they are collected.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{ArrayBuilder as _, FixedSizeBinaryBuilder},
    types::{TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};
use arrow_schema::{ArrowError, SchemaRef};

use super::{
    Kind,
    sparse::{Name, Sparse, SparseBool, Text},
    to_utc,
};
use crate::{
    event::{
        AcceptQueue, Endpoint, Event, ExistingSocket, FirstRead, MiniSocketEnd, Process, SocketFlags,
        SourceCounts, SynAckRetransmit, TcpInfo, Timestamp, Transition,
    },
    lifecycle::TcpState,
    output::escape,
    owner::Attribution,
    source::ClockOffset,
};

/// The rows of a batch while they are collected.
#[derive(Debug)]
pub(super) struct Columns {
    clock: ClockOffset,
    rows: usize,
    kind: Name,
    time: Sparse<TimestampNanosecondType>,
    socket: Sparse<UInt64Type>,
    cookie: Sparse<UInt64Type>,
    from: Name,
    to: Name,
    local_address: Text<IpAddr>,
    local_port: Sparse<UInt16Type>,
    remote_address: Text<IpAddr>,
    remote_port: Sparse<UInt16Type>,
    pid: Sparse<UInt32Type>,
    uid: Sparse<UInt32Type>,
    process: Text<[u8; 16]>,
    process_raw: Vec<(usize, [u8; 16])>,
    netns: Sparse<UInt32Type>,
    cgroup_id: Sparse<UInt64Type>,
    cgroup: Text<u64>,
    /// The cgroup at the top of the hierarchy, which says nothing about a socket in it.
    root_id: Option<u64>,
    process_cgroup: Text<String>,
    accept_queue: [Sparse<UInt32Type>; 2],
    error: Sparse<UInt16Type>,
    flags: [SparseBool; 5],
    bytes: [Sparse<UInt64Type>; 2],
    info: [Sparse<UInt32Type>; 11],
    waiting: [Sparse<UInt8Type>; 2],
    soft_error: Sparse<UInt16Type>,
    state_age: Sparse<UInt64Type>,
    attempts: Sparse<UInt8Type>,
    first_sent: Sparse<TimestampNanosecondType>,
    counts: [Sparse<UInt64Type>; 6],
}

impl Columns {
    pub(super) fn new(clock: ClockOffset) -> Self {
        let states = || Name::new(TcpState::ALL.map(TcpState::name));
        Self {
            clock,
            rows: 0,
            kind: Name::new(Kind::ALL.map(Kind::name)),
            time: Sparse::default(),
            socket: Sparse::default(),
            cookie: Sparse::default(),
            from: states(),
            to: states(),
            local_address: Text::default(),
            local_port: Sparse::default(),
            remote_address: Text::default(),
            remote_port: Sparse::default(),
            pid: Sparse::default(),
            uid: Sparse::default(),
            process: Text::default(),
            process_raw: Vec::new(),
            netns: Sparse::default(),
            cgroup_id: Sparse::default(),
            cgroup: Text::default(),
            root_id: None,
            process_cgroup: Text::default(),
            accept_queue: Default::default(),
            error: Sparse::default(),
            flags: Default::default(),
            bytes: Default::default(),
            info: Default::default(),
            waiting: Default::default(),
            soft_error: Sparse::default(),
            state_age: Sparse::default(),
            attempts: Sparse::default(),
            first_sent: Sparse::default(),
            counts: Default::default(),
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
        let SourceCounts { seen, lost, skipped, others_lost, renewed, malformed } = *counts;
        self.begin(Kind::Counts, time);
        let values = [Some(seen), Some(lost), skipped, Some(others_lost), Some(renewed), Some(malformed)];
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
            netns,
            cgroup_id,
            accept_queue,
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
        self.accept_queue(*accept_queue);
        if let Some(flags) = flags {
            self.flags(*flags);
        }
        if let Some(info) = info {
            self.info(info);
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
            self.info(info);
        }
    }

    fn syn_ack_retransmit(&mut self, event: &SynAckRetransmit) {
        let SynAckRetransmit { time, listener, local, remote, netns, attempts, first_sent, accept_queue } =
            event;
        self.begin(Kind::SynAckRetransmit, *time);
        self.socket.put(self.rows, listener.0);
        self.ends(*local, *remote, *netns);
        self.attempts.put(self.rows, *attempts);
        self.first_sent.put_known(self.rows, first_sent.map(|time| to_utc(time, self.clock)));
        self.accept_queue(*accept_queue);
    }

    fn first_read(&mut self, event: &FirstRead, attribution: &mut Attribution) {
        let FirstRead { time, socket, process } = event;
        self.begin(Kind::FirstRead, *time);
        self.socket.put(self.rows, socket.0);
        self.owner(Some(process), None, false, *time, attribution);
    }

    fn mini_socket_end(&mut self, event: &MiniSocketEnd) {
        let MiniSocketEnd { time, state, local, remote, netns } = event;
        self.begin(Kind::MiniSocketEnd, *time);
        self.from.put(self.rows, place(*state));
        self.ends(*local, *remote, *netns);
    }

    fn ends(&mut self, local: Endpoint, remote: Endpoint, netns: Option<u32>) {
        let row = self.rows;
        self.local_address.put(row, local.address, || local.address.to_string());
        self.local_port.put_known(row, known(local.port));
        // Absent stands for the unspecified address of the local end's family, which is what the kernel
        // has where there is no remote end.
        if !remote.address.is_unspecified() || remote.address.is_ipv4() != local.address.is_ipv4() {
            self.remote_address.put(row, remote.address, || remote.address.to_string());
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
        let mut telling = false;
        if let Some(id) = cgroup_id {
            self.cgroup_id.put(row, id);
            if let Some(index) = self.cgroup.known(&id) {
                self.cgroup.put_known(row, index);
                telling = self.root_id != Some(id);
            } else if let Some(cgroup) = attribution.of_id(id, now) {
                telling = cgroup.path != "/";
                if !telling {
                    self.root_id = Some(id);
                }
                self.cgroup.put(row, id, || cgroup.path.clone());
            }
        }
        let Some(process) = process else { return };
        self.pid.put(row, process.pid);
        self.uid.put(row, process.uid);
        self.process.put(row, process.comm, || escape(process.name()));
        if !is_plain(process) {
            self.process_raw.push((row, process.comm));
        }
        if !telling {
            if begins {
                attribution.forget_process(process.pid, now);
            }
            if let Some(cgroup) = attribution.of_process(process.pid, now) {
                self.process_cgroup.put(row, cgroup.path.clone(), || cgroup.path.clone());
            }
        }
    }

    fn accept_queue(&mut self, queue: Option<AcceptQueue>) {
        if let Some(AcceptQueue { length, limit }) = queue {
            let [lengths, limits] = &mut self.accept_queue;
            lengths.put(self.rows, length);
            limits.put(self.rows, limit);
        }
    }

    fn flags(&mut self, flags: SocketFlags) {
        let SocketFlags { error, shutdown_receive, shutdown_send, peer_fin, linger_zero, attached } = flags;
        self.error.put(self.rows, error);
        let values = [shutdown_receive, shutdown_send, peer_fin, linger_zero, attached];
        for (column, value) in self.flags.iter_mut().zip(values) {
            column.put(self.rows, value);
        }
    }

    fn info(&mut self, info: &TcpInfo) {
        let TcpInfo {
            bytes_sent,
            bytes_received,
            segments_sent,
            segments_received,
            data_segments_received,
            retransmits,
            srtt_us,
            min_rtt_us,
            mss,
            user_timeout_ms,
            unacked_bytes,
            unread_bytes,
            segments_in_flight,
            pending_retransmits,
            probes,
            soft_error,
        } = *info;
        let row = self.rows;
        for (column, value) in self.bytes.iter_mut().zip([bytes_sent, bytes_received]) {
            column.put(row, value);
        }
        let values = [
            Some(segments_sent),
            Some(segments_received),
            Some(data_segments_received),
            Some(retransmits),
            srtt_us,
            min_rtt_us,
            Some(mss),
            user_timeout_ms,
            Some(unacked_bytes),
            Some(unread_bytes),
            Some(segments_in_flight),
        ];
        for (column, value) in self.info.iter_mut().zip(values) {
            column.put_known(row, value);
        }
        for (column, value) in self.waiting.iter_mut().zip([pending_retransmits, probes]) {
            column.put(row, value);
        }
        self.soft_error.put(row, soft_error);
    }

    /// The rows as a batch; the next begins empty.
    pub(super) fn finish(&mut self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let mut raw = FixedSizeBinaryBuilder::with_capacity(0, 16);
        for (row, comm) in self.process_raw.drain(..) {
            raw.append_nulls(row - raw.len());
            raw.append_value(comm)?;
        }
        raw.append_nulls(rows - raw.len());
        let mut columns: Vec<ArrayRef> = vec![
            self.kind.array(rows)?,
            Arc::new(self.time.finish(rows).with_timezone("UTC")),
            self.socket.array(rows),
            self.cookie.array(rows),
            self.from.array(rows)?,
            self.to.array(rows)?,
            self.local_address.array(rows)?,
            self.local_port.array(rows),
            self.remote_address.array(rows)?,
            self.remote_port.array(rows),
            self.pid.array(rows),
            self.uid.array(rows),
            self.process.array(rows)?,
            Arc::new(raw.finish()),
            self.netns.array(rows),
            self.cgroup_id.array(rows),
            self.cgroup.array(rows)?,
            self.process_cgroup.array(rows)?,
        ];
        columns.extend(self.accept_queue.iter_mut().map(|column| column.array(rows)));
        columns.push(self.error.array(rows));
        columns.extend(self.flags.iter_mut().map(|column| column.array(rows)));
        columns.extend(self.bytes.iter_mut().map(|column| column.array(rows)));
        columns.extend(self.info.iter_mut().map(|column| column.array(rows)));
        columns.extend(self.waiting.iter_mut().map(|column| column.array(rows)));
        columns.push(self.soft_error.array(rows));
        columns.push(self.state_age.array(rows));
        columns.push(self.attempts.array(rows));
        columns.push(Arc::new(self.first_sent.finish(rows).with_timezone("UTC")));
        columns.extend(self.counts.iter_mut().map(|column| column.array(rows)));
        RecordBatch::try_new(Arc::clone(schema), columns)
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

/// Whether the name's text gives its 16 bytes back.
fn is_plain(process: &Process) -> bool {
    let name = process.name();
    name.iter().all(|&byte| matches!(byte, b' '..=b'~') && byte != b'\\')
        && process.comm[name.len()..].iter().all(|&byte| byte == 0)
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
