//! The input of the core: the events that a source delivers, and their values.

mod counts;
mod identity;
mod kernel_name;
mod kinds;
mod process;
mod sequences;
mod state;
mod tcp_info;
mod time;

pub use counts::SourceCounts;
pub use identity::{CgroupId, ConnKey, ConnectionId, Endpoint, Netns, SocketCookie, SocketId};
pub use kernel_name::KernelName;
pub use kinds::{
    Call, Event, ExistingSocket, ExistingTimewait, HandshakeSegment, ResetReceived, ResetSent,
    SegmentDropped, SynAckRetransmit, TimewaitEnd, Transition, Translated,
};
pub use process::{Process, ThreadName};
pub use sequences::InitialSequences;
pub use state::TcpState;
pub use tcp_info::{AcceptQueue, SocketFlags, TcpInfo};
pub use time::{ClockOffset, Micros, Millis, Nanos, Timestamp};
