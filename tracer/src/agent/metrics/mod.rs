//! What a daemon counts, and the page it shows the counts on. Pure: no HTTP, no thread, no kernel.
//!
//! The thread that traces writes into a [`Recorder`]'s plain arrays: no lock, no allocation and no hashing
//! for an event, unless an opt-in label asks for one. When somebody wants to look, it copies them into
//! a [`MetricsSnapshot`], and the one who looks makes a page of that in his own time.

mod catalog;
mod format;
mod gauge_scan;
mod histogram;
mod labels;
mod lists;
mod markdown;
mod names;
mod owners;
mod page;
mod process;
mod queues;
mod recorder;
mod snapshot;
mod tally;
mod text;
mod totals;

pub use catalog::{CATALOG, Description, Kind};
pub use format::{Format, PageError};
pub use histogram::{HANDSHAKE_BOUNDS, Histogram, LIFETIME_BOUNDS};
pub use labels::{Label, LabelLimits, LabelTable, OTHER};
pub use lists::{ListError, Networks, Services};
pub use markdown::markdown;
pub use names::{Lost, OutcomeLabel};
pub use owners::{LabelSources, Owners};
pub use page::{Agent, Figures, render};
pub use process::ProcessFigures;
pub use queues::LiveQueues;
pub use recorder::{Recorder, RecorderOptions};
pub use snapshot::MetricsSnapshot;
