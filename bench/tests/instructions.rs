//! Limits the instructions per event, counted by callgrind: the same on every machine and under every load.
//!
//! The counts are of the test profile, which optimizes little; the test only detects growth. After intended
//! growth, or with another compiler, record the new count here.

use std::{fs, path::Path, process::Command};

/// Recorded instructions per event.
const BUDGETS: [(&str, u64); 5] = [
    ("core", 1_078),
    ("transitions-json", 13_777),
    ("connections-json", 7_471),
    ("transitions-table", 7_168),
    ("connections-table", 3_598),
];

/// Allowed excess over a budget, in percent.
const TOLERANCE_PERCENT: u64 = 5;

/// Number of events: a multiple of the replay's batch size.
const EVENTS: u64 = 2 * 16_384;

#[test]
fn instructions_per_event_stay_within_budget() {
    let counts = BUDGETS.map(|(stage, _)| (stage, instructions(stage) / EVENTS));
    for ((stage, budget), (_, count)) in BUDGETS.into_iter().zip(counts) {
        assert!(
            count * 100 <= budget * (100 + TOLERANCE_PERCENT),
            "{stage}: {count} instructions per event exceed the budget of {budget}; all counts: {counts:?}"
        );
    }
}

/// Returns the instructions of one replay, without generating its events.
fn instructions(stage: &str) -> u64 {
    let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("callgrind.{stage}"));
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*replay*measured*"])
        .arg(format!("--callgrind-out-file={}", report.display()))
        .arg(env!("CARGO_BIN_EXE_tcptrace-bench"))
        .args(["replay", "--stage", stage, "--live", "1000", "--spacing", "5000"])
        .args(["--events", &EVENTS.to_string()])
        .output()
        .unwrap_or_else(|error| panic!("valgrind cannot start: {error}; `cargo xtask test` installs it"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(&report).expect("callgrind writes its report");
    let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
    let total = total.and_then(|total| total.trim().parse().ok());
    total.unwrap_or_else(|| panic!("callgrind's report {} has no summary", report.display()))
}
