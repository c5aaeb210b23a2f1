//! Decides when a flight recorder writes out its last events: conditions on what happened in a sliding window.
//!
//! A [`FreezeTrigger`] gets observations and evaluates its [`FreezeCondition`]s over the last seconds of the traced host's
//! time. A condition triggers once and is armed again after it has not held for a whole window. After a trigger, none
//! follows during a pause, so a lasting or flapping condition does not fill a disk.

mod condition;
mod stuck_scan;
mod trigger;
mod window;

pub use condition::{FreezeCondition, FreezeCount, FreezeMeasure, FreezeReason, Measured};
pub use trigger::{FreezeTrigger, FreezeTriggerOptions};
pub use window::MIN_HANDSHAKES;
