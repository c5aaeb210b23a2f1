//! Controls the loads of `bench/` by lines on their stdin and stdout.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::programs::Programs;

/// Message of a connection load that is ready.
#[derive(Deserialize)]
struct Ready {
    netns: u32,
}

/// Result of a connection load.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Done {
    /// Connections made.
    pub(super) connections: u64,
    /// Transitions at both ends.
    #[serde(default)]
    pub(super) transitions: u64,
    /// Duration in seconds.
    #[serde(default)]
    pub(super) seconds: f64,
}

/// A load that waits for a line on stdin; killed on drop.
pub(super) struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Load {
    /// Starts a load.
    pub(super) fn start(programs: &Programs, arguments: &[&str]) -> Result<Self> {
        let mut child = Command::new(&programs.load)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} could not be started", programs.load.display()))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("standard output is piped")?);
        Ok(Self { child, stdin, stdout })
    }

    /// Reads one line from the load and parses it.
    pub(super) fn receive<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("a load cannot be read")?;
        ensure!(!line.is_empty(), "a load exited early; see its message above");
        serde_json::from_str(&line).with_context(|| format!("unexpected output of a load: {line}"))
    }

    /// Starts the load's next step.
    pub(super) fn proceed(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("the load was ended")?;
        stdin.write_all(b"\n").and_then(|()| stdin.flush()).context("a load exited early")
    }

    /// Ends the load and waits for it to exit.
    pub(super) fn end(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.child.wait().context("a load cannot be waited for")?;
        ensure!(status.success(), "a load exited with {status}; see its message above");
        Ok(())
    }

    /// Returns the process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It has usually exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection load in its own network namespace.
pub(super) struct Traffic {
    load: Load,
    netns: u32,
}

impl Traffic {
    /// Prepares connections one after the other, limited by number and optionally by time.
    pub(super) fn churn(programs: &Programs, connections: u64, milliseconds: Option<u64>) -> Result<Self> {
        let connections = connections.to_string();
        let time = milliseconds.map(|time| time.to_string());
        let mut arguments = vec!["churn", "--connections", &connections];
        if let Some(time) = &time {
            arguments.extend(["--milliseconds", time]);
        }
        Self::start(programs, &arguments)
    }

    /// Prepares connections with a pause between them, in milliseconds on average.
    pub(super) fn paced(programs: &Programs, connections: u64, pause: u64) -> Result<Self> {
        let (connections, pause) = (connections.to_string(), pause.to_string());
        Self::start(programs, &["churn", "--connections", &connections, "--pause", &pause])
    }

    /// Prepares connections that are open at the same time.
    pub(super) fn hold(programs: &Programs, connections: u64) -> Result<Self> {
        Self::start(programs, &["hold", "--connections", &connections.to_string()])
    }

    fn start(programs: &Programs, arguments: &[&str]) -> Result<Self> {
        let mut load = Load::start(programs, arguments)?;
        let Ready { netns } = load.receive()?;
        Ok(Self { load, netns })
    }

    /// Returns the inode of its network namespace.
    pub(super) fn netns(&self) -> u32 {
        self.netns
    }

    /// Starts the next step without waiting.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.load.proceed()
    }

    /// Waits until the step is done.
    pub(super) fn done(&mut self) -> Result<Done> {
        self.load.receive()
    }

    /// Ends the load.
    pub(super) fn end(self) -> Result<()> {
        self.load.end()
    }
}

/// Counts the transitions of the loads with ftrace, without BPF.
pub(super) struct Witness(Load);

/// The transitions that ftrace recorded.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Witnessed {
    /// Transitions of the loads.
    pub(super) own: u64,
    /// Transitions of `own` during which a thread of process 1 was current.
    pub(super) under_first_process: u64,
    /// Transitions of other connections on the host.
    pub(super) strangers: u64,
}

/// Message of a witness that is ready.
#[derive(Deserialize)]
struct Recording {
    recording: bool,
}

impl Witness {
    /// Starts recording. `most` is the maximum number of transitions.
    pub(super) fn start(programs: &Programs, most: u64) -> Result<Self> {
        let mut load = Load::start(programs, &["witness", "--transitions", &most.to_string()])?;
        let Recording { recording } = load.receive()?;
        ensure!(recording, "ftrace records nothing");
        Ok(Self(load))
    }

    /// Stops recording and counts the transitions.
    pub(super) fn end(mut self) -> Result<Witnessed> {
        self.0.proceed()?;
        let witnessed = self.0.receive()?;
        self.0.end()?;
        Ok(witnessed)
    }
}

/// Runs a complete churn.
pub(super) fn churn(programs: &Programs, connections: u64, milliseconds: Option<u64>) -> Result<Done> {
    let mut traffic = Traffic::churn(programs, connections, milliseconds)?;
    traffic.begin()?;
    let done = traffic.done()?;
    traffic.end()?;
    Ok(done)
}
