//! Running programs with a time limit.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// Where the initramfs has programs.
pub(crate) const PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin";

/// What became of a program.
pub(crate) struct Ended {
    /// How it ended; none when it was killed at the limit.
    pub(crate) status: Option<ExitStatus>,
    /// What it printed on both streams.
    pub(crate) output: String,
    /// How long it ran.
    pub(crate) took: Duration,
}

/// Runs a command, and kills it and what it started at the limit.
pub(crate) fn to_end(command: &mut Command, limit: Duration) -> Result<Ended> {
    const OUTPUT: &str = "/tmp/output";
    // A file, not a pipe: a process left behind by the command would keep a pipe open.
    let output = File::create(OUTPUT).with_context(|| format!("{OUTPUT} cannot be made"))?;
    let start = Instant::now();
    let mut child = command
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .with_context(|| format!("{} cannot start", command.get_program().display()))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() > limit {
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };
    let took = start.elapsed();
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    child.wait()?;
    let output = String::from_utf8_lossy(&fs::read(OUTPUT)?).into_owned();
    Ok(Ended { status, output, took })
}

/// The end of a long text: where complaints are.
pub(crate) fn tail(text: &str) -> String {
    const LINES: usize = 200;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
