//! Once everything has its final size, an event obtains no memory: not in the table of connections, and not on
//! its way to a line.

use std::time::Duration;

use clap::ValueEnum as _;
use tcptrace_bench::{
    allocations::Counting,
    replay::{Replay, Stage},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test for all: the counter is the whole process's.
#[test]
fn no_event_obtains_memory() {
    const SPACING: Duration = Duration::from_millis(1);
    for &stage in Stage::value_variants() {
        let mut replay = Replay::new(1_000, SPACING, stage);
        replay.settle(SPACING).unwrap();
        let taken = replay.run(200_000).unwrap();
        assert_eq!(taken.allocations, 0, "{stage:?}, {} events", taken.events);
        assert_eq!(taken.rows > 0, !matches!(stage, Stage::Core | Stage::Metrics), "{stage:?}");
    }
    assert!(tcptrace_bench::allocations::calls() > 0, "the counter is installed");
}
