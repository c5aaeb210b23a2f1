//! Decodes the rows of a batch into events.

use std::{net::IpAddr, sync::Arc};

use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, PrimitiveArray, RecordBatch,
    StringArray,
    types::{
        ArrowDictionaryKeyType, ArrowPrimitiveType, Int8Type, Int32Type, TimestampNanosecondType, UInt8Type,
        UInt16Type, UInt32Type, UInt64Type,
    },
};
use hashbrown::HashSet;
use tracer_core::event::{
    AcceptQueue, Call, CgroupId, ClockOffset, Endpoint, Event, ExistingSocket, ExistingTimewait,
    HandshakeSegment, InitialSequences, KernelName, Micros, Millis, Nanos, Netns, Process, ResetReceived,
    ResetSent, SegmentDropped, SocketCookie, SocketFlags, SocketId, SourceCounts, SynAckRetransmit, TcpInfo,
    TcpState, ThreadName, Timestamp, TimewaitEnd, Transition, Translated,
};

use crate::{
    host::{Cgroup, PodNames, RecordedCgroups},
    recording::{Kind, from_utc},
};

/// The decoded content of a row.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and nearly always an event")]
pub enum RowContent {
    /// An event.
    Event(Event),
    /// The counts of the source since the file began.
    Counts(SourceCounts),
    /// Content that this version cannot decode.
    Unknown,
}

/// A column of numbers.
struct Numbers<T: ArrowPrimitiveType>(PrimitiveArray<T>);

impl<T: ArrowPrimitiveType> Numbers<T> {
    fn get(&self, row: usize) -> Option<T::Native> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }
}

/// A dictionary column with values that are decoded once per batch.
struct Values<K: ArrowDictionaryKeyType, V> {
    keys: PrimitiveArray<K>,
    values: Vec<Option<V>>,
}

impl<K: ArrowDictionaryKeyType, V> Values<K, V>
where
    usize: TryFrom<K::Native>,
{
    fn get(&self, row: usize) -> Option<&V> {
        if self.keys.is_null(row) {
            return None;
        }
        self.values.get(usize::try_from(self.keys.value(row)).ok()?)?.as_ref()
    }
}

/// Iterates over the columns of a batch.
struct RowColumns<'a>(std::slice::Iter<'a, ArrayRef>);

impl RowColumns<'_> {
    fn array<A: Array + Clone + 'static>(&mut self) -> Option<A> {
        self.0.next()?.as_any().downcast_ref::<A>().cloned()
    }

    fn numbers<T: ArrowPrimitiveType>(&mut self) -> Option<Numbers<T>> {
        self.array().map(Numbers)
    }

    fn values<K: ArrowDictionaryKeyType, V>(
        &mut self,
        read: impl Fn(&str) -> Option<V>,
    ) -> Option<Values<K, V>> {
        let column: DictionaryArray<K> = self.array()?;
        let texts = column.values().as_any().downcast_ref::<StringArray>()?;
        let values = texts.iter().map(|text| text.and_then(&read)).collect();
        Some(Values { keys: column.keys().clone(), values })
    }

    fn several<T, const N: usize>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<[T; N]> {
        let all: Vec<T> = (0..N).map_while(|_| one(self)).collect();
        all.try_into().ok()
    }
}

/// The rows of a batch.
pub struct Rows {
    clock: ClockOffset,
    length: usize,
    kind: Values<Int8Type, Kind>,
    time: Numbers<TimestampNanosecondType>,
    socket: Numbers<UInt64Type>,
    cookie: Numbers<UInt64Type>,
    from: Values<Int8Type, TcpState>,
    to: Values<Int8Type, TcpState>,
    local_address: Values<Int32Type, IpAddr>,
    local_port: Numbers<UInt16Type>,
    remote_address: Values<Int32Type, IpAddr>,
    remote_port: Numbers<UInt16Type>,
    pid: Numbers<UInt32Type>,
    uid: Numbers<UInt32Type>,
    process: Values<Int32Type, [u8; 16]>,
    process_raw: FixedSizeBinaryArray,
    netns: Numbers<UInt32Type>,
    cgroup_id: Numbers<UInt64Type>,
    cgroup: Values<Int32Type, Arc<Cgroup>>,
    process_cgroup: Values<Int32Type, Arc<Cgroup>>,
    accept_queue: [Numbers<UInt32Type>; 2],
    error: Numbers<UInt16Type>,
    flags: [BooleanArray; 5],
    bytes: [Numbers<UInt64Type>; 2],
    info: [Numbers<UInt32Type>; 11],
    waiting: [Numbers<UInt8Type>; 2],
    soft_error: Numbers<UInt16Type>,
    state_age: Numbers<UInt64Type>,
    attempts: Numbers<UInt8Type>,
    first_sent: Numbers<TimestampNanosecondType>,
    counts: [Numbers<UInt64Type>; 8],
    timer_due: Numbers<TimestampNanosecondType>,
    /// The ids and processes whose cgroups were already taken from this batch, and whether with names.
    recorded: HashSet<(Option<CgroupId>, Option<u32>, bool), foldhash::fast::FixedState>,
    more_flags: [BooleanArray; 3],
    data_segments: Numbers<UInt32Type>,
    unaccepted_segments: Numbers<UInt32Type>,
    interface: Numbers<UInt32Type>,
    transparent: BooleanArray,
    defer_accept: BooleanArray,
    acked: BooleanArray,
    thread: Values<Int32Type, [u8; 16]>,
    thread_raw: FixedSizeBinaryArray,
    reason: Values<Int32Type, KernelName>,
    function: Values<Int32Type, KernelName>,
    segment: Values<Int8Type, HandshakeSegment>,
    isns: [Numbers<UInt32Type>; 2],
    backend_address: Values<Int32Type, IpAddr>,
    backend_port: Numbers<UInt16Type>,
    container_name: Values<Int32Type, Arc<str>>,
    k8s_namespace: Values<Int32Type, Box<str>>,
    k8s_pod: Values<Int32Type, Box<str>>,
    /// The name of the recorded host, from which the names of static pods are derived.
    node: String,
}

impl Rows {
    /// Wraps a batch with the columns [`COLUMNS`](crate::recording::COLUMNS); `None` if it has others. `node` is the name of
    /// the recorded host.
    pub fn new(batch: &RecordBatch, clock: ClockOffset, node: &str) -> Option<Self> {
        let cgroup = |path: &str| Some(Arc::new(Cgroup::new(path.to_owned())));
        let address = |text: &str| text.parse().ok();
        let mut columns = RowColumns(batch.columns().iter());
        Some(Self {
            clock,
            length: batch.num_rows(),
            kind: columns.values(Kind::parse)?,
            time: columns.numbers()?,
            socket: columns.numbers()?,
            cookie: columns.numbers()?,
            from: columns.values(state)?,
            to: columns.values(state)?,
            local_address: columns.values(address)?,
            local_port: columns.numbers()?,
            remote_address: columns.values(address)?,
            remote_port: columns.numbers()?,
            pid: columns.numbers()?,
            uid: columns.numbers()?,
            process: columns.values(|name| Some(padded(name)))?,
            process_raw: columns.array()?,
            netns: columns.numbers()?,
            cgroup_id: columns.numbers()?,
            cgroup: columns.values(cgroup)?,
            process_cgroup: columns.values(cgroup)?,
            accept_queue: columns.several(RowColumns::numbers)?,
            error: columns.numbers()?,
            flags: columns.several(RowColumns::array)?,
            bytes: columns.several(RowColumns::numbers)?,
            info: columns.several(RowColumns::numbers)?,
            waiting: columns.several(RowColumns::numbers)?,
            soft_error: columns.numbers()?,
            state_age: columns.numbers()?,
            attempts: columns.numbers()?,
            first_sent: columns.numbers()?,
            counts: columns.several(RowColumns::numbers)?,
            timer_due: columns.numbers()?,
            more_flags: columns.several(RowColumns::array)?,
            data_segments: columns.numbers()?,
            unaccepted_segments: columns.numbers()?,
            interface: columns.numbers()?,
            transparent: columns.array()?,
            defer_accept: columns.array()?,
            acked: columns.array()?,
            thread: columns.values(|name| Some(padded(name)))?,
            thread_raw: columns.array()?,
            reason: columns.values(kernel_name)?,
            function: columns.values(kernel_name)?,
            segment: columns.values(segment)?,
            isns: columns.several(RowColumns::numbers)?,
            backend_address: columns.values(address)?,
            backend_port: columns.numbers()?,
            container_name: columns.values(|name| Some(name.into()))?,
            k8s_namespace: columns.values(|name| Some(name.into()))?,
            k8s_pod: columns.values(|name| Some(name.into()))?,
            node: node.to_owned(),
            recorded: HashSet::default(),
        })
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Decodes a row below [`len`](Self::len), and adds its cgroups to `cgroups`.
    pub fn content(&mut self, row: usize, cgroups: &RecordedCgroups) -> RowContent {
        let content = match self.kind.get(row) {
            None => None,
            Some(Kind::Transition) => self.transition(row, cgroups).map(Event::Transition),
            Some(Kind::Existing) => self.existing(row, cgroups).map(Event::Existing),
            Some(Kind::SnapshotScope) => self.dump_scope(row),
            Some(Kind::ExistingTimewait) => self.existing_timewait(row).map(Event::ExistingTimewait),
            Some(Kind::SnapshotEnd) => {
                let timewait = self.to.get(row) == Some(&TcpState::TimeWait);
                self.time(row).map(|started| Event::DumpEnd { started, timewait })
            }
            Some(Kind::SynAckRetransmit) => self.syn_ack_retransmit(row).map(Event::SynAckRetransmit),
            Some(Kind::FirstRead) => self.call(row, cgroups).map(Event::FirstRead),
            Some(Kind::FirstWrite) => self.call(row, cgroups).map(Event::FirstWrite),
            Some(Kind::TimewaitEnd) => self.timewait_end(row).map(Event::TimewaitEnd),
            Some(Kind::Accepted) => self.call(row, cgroups).map(Event::Accepted),
            Some(Kind::ResetSent) => self.reset_sent(row).map(Event::ResetSent),
            Some(Kind::ResetReceived) => self.reset_received(row).map(Event::ResetReceived),
            Some(Kind::SegmentDropped) => self.segment_dropped(row).map(Event::SegmentDropped),
            Some(Kind::Translated) => self.translated(row).map(Event::Translated),
            Some(Kind::Time) => self.time(row).map(Event::Time),
            Some(Kind::Counts) => {
                return self.counts(row).map_or(RowContent::Unknown, RowContent::Counts);
            }
        };
        content.map_or(RowContent::Unknown, RowContent::Event)
    }

    fn dump_scope(&self, row: usize) -> Option<Event> {
        Some(Event::DumpScope { started: self.time(row)?, netns: Netns(self.netns.get(row)?) })
    }

    fn time(&self, row: usize) -> Option<Timestamp> {
        self.time.get(row).map(|utc| from_utc(utc, self.clock))
    }

    fn endpoints(&self, row: usize) -> Option<(Endpoint, Endpoint)> {
        let local = *self.local_address.get(row)?;
        let remote = match self.remote_address.get(row) {
            Some(address) => *address,
            None if self.remote_address.keys.is_null(row) => unspecified(local),
            None => return None,
        };
        let end = |address, port: Option<u16>| Endpoint { address, port: port.unwrap_or(0) };
        Some((end(local, self.local_port.get(row)), end(remote, self.remote_port.get(row))))
    }

    fn process(&self, row: usize) -> Option<Process> {
        let pid = self.pid.get(row)?;
        let comm = if self.process_raw.is_valid(row) {
            self.process_raw.value(row).try_into().ok()?
        } else {
            *self.process.get(row)?
        };
        Some(Process { pid, uid: self.uid.get(row)?, comm })
    }

    fn thread(&self, row: usize) -> Option<ThreadName> {
        if self.thread_raw.is_valid(row) {
            return self.thread_raw.value(row).try_into().ok().map(ThreadName);
        }
        self.thread.get(row).copied().map(ThreadName)
    }

    /// Adds the cgroups of the row to `cgroups`, once per batch.
    fn record_cgroups(&mut self, row: usize, process: Option<&Process>, cgroups: &RecordedCgroups) {
        let id = self.cgroup_id.get(row).map(CgroupId);
        let pid = process.map(|process| process.pid);
        let by_process = self.process_cgroup.get(row);
        let by_id = self.cgroup.get(row);
        let container = self.container_name.get(row);
        let pod = self.k8s_namespace.get(row).zip(self.k8s_pod.get(row));
        // A later row cannot add more for the same id and process.
        let complete = by_process.is_none() && (by_id.is_some() || id.is_none());
        if complete && !self.recorded.insert((id, pid, container.is_some() || pod.is_some())) {
            return;
        }
        // The names are those of the cgroup that says more.
        if let Some(cgroup) = by_process.or(by_id) {
            if let Some(name) = container {
                cgroup.names.set_container(Arc::clone(name));
            }
            if let Some((namespace, pod)) = pod
                && cgroup.pod().is_none()
                && let Some(names) =
                    PodNames::new(namespace, pod, cgroup.owner.pod_uid.as_deref(), &self.node)
            {
                cgroup.names.set_pod(Arc::new(names));
            }
        }
        if let (Some(id), Some(cgroup)) = (id, by_id) {
            cgroups.insert_id(id, Arc::clone(cgroup));
        }
        if let Some(pid) = pid
            && (by_process.is_some() || by_id.is_none_or(|cgroup| cgroup.path == "/"))
        {
            cgroups.set_process(pid, by_process.cloned());
        }
    }

    fn transition(&mut self, row: usize, cgroups: &RecordedCgroups) -> Option<Transition> {
        let (local, remote) = self.endpoints(row)?;
        let process = self.process(row);
        self.record_cgroups(row, process.as_ref(), cgroups);
        Some(Transition {
            time: self.time(row)?,
            socket: SocketId(self.socket.get(row)?),
            cookie: self.cookie.get(row).map(SocketCookie),
            from: *self.from.get(row)?,
            to: *self.to.get(row)?,
            local,
            remote,
            process,
            thread: self.thread(row),
            netns: self.netns.get(row).map(Netns),
            cgroup_id: self.cgroup_id.get(row).map(CgroupId),
            accept_queue: self.accept_queue(row),
            data_segments: self.data_segments.get(row),
            unaccepted_segments: self.unaccepted_segments.get(row),
            interface: self.interface.get(row),
            transparent: is_true(&self.transparent, row),
            defer_accept: is_true(&self.defer_accept, row),
            flags: self.flags(row),
            info: self.info(row),
            sequences: self.sequences(row),
        })
    }

    fn existing(&mut self, row: usize, cgroups: &RecordedCgroups) -> Option<ExistingSocket> {
        let (local, remote) = self.endpoints(row)?;
        let process = self.process(row);
        self.record_cgroups(row, process.as_ref(), cgroups);
        Some(ExistingSocket {
            time: self.time(row)?,
            cookie: SocketCookie(self.cookie.get(row)?),
            state: *self.to.get(row)?,
            state_age: self.state_age.get(row).map(Nanos),
            local,
            remote,
            process,
            netns: self.netns.get(row).map(Netns),
            cgroup_id: self.cgroup_id.get(row).map(CgroupId),
            info: self.info(row),
            interface: self.interface.get(row),
        })
    }

    fn existing_timewait(&self, row: usize) -> Option<ExistingTimewait> {
        let (local, remote) = self.endpoints(row)?;
        Some(ExistingTimewait {
            time: self.time(row)?,
            state: *self.to.get(row)?,
            timer_due: self.timer_due.get(row).map(|utc| from_utc(utc, self.clock))?,
            local,
            remote,
            netns: self.netns.get(row).map(Netns),
        })
    }

    fn syn_ack_retransmit(&self, row: usize) -> Option<SynAckRetransmit> {
        let (local, remote) = self.endpoints(row)?;
        Some(SynAckRetransmit {
            time: self.time(row)?,
            listener: SocketId(self.socket.get(row)?),
            local,
            remote,
            netns: self.netns.get(row).map(Netns),
            attempts: self.attempts.get(row)?,
            first_sent: self.first_sent.get(row).map(|utc| from_utc(utc, self.clock)),
            accept_queue: self.accept_queue(row),
            acked: is_true(&self.acked, row),
            sequences: self.sequences(row),
        })
    }

    fn call(&mut self, row: usize, cgroups: &RecordedCgroups) -> Option<Call> {
        let process = self.process(row)?;
        self.record_cgroups(row, Some(&process), cgroups);
        Some(Call {
            time: self.time(row)?,
            socket: SocketId(self.socket.get(row)?),
            process,
            thread: self.thread(row),
        })
    }

    fn reset_sent(&self, row: usize) -> Option<ResetSent> {
        let (local, remote) = self.endpoints(row)?;
        Some(ResetSent {
            time: self.time(row)?,
            socket: self.socket.get(row).map(SocketId),
            state: self.from.get(row).copied(),
            local,
            remote,
            netns: self.netns.get(row).map(Netns),
            reason: self.reason.get(row).copied(),
        })
    }

    fn reset_received(&self, row: usize) -> Option<ResetReceived> {
        Some(ResetReceived { time: self.time(row)?, socket: SocketId(self.socket.get(row)?) })
    }

    fn segment_dropped(&self, row: usize) -> Option<SegmentDropped> {
        let (source, destination) = self.endpoints(row)?;
        Some(SegmentDropped {
            time: self.time(row)?,
            socket: self.socket.get(row).map(SocketId),
            source,
            destination,
            netns: self.netns.get(row).map(Netns),
            segment: *self.segment.get(row)?,
            reason: self.reason.get(row).copied()?,
            function: self.function.get(row).copied(),
        })
    }

    fn translated(&self, row: usize) -> Option<Translated> {
        let (client, service) = self.endpoints(row)?;
        let address = *self.backend_address.get(row)?;
        Some(Translated {
            time: self.time(row)?,
            client,
            service,
            backend: Endpoint { address, port: self.backend_port.get(row).unwrap_or(0) },
            netns: self.netns.get(row).map(Netns),
        })
    }

    fn timewait_end(&self, row: usize) -> Option<TimewaitEnd> {
        let (local, remote) = self.endpoints(row)?;
        let state = *self.from.get(row)?;
        Some(TimewaitEnd {
            time: self.time(row)?,
            state,
            local,
            remote,
            netns: self.netns.get(row).map(Netns),
        })
    }

    fn sequences(&self, row: usize) -> Option<InitialSequences> {
        let [local, remote] = &self.isns;
        Some(InitialSequences { local: local.get(row)?, remote: remote.get(row) })
    }

    fn accept_queue(&self, row: usize) -> Option<AcceptQueue> {
        let [length, limit] = &self.accept_queue;
        Some(AcceptQueue { length: length.get(row)?, limit: limit.get(row)? })
    }

    fn flags(&self, row: usize) -> Option<SocketFlags> {
        let error = self.error.get(row)?;
        let [shutdown_receive, shutdown_send, peer_fin, linger_zero, attached] =
            self.flags.each_ref().map(|column| is_true(column, row));
        // False in files of versions without these columns.
        let [repair, linger2_negative, fast_open_deferred] =
            self.more_flags.each_ref().map(|column| is_true(column, row));
        Some(SocketFlags {
            error,
            shutdown_receive,
            shutdown_send,
            peer_fin,
            linger_zero,
            attached,
            repair,
            linger2_negative,
            fast_open_deferred,
        })
    }

    fn info(&self, row: usize) -> Option<TcpInfo> {
        let [bytes_sent, bytes_received] = self.bytes.each_ref().map(|column| column.get(row));
        let bytes_sent = bytes_sent?;
        let [
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
        ] = self.info.each_ref().map(|column| column.get(row));
        let [pending_retransmits, probes] = self.waiting.each_ref().map(|column| column.get(row));
        Some(TcpInfo {
            bytes_sent,
            bytes_received: bytes_received?,
            segments_sent: segments_sent?,
            segments_received: segments_received?,
            data_segments_received: data_segments_received?,
            retransmits: retransmits?,
            srtt: srtt_us.map(Micros),
            min_rtt: min_rtt_us.map(Micros),
            mss: mss?,
            user_timeout: user_timeout_ms.map(Millis),
            unacked_bytes: unacked_bytes?,
            unread_bytes: unread_bytes?,
            segments_in_flight: segments_in_flight?,
            pending_retransmits: pending_retransmits?,
            probes: probes?,
            soft_error: self.soft_error.get(row)?,
        })
    }

    fn counts(&self, row: usize) -> Option<SourceCounts> {
        let [seen, lost, skipped, others_lost, resyncs, malformed, recovered, duplicates] =
            self.counts.each_ref().map(|column| column.get(row));
        Some(SourceCounts {
            seen: seen?,
            lost: lost?,
            skipped,
            others_lost: others_lost?,
            resyncs: resyncs?,
            malformed: malformed?,
            // Absent in files of versions without a twin program.
            recovered: recovered.unwrap_or(0),
            duplicates: duplicates.unwrap_or(0),
        })
    }
}

fn is_true(column: &BooleanArray, row: usize) -> bool {
    column.is_valid(row) && column.value(row)
}

fn state(name: &str) -> Option<TcpState> {
    TcpState::ALL.into_iter().find(|state| state.name() == name)
}

fn segment(name: &str) -> Option<HandshakeSegment> {
    HandshakeSegment::ALL.into_iter().find(|segment| segment.name() == name)
}

#[expect(clippy::unnecessary_wraps, reason = "reads a dictionary's value, as the other functions do")]
fn kernel_name(name: &str) -> Option<KernelName> {
    Some(KernelName::new(name.as_bytes()))
}

/// Pads a name with NUL to the kernel's 16 bytes, and truncates a longer one.
fn padded(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    for (byte, &from) in comm.iter_mut().zip(name.as_bytes()) {
        *byte = from;
    }
    comm
}

fn unspecified(like: IpAddr) -> IpAddr {
    if like.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    }
}
