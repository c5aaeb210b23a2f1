//! The protocol between the host and the guest's init. Compiled into both.

use serde::{Deserialize, Serialize};

/// Path of the [`Plan`] in the initramfs.
pub(crate) const PLAN: &str = "/plan.json";

/// Parameter of the kernel's command line with the device of the serial port for messages.
pub(crate) const REPORT_PORT: &str = "tcptrace.report";

/// The host's instructions to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Paths of kernel modules to load, dependencies first.
    pub(crate) modules: Vec<String>,
    /// Path of the program under test.
    pub(crate) program: String,
    /// Test programs, which run after the checks.
    pub(crate) suites: Vec<Suite>,
    /// Runs only tests whose names contain one of these parts. Empty: all tests.
    pub(crate) filters: Vec<String>,
    /// Selected tests that the guest cannot run.
    pub(crate) excluded: Vec<ExcludedTests>,
    /// Seconds without a finished test after which a suite is killed and its remaining tests fail.
    pub(crate) test_limit: u64,
    /// Whether the processor is emulated, and therefore slow.
    pub(crate) emulated: bool,
}

/// Tests that cannot run in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExcludedTests {
    /// A part of the tests' names.
    pub(crate) part: String,
    /// Why they cannot run.
    pub(crate) reason: String,
}

/// A test program built by `cargo test`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suite {
    /// Name of the cargo target.
    pub(crate) name: String,
    /// Path in the guest.
    pub(crate) path: String,
}

/// A message of init to the host: one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum GuestMessage {
    /// Init has started.
    Booted {
        /// `uname -r`.
        release: String,
        /// `uname -v`.
        version: String,
    },
    /// Information that may explain a failure.
    Note {
        /// Text for people.
        text: String,
    },
    /// A check of `tcptrace-bpf doctor`.
    Check {
        /// Name of the check.
        name: String,
        /// Whether the feature was found.
        found: bool,
        /// What was found, or why it is missing.
        detail: String,
    },
    /// The result of a test.
    Test {
        /// The test's group.
        suite: String,
        /// Its name within the group.
        name: String,
        /// Its outcome.
        outcome: TestOutcome,
        /// Seconds in the guest from the start of the group to the test's end.
        seconds: f64,
    },
    /// Init has finished. Without this message the guest crashed.
    Done,
}

/// Outcome of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum TestOutcome {
    /// The test passed.
    Passed,
    /// The test failed among others and passed when it was run alone.
    PassedOnRetry {
        /// Output of the failed first run.
        reason: String,
    },
    /// The kernel does not support the test.
    NotPossible {
        /// The missing feature.
        reason: String,
    },
    /// The test failed.
    Failed {
        /// Its output.
        reason: String,
    },
}
