//! From the rows of a batch to events.

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

use crate::{
    event::{
        AcceptQueue, Endpoint, Event, ExistingSocket, FirstRead, MiniSocketEnd, Process, SocketFlags,
        SocketId, SourceCounts, SynAckRetransmit, TcpInfo, Timestamp, Transition,
    },
    lifecycle::TcpState,
    owner::{Cgroup, CgroupOwner, RecordedCgroups},
    recording::{Kind, from_utc},
    source::ClockOffset,
};

/// What a row tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RowContent {
    /// An event.
    Event(Event),
    /// The source's account since the file began.
    Counts(SourceCounts),
    /// Nothing that this version understands.
    Unknown,
}

/// A column of numbers.
struct Numbers<T: ArrowPrimitiveType>(PrimitiveArray<T>);

impl<T: ArrowPrimitiveType> Numbers<T> {
    fn get(&self, row: usize) -> Option<T::Native> {
        self.0.is_valid(row).then(|| self.0.value(row))
    }
}

/// A column whose values have been understood once for the batch.
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

/// Takes the columns of a batch one after another.
struct Columns<'a>(std::slice::Iter<'a, ArrayRef>);

impl Columns<'_> {
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
    more_flags: [BooleanArray; 3],
    data_segments: Numbers<UInt32Type>,
    interface: Numbers<UInt32Type>,
    unaccepted_segments: Numbers<UInt32Type>,
    transparent: BooleanArray,
    defer_accept: BooleanArray,
    acked: BooleanArray,
    thread: Values<Int32Type, [u8; 16]>,
    thread_raw: FixedSizeBinaryArray,
    /// The ids and processes whose cgroups this batch has told.
    told: HashSet<(Option<u64>, Option<u32>), foldhash::fast::FixedState>,
}

impl Rows {
    /// The rows of a batch whose columns are [`COLUMNS`](crate::recording::COLUMNS); none when they are not.
    pub fn new(batch: &RecordBatch, clock: ClockOffset) -> Option<Self> {
        let cgroup = |path: &str| {
            Some(Arc::new(Cgroup { path: path.to_owned(), owner: CgroupOwner::from_path(path) }))
        };
        let address = |text: &str| text.parse().ok();
        let mut columns = Columns(batch.columns().iter());
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
            accept_queue: columns.several(Columns::numbers)?,
            error: columns.numbers()?,
            flags: columns.several(Columns::array)?,
            bytes: columns.several(Columns::numbers)?,
            info: columns.several(Columns::numbers)?,
            waiting: columns.several(Columns::numbers)?,
            soft_error: columns.numbers()?,
            state_age: columns.numbers()?,
            attempts: columns.numbers()?,
            first_sent: columns.numbers()?,
            counts: columns.several(Columns::numbers)?,
            more_flags: columns.several(Columns::array)?,
            data_segments: columns.numbers()?,
            interface: columns.numbers()?,
            unaccepted_segments: columns.numbers()?,
            transparent: columns.array()?,
            defer_accept: columns.array()?,
            acked: columns.array()?,
            thread: columns.values(|name| Some(padded(name)))?,
            thread_raw: columns.array()?,
            told: HashSet::default(),
        })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What a row below [`len`](Self::len) tells; what it tells of cgroups goes to `cgroups`.
    pub fn content(&mut self, row: usize, cgroups: &RecordedCgroups) -> RowContent {
        let content = match self.kind.get(row) {
            None => None,
            Some(Kind::Transition) => self.transition(row, cgroups).map(Event::Transition),
            Some(Kind::Existing) => self.existing(row, cgroups).map(Event::Existing),
            Some(Kind::SnapshotScope) => self.snapshot_scope(row),
            Some(Kind::SnapshotEnd) => self.time(row).map(|started| Event::SnapshotEnd { started }),
            Some(Kind::SynAckRetransmit) => self.syn_ack_retransmit(row).map(Event::SynAckRetransmit),
            Some(Kind::FirstRead) => self.first_read(row, cgroups).map(Event::FirstRead),
            Some(Kind::MiniSocketEnd) => self.mini_socket_end(row).map(Event::MiniSocketEnd),
            Some(Kind::Time) => self.time(row).map(Event::Time),
            Some(Kind::Counts) => {
                return self.counts(row).map_or(RowContent::Unknown, RowContent::Counts);
            }
        };
        content.map_or(RowContent::Unknown, RowContent::Event)
    }

    fn snapshot_scope(&self, row: usize) -> Option<Event> {
        Some(Event::SnapshotScope { started: self.time(row)?, netns: self.netns.get(row)? })
    }

    fn time(&self, row: usize) -> Option<Timestamp> {
        self.time.get(row).map(|utc| from_utc(utc, self.clock))
    }

    fn ends(&self, row: usize) -> Option<(Endpoint, Endpoint)> {
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

    fn thread(&self, row: usize) -> Option<[u8; 16]> {
        if self.thread_raw.is_valid(row) {
            return self.thread_raw.value(row).try_into().ok();
        }
        self.thread.get(row).copied()
    }

    /// Passes on what the row says about cgroups, once a batch.
    fn tell(&mut self, row: usize, process: Option<&Process>, cgroups: &RecordedCgroups) {
        let id = self.cgroup_id.get(row);
        let pid = process.map(|process| process.pid);
        let by_process = self.process_cgroup.get(row);
        let by_id = self.cgroup.get(row);
        let final_word = by_process.is_none() && (by_id.is_some() || id.is_none());
        if final_word && !self.told.insert((id, pid)) {
            return;
        }
        if let (Some(id), Some(cgroup)) = (id, by_id) {
            cgroups.tell_id(id, Arc::clone(cgroup));
        }
        if let Some(pid) = pid
            && (by_process.is_some() || by_id.is_none_or(|cgroup| cgroup.path == "/"))
        {
            cgroups.tell_process(pid, by_process.cloned());
        }
    }

    fn transition(&mut self, row: usize, cgroups: &RecordedCgroups) -> Option<Transition> {
        let (local, remote) = self.ends(row)?;
        let process = self.process(row);
        self.tell(row, process.as_ref(), cgroups);
        Some(Transition {
            time: self.time(row)?,
            socket: SocketId(self.socket.get(row)?),
            cookie: self.cookie.get(row),
            from: *self.from.get(row)?,
            to: *self.to.get(row)?,
            local,
            remote,
            process,
            thread: self.thread(row),
            netns: self.netns.get(row),
            cgroup_id: self.cgroup_id.get(row),
            accept_queue: self.accept_queue(row),
            data_segments: self.data_segments.get(row),
            interface: self.interface.get(row),
            transparent: is_true(&self.transparent, row),
            defer_accept: is_true(&self.defer_accept, row),
            unaccepted_segments: self.unaccepted_segments.get(row),
            flags: self.flags(row),
            info: self.info(row),
        })
    }

    fn existing(&mut self, row: usize, cgroups: &RecordedCgroups) -> Option<ExistingSocket> {
        let (local, remote) = self.ends(row)?;
        let process = self.process(row);
        self.tell(row, process.as_ref(), cgroups);
        Some(ExistingSocket {
            time: self.time(row)?,
            cookie: self.cookie.get(row)?,
            state: *self.to.get(row)?,
            state_age_ns: self.state_age.get(row),
            local,
            remote,
            process,
            netns: self.netns.get(row),
            cgroup_id: self.cgroup_id.get(row),
            info: self.info(row),
        })
    }

    fn syn_ack_retransmit(&self, row: usize) -> Option<SynAckRetransmit> {
        let (local, remote) = self.ends(row)?;
        Some(SynAckRetransmit {
            time: self.time(row)?,
            listener: SocketId(self.socket.get(row)?),
            local,
            remote,
            netns: self.netns.get(row),
            attempts: self.attempts.get(row)?,
            first_sent: self.first_sent.get(row).map(|utc| from_utc(utc, self.clock)),
            accept_queue: self.accept_queue(row),
            acked: is_true(&self.acked, row),
        })
    }

    fn first_read(&mut self, row: usize, cgroups: &RecordedCgroups) -> Option<FirstRead> {
        let process = self.process(row)?;
        self.tell(row, Some(&process), cgroups);
        Some(FirstRead {
            time: self.time(row)?,
            socket: SocketId(self.socket.get(row)?),
            process,
            thread: self.thread(row),
        })
    }

    fn mini_socket_end(&self, row: usize) -> Option<MiniSocketEnd> {
        let (local, remote) = self.ends(row)?;
        let state = *self.from.get(row)?;
        Some(MiniSocketEnd { time: self.time(row)?, state, local, remote, netns: self.netns.get(row) })
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
            srtt_us,
            min_rtt_us,
            mss: mss?,
            user_timeout_ms,
            unacked_bytes: unacked_bytes?,
            unread_bytes: unread_bytes?,
            segments_in_flight: segments_in_flight?,
            pending_retransmits: pending_retransmits?,
            probes: probes?,
            soft_error: self.soft_error.get(row)?,
        })
    }

    fn counts(&self, row: usize) -> Option<SourceCounts> {
        let [seen, lost, skipped, others_lost, renewed, malformed, recovered, duplicates] =
            self.counts.each_ref().map(|column| column.get(row));
        Some(SourceCounts {
            seen: seen?,
            lost: lost?,
            skipped,
            others_lost: others_lost?,
            renewed: renewed?,
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

/// A name as the kernel has it, cut if a file has a longer one.
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
