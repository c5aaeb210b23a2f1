//! Smoke test for every kernel: opens known connections and compares their rows exactly.

mod expect;
mod traffic;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use self::expect::Expected;
use crate::{protocol::TestOutcome, report::Report};

/// Limit of every wait; the emulated machine is slow.
const LIMIT: Duration = Duration::from_secs(30);

/// Both tracing modes.
const MODES: [&str; 2] = ["btf", "tracepoint"];

/// Connections whose rows are counted.
const MANY: usize = 3_000;

/// Traces the same connections in both modes, and counts the rows of many.
pub(crate) fn run(program: &Path, report: &mut Report) -> Result<()> {
    for mode in MODES {
        let start = Instant::now();
        let group = format!("smoke {mode}");
        match traced(program, mode) {
            Ok(traced) => {
                let took = start.elapsed();
                for expected in &traced.expected {
                    let outcome = expected.compare(&traced.rows);
                    report.test(&group, &expected.name, outcome, took)?;
                }
                report.test(&group, "nothing lost", summary(&traced.stderr), took)?;
            }
            Err(error) => {
                let reason = format!("{error:#}");
                report.test(&group, "trace", TestOutcome::Failed { reason }, start.elapsed())?;
            }
        }
        let start = Instant::now();
        let outcome = counted(program, mode)
            .unwrap_or_else(|error| TestOutcome::Failed { reason: format!("{error:#}") });
        report.test(&group, &format!("{MANY} connections"), outcome, start.elapsed())?;
    }
    Ok(())
}

/// Opens many connections, and checks that each of their sockets has exactly one row, and that nothing is lost.
fn counted(program: &Path, mode: &str) -> Result<TestOutcome> {
    let mut tracer = SmokeTracer::start(program, mode)?;
    tracer.wait_until_tracing(mode)?;
    let (port, clients) = traffic::many(MANY)?;
    // Both sockets of a connection, by the client's port, which a later connection may have again.
    let mut rows: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    let mut expected = rows.clone();
    for client in &clients {
        for role in ["client", "server"] {
            *expected.entry((role, u64::from(*client))).or_default() += 1;
        }
    }
    let end = Instant::now() + LIMIT;
    while rows.values().sum::<usize>() < 2 * clients.len() {
        let Ok(line) = tracer.stdout.recv_timeout(end.saturating_duration_since(Instant::now())) else {
            break;
        };
        let row: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        if row["remote_port"] == port {
            *rows.entry(("client", row["local_port"].as_u64().unwrap_or(0))).or_default() += 1;
        } else if row["local_port"] == port {
            *rows.entry(("server", row["remote_port"].as_u64().unwrap_or(0))).or_default() += 1;
        }
    }
    let stderr = tracer.stop()?;
    if rows == expected {
        return Ok(summary(&stderr));
    }
    let wrong = rows.iter().filter(|row| expected.get(row.0) != Some(row.1)).count();
    let reason = format!(
        "{} rows of {} sockets, {wrong} ports are wrong; on stderr: {stderr}",
        rows.values().sum::<usize>(),
        2 * clients.len()
    );
    Ok(TestOutcome::Failed { reason })
}

/// Expected and actual rows of a run.
struct Traced {
    expected: Vec<Expected>,
    rows: Vec<Value>,
    stderr: String,
}

fn traced(program: &Path, mode: &str) -> Result<Traced> {
    let mut tracer = SmokeTracer::start(program, mode)?;
    tracer.wait_until_tracing(mode)?;
    let expected = traffic::all()?;
    let mut rows = Vec::new();
    let end = Instant::now() + LIMIT;
    // Stops before the limit only when every expected row has arrived. The comparison reports missing rows.
    while !expected.iter().all(|expected| expected.find(&rows).is_some()) {
        let Some(line) = tracer.stdout.recv_timeout(end.saturating_duration_since(Instant::now())).ok()
        else {
            break;
        };
        rows.push(serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?);
    }
    let stderr = tracer.stop()?;
    Ok(Traced { expected, rows, stderr })
}

/// Checks that the summary line reports no losses.
fn summary(stderr: &str) -> TestOutcome {
    let complete = ["0 lost in the ring", "0 unmatched", "0 gaps"].iter().all(|part| stderr.contains(part));
    if complete {
        TestOutcome::Passed
    } else {
        TestOutcome::Failed { reason: format!("on stderr: {stderr}") }
    }
}

/// The tracing program.
struct SmokeTracer {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    log: String,
}

impl SmokeTracer {
    fn start(program: &Path, mode: &str) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["connections", "-o", "json", "--mode", mode])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("could not start the program")?;
        let stdout = lines(child.stdout.take().context("stdout is piped")?);
        let stderr = lines(child.stderr.take().context("stderr is piped")?);
        Ok(Self { child, stdout, stderr, log: String::new() })
    }

    fn wait_until_tracing(&mut self, mode: &str) -> Result<()> {
        let ready = format!("tracing TCP in mode {mode}");
        let end = Instant::now() + LIMIT;
        while !self.log.contains(&ready) {
            let line = self.stderr.recv_timeout(end.saturating_duration_since(Instant::now()));
            let Ok(line) = line else {
                let _ = self.child.kill();
                anyhow::bail!("the program did not start tracing in mode {mode}; stderr: {}", self.log);
            };
            self.log += &line;
            self.log.push('\n');
        }
        Ok(())
    }

    /// Stops the program with SIGTERM, and returns its stderr.
    fn stop(mut self) -> Result<String> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let end = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > end {
                self.child.kill()?;
            }
            thread::sleep(Duration::from_millis(5));
        };
        // Ends because the exited program has closed its end of the pipe.
        self.log.extend(self.stderr.iter().flat_map(|line| [line, "\n".to_owned()]));
        ensure!(status.success(), "the program exited with {status}; stderr: {}", self.log);
        Ok(self.log)
    }
}

/// Reads lines on a separate thread, so that waits can have a limit.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
