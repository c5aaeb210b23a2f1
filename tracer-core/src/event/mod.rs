//! The vocabulary between a source of events and the core.

mod counts;
mod identity;
mod kinds;
mod process;
mod state;
mod tcp_info;
mod time;

pub use counts::SourceCounts;
pub use identity::{Endpoint, SocketId};
pub use kinds::{Event, ExistingSocket, FirstRead, SynAckRetransmit, TimewaitEnd, Transition};
pub use process::Process;
pub use state::TcpState;
pub use tcp_info::{AcceptQueue, SocketFlags, TcpInfo};
pub use time::{ClockOffset, Timestamp};
