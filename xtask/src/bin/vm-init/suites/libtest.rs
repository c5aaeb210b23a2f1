//! What a test program of cargo prints with `--show-output`: a line for each test as it ends, and at the end
//! what each has printed.

use std::{collections::HashMap, time::Duration};

use crate::{protocol::Outcome, run};

/// A test that passes and prints this in a line could not do its work on this kernel; the rest of the line
/// says why.
const NOT_POSSIBLE: &str = "not possible on this kernel: ";

/// The output of a run, as far as it has come.
#[derive(Default)]
pub(super) struct Output {
    /// Whether it passed, and when it ended.
    ended: HashMap<String, (bool, Duration)>,
    /// What it printed.
    printed: HashMap<String, String>,
    /// Whose output the next lines are.
    section: Option<String>,
}

impl Output {
    /// Takes the next line, which came this long after the start.
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
            self.ended.insert(name.to_owned(), (result == "ok", when));
        }
    }

    /// How a test ended, and how long after the start. `trouble` is what became of the run if it did not end by
    /// itself.
    pub(super) fn of(&self, name: &str, trouble: Option<&str>) -> (Outcome, Duration) {
        let printed = self.printed.get(name).map_or("", String::as_str);
        let Some(&(passed, when)) = self.ended.get(name) else {
            let trouble = trouble.unwrap_or("nothing was said about it");
            return (
                Outcome::Failed { reason: format!("it did not end: {trouble}\n{}", run::tail(printed)) },
                Duration::ZERO,
            );
        };
        let outcome = if passed {
            let reason = printed.lines().find_map(|line| line.split_once(NOT_POSSIBLE));
            reason.map_or(Outcome::Passed, |(_, reason)| Outcome::NotPossible { reason: reason.to_owned() })
        } else {
            Outcome::Failed { reason: run::tail(printed) }
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
    fn every_test_has_its_own_outcome() {
        let mut output = Output::default();
        for (seconds, line) in (0..).zip(RUN.lines()) {
            output.line(line, Duration::from_secs(seconds));
        }
        assert_eq!(output.of("a::good", None), (Outcome::Passed, Duration::from_secs(4)));
        let reason = "no hook".to_owned();
        assert_eq!(output.of("a::lacking", None).0, Outcome::NotPossible { reason });
        let Outcome::Failed { reason } = output.of("a::bad", None).0 else { panic!("it failed") };
        assert!(reason.contains("one is not two") && !reason.contains("a::lacking"), "{reason}");
        let Outcome::Failed { reason } = output.of("a::lost", Some("killed")).0 else { panic!("it is lost") };
        assert!(reason.contains("killed"), "{reason}");
    }
}
