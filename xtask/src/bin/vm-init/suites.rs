//! Test programs of cargo, one process a test.

use std::{process::Command, time::Duration};

use anyhow::Result;

use crate::{
    protocol::{Outcome, Plan, Suite},
    report::Report,
    run::{self, Ended},
};

/// Tells a test where the program under test is: it cannot ask cargo here.
const PROGRAM_VARIABLE: &str = "TCPTRACE_BPF_PROGRAM";

/// A test that passes and prints this in a line could not do its work on this kernel; the rest of the line
/// says why.
const NOT_POSSIBLE: &str = "not possible on this kernel: ";

const LIST_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    for suite in &plan.suites {
        let listed =
            run::to_end(Command::new(&suite.path).args(["--list", "--format", "terse"]), LIST_LIMIT)?;
        if !listed.status.is_some_and(|status| status.success()) {
            let reason = format!("its tests cannot be listed: {}", run::tail(&listed.output));
            report.test(&suite.name, "list", Outcome::Failed { reason }, listed.took)?;
            continue;
        }
        for name in listed.output.lines().filter_map(|line| line.strip_suffix(": test")) {
            let ended = run::to_end(&mut single(plan, suite, name), Duration::from_secs(plan.test_limit))?;
            report.test(&suite.name, name, outcome(&ended), ended.took)?;
        }
    }
    Ok(())
}

/// A process of its own for each: one that hangs or brings its process down fails alone.
fn single(plan: &Plan, suite: &Suite, name: &str) -> Command {
    let mut command = Command::new(&suite.path);
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(PROGRAM_VARIABLE, &plan.program)
        .env("RUST_BACKTRACE", "0");
    command
}

fn outcome(ended: &Ended) -> Outcome {
    match ended.status {
        Some(status) if status.success() => {
            let reason = ended.output.lines().find_map(|line| line.split_once(NOT_POSSIBLE));
            reason.map_or(Outcome::Passed, |(_, reason)| Outcome::NotPossible { reason: reason.to_owned() })
        }
        Some(status) => Outcome::Failed { reason: format!("{status}\n{}", run::tail(&ended.output)) },
        None => Outcome::Failed { reason: format!("killed at its time limit\n{}", run::tail(&ended.output)) },
    }
}
