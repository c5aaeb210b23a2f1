//! What a row of a recording tells.

/// What a row of a recording tells; the `kind` column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A socket changed its state.
    Transition = 0,
    /// A socket existed before its first transition in this file.
    Existing = 1,
    /// Every socket that existed has been told.
    SnapshotEnd = 2,
    /// A SYN-ACK was sent again.
    SynAckRetransmit = 3,
    /// A process read from an accepted connection for the first time.
    FirstRead = 4,
    /// What the kernel kept of a closed connection has ended.
    TimewaitEnd = 5,
    /// Time has passed.
    Time = 6,
    /// What was seen and what was missed since the file began.
    Counts = 7,
    /// The look that is being told is of one network namespace.
    SnapshotScope = 8,
}

impl Kind {
    /// Every kind, in the order of the column's dictionary.
    pub const ALL: [Self; 9] = [
        Self::Transition,
        Self::Existing,
        Self::SnapshotEnd,
        Self::SynAckRetransmit,
        Self::FirstRead,
        Self::TimewaitEnd,
        Self::Time,
        Self::Counts,
        Self::SnapshotScope,
    ];

    /// The name in the `kind` column; part of the contract.
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
        }
    }

    /// The kind with this name; none for those of later versions.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
