//! What the program itself finds on this kernel.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Result;
use serde::Deserialize;

use crate::{
    protocol::{Outcome, Verdict},
    report::Report,
    run,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A line of `doctor -o json`, as far as it is passed on.
#[derive(Deserialize)]
struct Line {
    name: String,
    found: bool,
    detail: String,
}

pub(crate) fn run(program: &Path, report: &mut Report) -> Result<()> {
    let ended = run::to_end(Command::new(program).args(["doctor", "-o", "json"]), LIMIT)?;
    let lines: Result<Vec<Line>, _> = ended.output.lines().map(serde_json::from_str).collect();
    let outcome = match (&lines, ended.status) {
        (Ok(lines), Some(status)) if status.success() && !lines.is_empty() => Outcome::Passed,
        _ => Outcome::Failed { reason: format!("{:?}\n{}", ended.status, run::tail(&ended.output)) },
    };
    for Line { name, found, detail } in lines.into_iter().flatten() {
        report.send(&Verdict::Check { name, found, detail })?;
    }
    report.test("program", "doctor", outcome, ended.took)
}
