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
        // Each minute of the page has tables of its own, which grow with the processes, addresses and ports in it.
        let most = if stage == Stage::Page { result.events / 50 } else { 0 };
        assert!(
            result.allocations <= most,
            "{stage:?}: {} allocations for {} events",
            result.allocations,
            result.events
        );
        assert_eq!(
            result.rows > 0,
            !matches!(stage, Stage::Core | Stage::Metrics | Stage::Page),
            "{stage:?}"
        );
    }
    assert!(tcptrace_bench::allocations::calls() > 0, "the counter is installed");
}
