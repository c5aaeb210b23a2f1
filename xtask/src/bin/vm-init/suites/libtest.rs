//! Parses the output of a test program run with `--show-output`: a result line per test, then the output of
//! each test.

use std::{collections::HashMap, time::Duration};

use crate::{protocol::TestOutcome, run};

/// A passed test that prints a line with this prefix is not possible on this kernel; the rest of the line is
/// the reason.
const NOT_POSSIBLE: &str = "not possible on this kernel: ";

/// The output of a run so far.
#[derive(Default)]
pub(super) struct LibtestOutput {
    /// Whether each test passed, and when it finished.
    finished: HashMap<String, (bool, Duration)>,
    /// Output of each test.
    printed: HashMap<String, String>,
    /// The test that the next lines of output belong to.
    section: Option<String>,
}

impl LibtestOutput {
    /// Parses the next line, which arrived `when` after the start.
    pub(super) fn line(&mut self, line: &str, when: Duration) {
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.section = Some(name.to_owned());
        } else if matches!(line, "successes:" | "failures:") {
            self.section = None;
        } else if let Some(name) = &self.section {
            let printed = self.printed.entry(name.clone()).or_default();
            printed.push_str(line);
            printed.push('\n');
        } else if let Some((name, result)) =
            line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        {
            let name = name.strip_suffix(" - should panic").unwrap_or(name);
            self.finished.insert(name.to_owned(), (result == "ok", when));
        }
    }

    /// Returns a test's outcome and when it finished after the start. `failure` is why the run failed, if it
    /// did.
    pub(super) fn of(&self, name: &str, failure: Option<&str>) -> (TestOutcome, Duration) {
        let printed = self.printed.get(name).map_or("", String::as_str);
        let Some(&(passed, when)) = self.finished.get(name) else {
            let failure = failure.unwrap_or("the output has no result of it");
            return (
                TestOutcome::Failed {
                    reason: format!("it did not finish: {failure}\n{}", run::tail(printed)),
                },
                Duration::ZERO,
            );
        };
        let outcome = if passed {
            let reason = printed.lines().find_map(|line| line.split_once(NOT_POSSIBLE));
            reason.map_or(TestOutcome::Passed, |(_, reason)| TestOutcome::NotPossible {
                reason: reason.to_owned(),
            })
        } else {
            TestOutcome::Failed { reason: run::tail(printed) }
        };
        (outcome, when)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "

running 4 tests
test a::lost has been running for over 60 seconds
test a::good ... ok
test a::lacking ... ok
test a::bad ... FAILED

successes:

---- a::lacking stdout ----
not possible on this kernel: no hook

successes:
    a::good
    a::lacking

failures:

---- a::bad stdout ----

thread 'a::bad' panicked at a.rs:1:1:
one is not two

failures:
    a::bad
";

    #[test]
    fn each_test_has_its_own_outcome() {
        let mut output = LibtestOutput::default();
        for (seconds, line) in (0..).zip(RUN.lines()) {
            output.line(line, Duration::from_secs(seconds));
        }
        assert_eq!(output.of("a::good", None), (TestOutcome::Passed, Duration::from_secs(4)));
        let reason = "no hook".to_owned();
        assert_eq!(output.of("a::lacking", None).0, TestOutcome::NotPossible { reason });
        let TestOutcome::Failed { reason } = output.of("a::bad", None).0 else { panic!("it failed") };
        assert!(reason.contains("one is not two") && !reason.contains("a::lacking"), "{reason}");
        let TestOutcome::Failed { reason } = output.of("a::lost", Some("killed")).0 else {
            panic!("it is lost")
        };
        assert!(reason.contains("killed"), "{reason}");
    }
}
