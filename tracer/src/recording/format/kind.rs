//! The kinds of rows.

/// The kind of a row, the `kind` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A socket changed its state.
    Transition = 0,
    /// A socket existed before its first transition in this file.
    Existing = 1,
    /// The end of a socket dump.
    SnapshotEnd = 2,
    /// A SYN-ACK was retransmitted.
    SynAckRetransmit = 3,
    /// The first read of a process from a connection.
    FirstRead = 4,
    /// A timewait socket ended.
    TimewaitEnd = 5,
    /// Time passed without events.
    Time = 6,
    /// The counts of seen and missed events since the file began.
    Counts = 7,
    /// The socket dump covers this network namespace.
    SnapshotScope = 8,
    /// A timewait socket existed when a socket dump began.
    ExistingTimewait = 9,
    /// A process accepted a connection.
    Accepted = 10,
    /// This host sent a reset.
    ResetSent = 11,
    /// The peer sent a reset.
    ResetReceived = 12,
    /// This host dropped a segment of a handshake.
    SegmentDropped = 13,
    /// The first write of a process to a connection.
    FirstWrite = 14,
    /// This host translates a connection.
    Translated = 15,
}

impl Kind {
    /// Every kind, in the order of the column's dictionary.
    pub const ALL: [Self; 16] = [
        Self::Transition,
        Self::Existing,
        Self::SnapshotEnd,
        Self::SynAckRetransmit,
        Self::FirstRead,
        Self::TimewaitEnd,
        Self::Time,
        Self::Counts,
        Self::SnapshotScope,
        Self::ExistingTimewait,
        Self::Accepted,
        Self::ResetSent,
        Self::ResetReceived,
        Self::SegmentDropped,
        Self::FirstWrite,
        Self::Translated,
    ];

    /// Returns the name in the `kind` column, which is part of the contract.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transition => "transition",
            Self::Existing => "existing",
            Self::SnapshotEnd => "snapshot_end",
            Self::SynAckRetransmit => "syn_ack_retransmit",
            Self::FirstRead => "first_read",
            Self::TimewaitEnd => "mini_socket_end",
            Self::Time => "time",
            Self::Counts => "counts",
            Self::SnapshotScope => "snapshot_scope",
            Self::ExistingTimewait => "existing_timewait",
            Self::Accepted => "accepted",
            Self::ResetSent => "reset_sent",
            Self::ResetReceived => "reset_received",
            Self::SegmentDropped => "segment_dropped",
            Self::FirstWrite => "first_write",
            Self::Translated => "translated",
        }
    }

    /// Returns the kind with this name; `None` for kinds of later versions.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
