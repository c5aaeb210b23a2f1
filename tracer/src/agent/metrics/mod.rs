//! The metrics of `serve`: counting, and rendering of the `/metrics` page. Does no I/O and reads no clock.
//!
//! The tracing thread counts into the plain arrays of a [`Recorder`]. Without opt-in labels, an event takes no lock,
//! no allocation and no hashing. For a scrape, the tracing thread copies the counts into a [`MetricsSnapshot`];
//! [`render`] turns it into a page off the tracing thread.
//!
//! Everything that takes I/O comes from outside: the text of the lists, the [`CgroupLookup`], and the [`Figures`].

mod catalog;
mod format;
mod gauge_scan;
mod histogram;
mod label_sources;
mod labels;
mod lists;
mod markdown;
mod names;
mod owners;
mod page;
mod port_drops;
mod queues;
mod recorder;
mod snapshot;
mod tally;
mod text;
mod totals;

pub use catalog::{CATALOG, Description, MetricKind};
pub use format::{PageError, PageFormat};
pub(crate) use label_sources::CgroupLookup;
pub use label_sources::LabelSources;
pub use labels::{Label, LabelLimits};
pub use lists::{LineError, Networks, Services};
pub use markdown::markdown;
pub use page::{Agent, Figures, ListenerFigures, ProcessFigures, render};
pub use port_drops::{PortDropCounter, PortDrops};
pub use queues::LiveQueues;
pub use recorder::{Recorder, RecorderOptions};
pub use snapshot::MetricsSnapshot;
