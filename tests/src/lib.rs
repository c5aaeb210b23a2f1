//! Shared code of the scenarios: isolated network namespaces, the program under test, sockets, and a relay
//! that delays and drops segments.
//!
//! Nothing here touches the host's own network. Every socket is in a namespace that the test creates; the
//! program shows only that namespace's connections. The namespace disappears with the test.

#![expect(clippy::missing_panics_doc, reason = "a panic is how a test reports a failure")]

mod alone;
pub mod cgroup;
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

pub use daemon::Daemon;
pub use namespace::Namespace;
pub use process::ChildProcess;
pub use rows::{Connection, Join, JoinedHandshake, Listener, ListenerDrops, Stuck, StuckGroup, Transition};
pub use tcptrace_witness::{ResetWitness, Witness, Witnessed, WitnessedResets};
pub use tracer::{Mode, Tracer};
