//! Runs programs with a time limit.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process_group};

/// Folders of programs in the initramfs.
pub(crate) const PATH: &str = "/bin:/sbin:/usr/bin:/usr/sbin";

/// Result of a program.
pub(crate) struct CommandResult {
    /// Exit status; `None` if the program was killed at the limit.
    pub(crate) status: Option<ExitStatus>,
    /// Output on stdout and stderr.
    pub(crate) output: String,
    /// Run time.
    pub(crate) took: Duration,
}

/// Runs a command, and kills its process group at the limit.
pub(crate) fn to_completion(command: &mut Command, limit: Duration) -> Result<CommandResult> {
    const OUTPUT: &str = "/tmp/output";
    // A file instead of a pipe, because a surviving child process would keep a pipe open.
    let output = File::create(OUTPUT).with_context(|| format!("could not create {OUTPUT}"))?;
    let start = Instant::now();
    let mut child = command
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .with_context(|| format!("could not start {}", command.get_program().display()))?;
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
    Ok(CommandResult { status, output, took })
}

/// Returns the last 200 lines, which contain the error messages.
pub(crate) fn tail(text: &str) -> String {
    const LINES: usize = 200;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
