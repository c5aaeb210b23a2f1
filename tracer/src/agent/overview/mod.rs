//! The last hour of `serve`, for the page and its JSON API. Does no I/O and reads no clock.
//!
//! The tracing thread counts into an [`OverviewRecorder`]: each minute has its counts, and the connection table is scanned
//! while somebody asks. On request, the thread hands out an [`OverviewSnapshot`], which shares the past minutes;
//! [`overview`] turns it into an [`Overview`] off the tracing thread.
//!
//! Memory is bounded: the counts of an hour take at most 6 MB, its handshake groups 2 to 23 MB (3 to 20 KiB for each of
//! at most 1,152 groups), its notable handshakes 0.5 MB.

mod buckets;
mod document;
mod edges;
mod facet;
mod health;
mod history;
mod listening;
mod live;
mod minute;
mod recorder;
mod view;

pub use document::{ApiError, FrozenFile, Overview, openapi};
pub use facet::{Facet, FilterError};
pub use recorder::{OverviewRecorder, OverviewSnapshot};
pub use view::{Inputs, overview};
