//! Runs cargo's test programs, each in one process for all of its tests.
//!
//! Most scenarios mostly wait, so running a few in parallel is much faster. Exclusive scenarios can only wait
//! for others in the same process.

mod libtest;

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use self::libtest::LibtestOutput;
use crate::{
    protocol::{Plan, Suite, TestOutcome},
    report::Report,
    run,
};

/// Names the program under test for the tests, which cannot build it here.
const PROGRAM_VARIABLE: &str = "TCPTRACE_BPF_PROGRAM";

/// Marks the processor as emulated; see `tests/src/speed.rs`.
const EMULATED_VARIABLE: &str = "TCPTRACE_TEST_EMULATED";

/// Tests in parallel. The machine has two processors.
const THREADS: &str = "4";

/// Maximum number of failed tests per suite that run again; more indicate a real problem.
const MAX_RETRIES: usize = 12;

const LIST_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    for suite in &plan.suites {
        let mut list = Command::new(&suite.path);
        let listed =
            run::to_completion(list.args(["--list", "--format", "terse"]).args(&plan.filters), LIST_LIMIT)?;
        if !listed.status.is_some_and(|status| status.success()) {
            let reason = format!("could not list its tests: {}", run::tail(&listed.output));
            report.test(&suite.name, "list", TestOutcome::Failed { reason }, listed.took)?;
            continue;
        }
        let names: Vec<&str> = listed.output.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        if names.is_empty() {
            continue;
        }
        let start = Instant::now();
        let mut filters = plan.filters.clone();
        filters.extend(plan.excluded.iter().flat_map(|tests| ["--skip".to_owned(), tests.part.clone()]));
        let (output, failure) = run_tests(plan, suite, THREADS, &filters)?;
        eprintln!("{}: {} tests in {:.1} s", suite.name, names.len(), start.elapsed().as_secs_f64());
        let mut retries = 0;
        for name in names {
            if let Some(excluded) = plan.excluded.iter().find(|tests| name.contains(&tests.part)) {
                let outcome = TestOutcome::NotPossible { reason: excluded.reason.clone() };
                report.test(&suite.name, name, outcome, Duration::ZERO)?;
                continue;
            }
            let (mut outcome, took) = output.of(name, failure.as_deref());
            if let TestOutcome::Failed { reason } = &outcome
                && retries < MAX_RETRIES
            {
                retries += 1;
                outcome = retry_alone(plan, suite, name, reason)?;
            }
            report.test(&suite.name, name, outcome, took)?;
        }
    }
    Ok(())
}

/// Runs a failed test again alone, because parallel tests can overload an emulated machine.
fn retry_alone(plan: &Plan, suite: &Suite, name: &str, reason: &str) -> Result<TestOutcome> {
    let only = [name.to_owned(), "--exact".to_owned()];
    let (output, failure) = run_tests(plan, suite, "1", &only)?;
    Ok(match output.of(name, failure.as_deref()).0 {
        TestOutcome::Passed => TestOutcome::PassedOnRetry { reason: reason.to_owned() },
        other => other,
    })
}

/// Runs the tests of a suite that the filters select. Returns their output, and why the run failed if its
/// process did not exit normally.
fn run_tests(
    plan: &Plan,
    suite: &Suite,
    threads: &str,
    filters: &[String],
) -> Result<(LibtestOutput, Option<String>)> {
    const STDERR: &str = "/tmp/stderr";
    let mut command = Command::new(&suite.path);
    let stderr = File::create(STDERR).with_context(|| format!("could not create {STDERR}"))?;
    command
        .args(["--show-output", "--test-threads", threads])
        .args(filters)
        .env("PATH", run::PATH)
        .env(PROGRAM_VARIABLE, &plan.program)
        .env(EMULATED_VARIABLE, if plan.emulated { "1" } else { "0" })
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .process_group(0);
    let mut child = command.spawn().with_context(|| format!("could not start {}", suite.path))?;
    let lines = lines(&mut child)?;
    let mut output = LibtestOutput::default();
    let limit = Duration::from_secs(plan.test_limit);
    let failure = loop {
        match lines.recv_timeout(limit) {
            Ok((line, when)) => {
                // Shows progress on the console; the report has the results only at the end.
                eprintln!("{line}");
                output.line(&line, when);
            }
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("killed, because no test finished within {} s", limit.as_secs()));
            }
        }
    };
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let status = child.wait()?;
    let failure = failure.or_else(|| {
        // Status 101: a test failed, which the output shows.
        let complete = status.success() || status.code() == Some(101);
        (!complete).then(|| format!("its process exited with {status}"))
    });
    Ok((output, failure))
}

/// Returns the lines of stdout as they arrive, with the time since the start.
fn lines(child: &mut Child) -> Result<Receiver<(String, Duration)>> {
    let stdout = child.stdout.take().context("stdout is piped")?;
    let (sender, receiver) = channel();
    let start = Instant::now();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.send((line, start.elapsed())).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}
