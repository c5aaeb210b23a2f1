//! Checks that events allocate no memory after all data structures have their final size, neither in the
//! connection table nor in the output.

use std::time::Duration;

use clap::ValueEnum as _;
use tcptrace_bench::{
    allocations::Counting,
    replay::{Replay, Stage},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test for all stages, because the counter is global to the process.
#[test]
fn events_allocate_no_memory() {
    const SPACING: Duration = Duration::from_millis(1);
    for &stage in Stage::value_variants() {
        let mut replay = Replay::new(1_000, SPACING, stage);
        replay.settle(SPACING).unwrap();
        let result = replay.run(200_000).unwrap();
        assert_eq!(result.allocations, 0, "{stage:?}, {} events", result.events);
        assert_eq!(result.rows > 0, !matches!(stage, Stage::Core | Stage::Metrics), "{stage:?}");
    }
    assert!(tcptrace_bench::allocations::calls() > 0, "the counter is installed");
}
