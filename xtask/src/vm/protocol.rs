//! What the host and the guest's init tell each other. Compiled into both.

use serde::{Deserialize, Serialize};

/// Where init finds its [`Plan`] in the initramfs.
pub(crate) const PLAN: &str = "/plan.json";

/// What init is to do: the host's word to the guest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Kernel modules to load, paths in the order in which they need each other.
    pub(crate) modules: Vec<String>,
    /// The program under test.
    pub(crate) program: String,
    /// Test programs, run after the checks.
    pub(crate) suites: Vec<Suite>,
    /// Parts of names; only the tests of the suites whose name has one of them are run. None: all.
    pub(crate) filters: Vec<String>,
    /// Tests that are not run although they are wanted.
    pub(crate) left_out: Vec<LeftOut>,
    /// Seconds without any test's end after which a suite is killed and what has not ended counts as failed.
    pub(crate) test_limit: u64,
    /// Whether the processor is emulated, and everything slow.
    pub(crate) emulated: bool,
}

/// Tests that cannot run in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    /// A part of their names.
    pub(crate) part: String,
    /// What they lack.
    pub(crate) reason: String,
}

/// A test program built by `cargo test`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suite {
    /// The name of cargo's target.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) path: String,
}

/// What init found: the guest's word to the host, one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Init runs.
    Booted {
        /// `uname -r`.
        release: String,
        /// `uname -v`.
        version: String,
    },
    /// Something that is not a failure and may explain one.
    Note {
        /// For people.
        text: String,
    },
    /// A line of `tcptrace-bpf doctor`.
    Check {
        /// What was looked for.
        name: String,
        /// Whether it is there.
        found: bool,
        /// What is there, or why not.
        detail: String,
    },
    /// A test has ended.
    Test {
        /// The group it belongs to.
        suite: String,
        /// Its name within the group.
        name: String,
        /// How it ended.
        outcome: Outcome,
        /// Seconds in the guest from the start of its group to its end.
        seconds: f64,
    },
    /// Everything has been done; without this the guest died on the way.
    Done,
}

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// As it should.
    Passed,
    /// As it should, but not before it was run a second time, with the machine for itself.
    PassedAlone {
        /// Its complaint the first time.
        reason: String,
    },
    /// The kernel lacks what it needs.
    NotPossible {
        /// What that is.
        reason: String,
    },
    /// Not as it should.
    Failed {
        /// Its complaint.
        reason: String,
    },
}
