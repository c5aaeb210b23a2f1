//! The least that has to hold on every kernel: known connections, and exactly the rows that they make.

mod expect;
mod traffic;

use std::{
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
use crate::{protocol::Outcome, report::Report};

/// The longest that anything here is waited for. The machine is emulated and slow.
const LIMIT: Duration = Duration::from_secs(30);

/// Both modes of the program.
const MODES: [&str; 2] = ["btf", "tracepoint"];

/// Traces the same connections in both modes.
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
                report.test(&group, "trace", Outcome::Failed { reason }, start.elapsed())?;
            }
        }
    }
    Ok(())
}

/// What a run was given and what it printed.
struct Traced {
    expected: Vec<Expected>,
    rows: Vec<Value>,
    stderr: String,
}

fn traced(program: &Path, mode: &str) -> Result<Traced> {
    let mut tracer = Tracer::start(program, mode)?;
    tracer.wait_until_tracing(mode)?;
    let expected = traffic::all()?;
    let mut rows = Vec::new();
    let end = Instant::now() + LIMIT;
    // Ends early only when every row has come; one that is missing is named by the comparison.
    while !expected.iter().all(|expected| expected.find(&rows).is_some()) {
        let Some(line) = tracer.stdout.recv_timeout(end.saturating_duration_since(Instant::now())).ok()
        else {
            break;
        };
        rows.push(serde_json::from_str(&line).with_context(|| format!("this is not JSON: {line}"))?);
    }
    let stderr = tracer.stop()?;
    Ok(Traced { expected, rows, stderr })
}

/// The closing line of the program says that the kernel's events all arrived.
fn summary(stderr: &str) -> Outcome {
    let whole = ["0 lost in the ring", "0 unmatched", "0 gaps"].iter().all(|part| stderr.contains(part));
    if whole { Outcome::Passed } else { Outcome::Failed { reason: format!("on stderr: {stderr}") } }
}

/// The program, tracing.
struct Tracer {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    said: String,
}

impl Tracer {
    fn start(program: &Path, mode: &str) -> Result<Self> {
        let mut child = Command::new(program)
            .args(["connections", "-o", "json", "--mode", mode])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("the program cannot start")?;
        let stdout = lines(child.stdout.take().context("its output is piped")?);
        let stderr = lines(child.stderr.take().context("its messages are piped")?);
        Ok(Self { child, stdout, stderr, said: String::new() })
    }

    fn wait_until_tracing(&mut self, mode: &str) -> Result<()> {
        let ready = format!("tracing TCP in mode {mode}");
        let end = Instant::now() + LIMIT;
        while !self.said.contains(&ready) {
            let line = self.stderr.recv_timeout(end.saturating_duration_since(Instant::now()));
            let Ok(line) = line else {
                let _ = self.child.kill();
                anyhow::bail!("it does not trace in mode {mode}; it said: {}", self.said);
            };
            self.said += &line;
            self.said.push('\n');
        }
        Ok(())
    }

    /// Ends the program as a user would, and returns what it said on stderr.
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
        // Ends when the program's end of the pipe is closed, which it is.
        self.said.extend(self.stderr.iter().flat_map(|line| [line, "\n".to_owned()]));
        ensure!(status.success(), "it ended with {status} and said: {}", self.said);
        Ok(self.said)
    }
}

/// Reads lines on a thread of their own, so that waiting for one can have a limit.
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
