//! What the scenarios share: network namespaces that nothing else uses, the traced program, sockets, and
//! a relay that delays and drops segments.
//!
//! Nothing here touches the host's own network: every socket lives in a namespace that the test made and
//! that vanishes with it, and the program shows only that namespace's connections.

#![expect(
    clippy::missing_panics_doc,
    reason = "a test has nothing better to do with a failure than to panic"
)]

mod alone;
pub mod daemon;
pub mod http;
pub mod namespace;
pub mod process;
pub mod program;
pub mod pty;
pub mod rows;
pub mod sockets;
pub mod speed;
pub mod tracer;
pub mod tun;
pub mod wait;
pub mod witness;

pub use daemon::Daemon;
pub use namespace::Namespace;
pub use process::Process;
pub use rows::{Connection, Stuck, StuckGroup, Transition};
pub use tracer::{Mode, Tracer};
pub use witness::{Witness, Witnessed};
