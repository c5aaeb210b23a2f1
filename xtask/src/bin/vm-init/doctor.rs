//! Runs `tcptrace-bpf doctor` and reports its checks.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Result;
use serde::Deserialize;

use crate::{
    protocol::{GuestMessage, TestOutcome},
    report::Report,
    run,
};

const LIMIT: Duration = Duration::from_secs(60);

/// The reported fields of a line of `doctor -o json`.
#[derive(Deserialize)]
struct DoctorLine {
    name: String,
    found: bool,
    detail: String,
}

pub(crate) fn run(program: &Path, report: &mut Report) -> Result<()> {
    let ended = run::to_completion(Command::new(program).args(["doctor", "-o", "json"]), LIMIT)?;
    let lines: Result<Vec<DoctorLine>, _> = ended.output.lines().map(serde_json::from_str).collect();
    let outcome = match (&lines, ended.status) {
        (Ok(lines), Some(status)) if status.success() && !lines.is_empty() => TestOutcome::Passed,
        _ => TestOutcome::Failed { reason: format!("{:?}\n{}", ended.status, run::tail(&ended.output)) },
    };
    for DoctorLine { name, found, detail } in lines.into_iter().flatten() {
        report.send(&GuestMessage::Check { name, found, detail })?;
    }
    report.test("program", "doctor", outcome, ended.took)
}
