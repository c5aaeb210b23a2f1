//! Test programs of cargo, each one process for all of its tests.
//!
//! Most scenarios wait most of the time, so a few at once take a fraction of the time that they take one by
//! one; and only within one process can those that need the machine for themselves wait for the others.

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

use self::libtest::Output;
use crate::{
    protocol::{Outcome, Plan, Suite},
    report::Report,
    run,
};

/// Tells a test where the program under test is: it cannot ask cargo here.
const PROGRAM_VARIABLE: &str = "TCPTRACE_BPF_PROGRAM";

/// Tells the scenarios that everything is slow here; see `tests/src/speed.rs`.
const EMULATED_VARIABLE: &str = "TCPTRACE_TEST_EMULATED";

/// Tests at once. The machine has two processors.
const THREADS: &str = "4";

/// Failed tests of a suite that are run again; with more, something is wrong.
const MOST_AGAIN: usize = 12;

const LIST_LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    for suite in &plan.suites {
        let mut list = Command::new(&suite.path);
        let listed = run::to_end(list.args(["--list", "--format", "terse"]).args(&plan.filters), LIST_LIMIT)?;
        if !listed.status.is_some_and(|status| status.success()) {
            let reason = format!("its tests cannot be listed: {}", run::tail(&listed.output));
            report.test(&suite.name, "list", Outcome::Failed { reason }, listed.took)?;
            continue;
        }
        let names: Vec<&str> = listed.output.lines().filter_map(|line| line.strip_suffix(": test")).collect();
        if names.is_empty() {
            continue;
        }
        let start = Instant::now();
        let mut which = plan.filters.clone();
        which.extend(plan.left_out.iter().flat_map(|one| ["--skip".to_owned(), one.part.clone()]));
        let (output, trouble) = run_tests(plan, suite, THREADS, &which)?;
        eprintln!("{}: {} tests in {:.1} s", suite.name, names.len(), start.elapsed().as_secs_f64());
        let mut again = 0;
        for name in names {
            if let Some(left_out) = plan.left_out.iter().find(|one| name.contains(&one.part)) {
                let outcome = Outcome::NotPossible { reason: left_out.reason.clone() };
                report.test(&suite.name, name, outcome, Duration::ZERO)?;
                continue;
            }
            let (mut outcome, took) = output.of(name, trouble.as_deref());
            if let Outcome::Failed { reason } = &outcome
                && again < MOST_AGAIN
            {
                again += 1;
                outcome = alone(plan, suite, name, reason)?;
            }
            report.test(&suite.name, name, outcome, took)?;
        }
    }
    Ok(())
}

/// Runs a failed test again, with the machine for itself: an emulated one is easily too busy for several at once.
fn alone(plan: &Plan, suite: &Suite, name: &str, reason: &str) -> Result<Outcome> {
    let only = [name.to_owned(), "--exact".to_owned()];
    let (output, trouble) = run_tests(plan, suite, "1", &only)?;
    Ok(match output.of(name, trouble.as_deref()).0 {
        Outcome::Passed => Outcome::PassedAlone { reason: reason.to_owned() },
        other => other,
    })
}

/// Runs the tests of a suite that `which` selects; gives what they printed, and how the run ended when not by
/// itself.
fn run_tests(
    plan: &Plan,
    suite: &Suite,
    threads: &str,
    which: &[String],
) -> Result<(Output, Option<String>)> {
    const STDERR: &str = "/tmp/stderr";
    let mut command = Command::new(&suite.path);
    let stderr = File::create(STDERR).with_context(|| format!("{STDERR} cannot be made"))?;
    command
        .args(["--show-output", "--test-threads", threads])
        .args(which)
        .env("PATH", run::PATH)
        .env(PROGRAM_VARIABLE, &plan.program)
        .env(EMULATED_VARIABLE, if plan.emulated { "1" } else { "0" })
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .process_group(0);
    let mut child = command.spawn().with_context(|| format!("{} cannot start", suite.path))?;
    let lines = lines(&mut child)?;
    let mut output = Output::default();
    let limit = Duration::from_secs(plan.test_limit);
    let trouble = loop {
        match lines.recv_timeout(limit) {
            Ok((line, when)) => {
                // For who watches the console: the report has it only at the end.
                eprintln!("{line}");
                output.line(&line, when);
            }
            Err(RecvTimeoutError::Disconnected) => break None,
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("killed, for no test ended within {} s", limit.as_secs()));
            }
        }
    };
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let status = child.wait()?;
    let trouble = trouble.or_else(|| {
        // 101: a test failed, which the output says.
        let complete = status.success() || status.code() == Some(101);
        (!complete).then(|| format!("its process ended with {status}"))
    });
    Ok((output, trouble))
}

/// The lines of its stdout as they come, with the time since the start.
fn lines(child: &mut Child) -> Result<Receiver<(String, Duration)>> {
    let stdout = child.stdout.take().context("its output is piped")?;
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
