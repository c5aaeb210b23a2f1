//! The columns of a recording.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Metadata, Schema, SchemaRef, TimeUnit};

/// The storage type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// A fixed name: a dictionary of UTF-8 with 8-bit indices.
    Name,
    /// Repeated text: a dictionary of UTF-8 with 32-bit indices.
    Text,
    /// 16 bytes.
    Bytes16,
    /// A time: nanoseconds since 1970-01-01T00:00:00Z, marked as UTC.
    Time,
    /// An unsigned integer of 64 bits.
    U64,
    /// An unsigned integer of 32 bits.
    U32,
    /// An unsigned integer of 16 bits.
    U16,
    /// An unsigned integer of 8 bits.
    U8,
    /// True or false.
    Bool,
}

impl ColumnType {
    /// Returns the Arrow type.
    pub fn data_type(self) -> DataType {
        let dictionary = |keys| DataType::Dictionary(Box::new(keys), Box::new(DataType::Utf8));
        match self {
            Self::Name => dictionary(DataType::Int8),
            Self::Text => dictionary(DataType::Int32),
            Self::Bytes16 => DataType::FixedSizeBinary(16),
            Self::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            Self::U64 => DataType::UInt64,
            Self::U32 => DataType::UInt32,
            Self::U16 => DataType::UInt16,
            Self::U8 => DataType::UInt8,
            Self::Bool => DataType::Boolean,
        }
    }

    /// Returns the name in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Name | Self::Text => "text",
            Self::Bytes16 => "16 bytes",
            Self::Time => "timestamp (ns, UTC)",
            Self::U64 => "uint64",
            Self::U32 => "uint32",
            Self::U16 => "uint16",
            Self::U8 => "uint8",
            Self::Bool => "bool",
        }
    }
}

/// The contract of a column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The name.
    pub name: &'static str,
    /// The storage type.
    pub kind: ColumnType,
    /// The unit of numbers; empty without a unit.
    pub unit: &'static str,
    /// The meaning.
    pub about: &'static str,
}

impl Column {
    /// Whether recordings of earlier versions lack the column.
    pub fn is_optional(&self) -> bool {
        matches!(
            self.name,
            "recovered"
                | "duplicates"
                | "timer_due"
                | "repair"
                | "linger2_negative"
                | "fast_open_deferred"
                | "data_segments"
                | "unaccepted_segments"
                | "interface"
                | "transparent"
                | "defer_accept"
                | "acked"
                | "thread"
                | "thread_raw"
                | "reason"
                | "function"
                | "segment"
                | "local_isn"
                | "remote_isn"
                | "backend_address"
                | "backend_port"
                | "container_name"
                | "k8s_namespace"
                | "k8s_pod"
        )
    }
}

const fn column(name: &'static str, kind: ColumnType, unit: &'static str, about: &'static str) -> Column {
    Column { name, kind, unit, about }
}

/// The columns, in their order. All except the first two are null where they do not apply or are unknown.
pub const COLUMNS: [Column; 75] = {
    use ColumnType::{Bool, Bytes16, Name, Text, Time, U8, U16, U32, U64};
    [
        column("kind", Name, "", "kind of event"),
        column("time", Time, "ns", "time of the event; of a socket dump, its start"),
        column("socket", U64, "", "identity of the socket; for a SYN-ACK, of the listener"),
        column("cookie", U64, "", "the kernel's socket cookie"),
        column("from_state", Name, "", "the state left"),
        column(
            "to_state",
            Name,
            "",
            "the state entered; of an existing socket, its state; of a dump's end, time_wait if the dump lists timewait sockets",
        ),
        column("local_address", Text, "", "the local address"),
        column("local_port", U16, "", "the local port"),
        column("remote_address", Text, "", "the remote address"),
        column("remote_port", U16, "", "the remote port"),
        column("pid", U32, "", "process id in the initial pid namespace"),
        column("uid", U32, "", "user id of the process"),
        column("process", Text, "", "process name, unsafe bytes escaped"),
        column("process_raw", Bytes16, "", "raw process name, set only if `process` has escapes"),
        column("netns", U32, "", "inode of the network namespace"),
        column("cgroup_id", U64, "", "id of the socket's cgroup"),
        column("cgroup", Text, "", "path of the socket's cgroup, looked up while recording"),
        column("process_cgroup", Text, "", "path of the process's cgroup, if the socket's is uninformative"),
        column("accept_queue", U32, "connections", "connections waiting for accept()"),
        column("accept_queue_limit", U32, "connections", "limit of the accept queue"),
        column("error", U16, "", "errno of the socket, 0 for none"),
        column("shutdown_receive", Bool, "", "the application shut down receiving"),
        column("shutdown_send", Bool, "", "the application shut down sending"),
        column("peer_fin", Bool, "", "the peer's FIN was received"),
        column("linger_zero", Bool, "", "SO_LINGER with a time of 0 is set"),
        column("attached", Bool, "", "an application holds a descriptor"),
        column("bytes_sent", U64, "bytes", "payload sent, without retransmissions"),
        column("bytes_received", U64, "bytes", "payload received in order"),
        column("segments_sent", U32, "segments", "segments sent"),
        column("segments_received", U32, "segments", "segments received"),
        column("data_segments_received", U32, "segments", "segments with payload received"),
        column("retransmits", U32, "segments", "segments retransmitted"),
        column("srtt_us", U32, "us", "smoothed round-trip time"),
        column("min_rtt_us", U32, "us", "minimum round-trip time"),
        column("mss", U32, "bytes", "maximum segment size in use"),
        column("user_timeout_ms", U32, "ms", "TCP_USER_TIMEOUT"),
        column("unacked_bytes", U32, "bytes", "written and not yet acknowledged"),
        column("unread_bytes", U32, "bytes", "received and not yet read"),
        column("segments_in_flight", U32, "segments", "segments in flight"),
        column("pending_retransmits", U8, "segments", "retransmissions of the pending segment"),
        column("probes", U8, "probes", "unanswered keepalive or zero-window probes"),
        column("soft_error", U16, "", "errno of a soft error from ICMP, 0 for none"),
        column("state_age_ns", U64, "ns", "minimum time an existing socket has been in its state"),
        column("attempts", U8, "", "number of SYN-ACK retransmissions"),
        column("first_sent", Time, "ns", "time of the first SYN-ACK"),
        column("seen", U64, "transitions", "transitions seen since the file began"),
        column("lost", U64, "transitions", "transitions lost in a full buffer since the file began"),
        column(
            "skipped",
            U64,
            "",
            "skipped runs of the program that were not recovered, since the file began",
        ),
        column("others_lost", U64, "events", "other events lost in a full buffer since the file began"),
        column("renewed", U64, "", "resyncs after missed events since the file began"),
        column("malformed", U64, "records", "records that could not be decoded since the file began"),
        column(
            "recovered",
            U64,
            "transitions",
            "transitions recovered from skipped runs since the file began",
        ),
        column(
            "duplicates",
            U64,
            "transitions",
            "transitions recorded twice and dropped once, since the file began",
        ),
        column("timer_due", Time, "ns", "when the kernel is due to remove an existing timewait socket"),
        column("repair", Bool, "", "the socket is in TCP_REPAIR mode"),
        column("linger2_negative", Bool, "", "TCP_LINGER2 is negative: no FIN_WAIT2 after close()"),
        column("fast_open_deferred", Bool, "", "the SYN was deferred to the first write"),
        column(
            "data_segments",
            U32,
            "segments",
            "payload segments received so far, when the application closes or shuts down",
        ),
        column(
            "unaccepted_segments",
            U32,
            "segments",
            "segments received so far, at the peer's FIN of a connection that was not accepted",
        ),
        column("interface", U32, "", "index of the interface that the socket is bound to"),
        column("transparent", Bool, "", "true if the listener has IP_TRANSPARENT"),
        column("defer_accept", Bool, "", "true if the listener has TCP_DEFER_ACCEPT"),
        column("acked", Bool, "", "the SYN-ACK was retransmitted after the client's ACK"),
        column("thread", Text, "", "name of the thread if it is not the main thread, unsafe bytes escaped"),
        column("thread_raw", Bytes16, "", "name of the thread if escaping changed it"),
        column("reason", Text, "", "the kernel's reason for a reset or a drop"),
        column("function", Text, "", "kernel function that dropped a segment"),
        column("segment", Name, "", "dropped segment of a handshake: syn, syn_ack or ack"),
        column("local_isn", U32, "", "initial sequence number of this host, at the end of a handshake"),
        column("remote_isn", U32, "", "initial sequence number of the peer, at the end of a handshake"),
        column("backend_address", Text, "", "address behind the translated remote address"),
        column("backend_port", U16, "", "port behind the translated remote port"),
        column("container_name", Text, "", "name of the container, looked up while recording"),
        column("k8s_namespace", Text, "", "namespace of the Kubernetes pod"),
        column("k8s_pod", Text, "", "name of the Kubernetes pod"),
    ]
};

/// Returns the schema with this metadata.
pub fn arrow_schema(metadata: Metadata) -> SchemaRef {
    let fields: Vec<Field> = COLUMNS
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let mut about = Metadata::from([("description", column.about)]);
            if !column.unit.is_empty() {
                about.insert("unit", column.unit);
            }
            Field::new(column.name, column.kind.data_type(), index > 1).with_metadata(about)
        })
        .collect();
    Arc::new(Schema::new_with_metadata(fields, metadata))
}
