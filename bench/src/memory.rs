//! Measures the memory of the connection table.

use std::{fs, hint::black_box};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tcptrace_bench::{
    allocations,
    workload::{self, Workload},
};
use tracer_core::lifecycle::{Tracker, TrackerOptions};

/// Connections of the warm-up; their memory is negligible.
const FEW: usize = 100;

/// Fills a table with established connections.
pub(crate) fn fill(live: usize) -> Result<Value> {
    // Maps the code into memory, which does not count as the table's.
    drop(filled(&mut Workload::new(FEW, workload::BUSY), FEW));
    let mut workload = Workload::new(live, workload::BUSY);
    let (resident, in_use) = (resident_bytes()?, allocations::bytes_in_use());
    let tracker = filled(&mut workload, live);
    let value = json!({
        "live": tracker.live(),
        "resident_bytes": resident_bytes()?.saturating_sub(resident),
        "allocated_bytes": allocations::bytes_in_use().saturating_sub(in_use),
    });
    black_box(&tracker);
    Ok(value)
}

fn filled(workload: &mut Workload, live: usize) -> Tracker {
    let mut tracker =
        Tracker::new(TrackerOptions { max_connections: live.max(1), ..TrackerOptions::default() });
    tracker.observe(&workload.listener(), &mut |_| {});
    for event in workload.establish() {
        tracker.observe(&event, &mut |_| {});
    }
    tracker
}

fn resident_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/statm").context("could not read /proc/self/statm")?;
    let pages: u64 = text
        .split_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok())
        .context("/proc/self/statm has no second number")?;
    Ok(pages * rustix::param::page_size() as u64)
}
