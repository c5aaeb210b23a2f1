//! Independent counts of TCP events: the kernel's own trace events, without BPF.
//!
//! ftrace records an event into a tracefs instance of its own. It loses no event if its buffer is large enough, which the
//! ends of the witnesses check.

mod instance;
mod process;
mod resets;
mod transitions;

pub use resets::{ResetWitness, WitnessedResets};
pub use transitions::{Witness, Witnessed};
