//! Runs a tracer, and reads its processor time, memory, BPF program statistics and summary.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Time limit for starting or stopping a tracer.
const LIMIT: Duration = Duration::from_secs(30);

/// Time from loading its programs until a tracer is attached and idle.
const SETTLE: Duration = Duration::from_millis(500);

/// Time before SIGINT is sent again.
const AGAIN: Duration = Duration::from_secs(3);

/// Processor time, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CpuTime {
    /// In user space.
    pub(super) user: f64,
    /// In the kernel. Excludes the tracer's BPF programs, which run in the traced processes.
    pub(super) system: f64,
}

/// The kernel's statistics of a BPF program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProgramRuns {
    /// Run time in nanoseconds.
    pub(super) time: u64,
    /// Runs.
    pub(super) count: u64,
    /// Skipped runs: this or another program was already active on the CPU.
    pub(super) skipped: u64,
}

/// Counts of the tracer's summary line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Transitions seen.
    pub(super) seen: u64,
    /// Transitions dropped because the ring buffer was full.
    pub(super) lost: u64,
    /// Transitions for which the kernel skipped the program.
    pub(super) skipped: u64,
}

impl Summary {
    /// Returns the number of transitions that the tracer accounts for.
    pub(super) fn total(&self) -> u64 {
        self.seen + self.lost + self.skipped
    }

    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(", ");
        // The first number follows the program's name, or a log line's time and level.
        let mut number =
            |what: &str| parts.next()?.strip_suffix(what)?.split_whitespace().last()?.parse().ok();
        Some(Self {
            seen: number("transitions seen")?,
            lost: number("lost in the ring")?,
            skipped: number("skipped by the kernel")?,
        })
    }
}

/// A tracer and its child processes; killed on drop.
pub(super) struct Running {
    child: Child,
    stderr: Receiver<String>,
    printed: Vec<String>,
    started: Instant,
}

impl Running {
    /// Starts a tracer and waits until it traces.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let running = Self::spawn(command)?;
        let end = Instant::now() + LIMIT;
        while running.programs()?.is_empty() {
            if Instant::now() > end {
                bail!("{command:?} did not load a BPF program within {} s", LIMIT.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(SETTLE);
        Ok(running)
    }

    /// Starts a tracer.
    pub(super) fn spawn(command: &mut Command) -> Result<Self> {
        let started = Instant::now();
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{command:?} could not be started"))?;
        let stream = child.stderr.take().context("standard error is piped")?;
        let (line, stderr) = mpsc::channel();
        thread::spawn(move || {
            for text in BufReader::new(stream).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, stderr, printed: Vec::new(), started })
    }

    /// Returns the tracer's process.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for a text on stderr. Returns the time since the start.
    pub(super) fn wait_for(&mut self, text: &str) -> Result<Duration> {
        loop {
            let left = LIMIT.saturating_sub(self.started.elapsed());
            let line = self.stderr.recv_timeout(left).with_context(|| {
                format!("the tracer did not print `{text}`; its output: {}", self.printed.join("; "))
            })?;
            let time = self.started.elapsed();
            let found = line.contains(text);
            self.printed.push(line);
            if found {
                return Ok(time);
            }
        }
    }

    /// Returns the processor time so far.
    #[expect(clippy::cast_precision_loss, reason = "ticks of a few seconds")]
    pub(super) fn cpu_time(&self) -> Result<CpuTime> {
        let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
        let mut sum = CpuTime::default();
        for process in self.processes()? {
            if let Some((user, system)) = ticks(process) {
                sum.user += user as f64 * tick;
                sum.system += system as f64 * tick;
            }
        }
        Ok(sum)
    }

    /// Waits until the tracer is idle, and returns its processor time.
    pub(super) fn cpu_time_when_idle(&self) -> Result<CpuTime> {
        let end = Instant::now() + LIMIT;
        let mut before = self.cpu_time()?;
        loop {
            thread::sleep(SETTLE);
            let now = self.cpu_time()?;
            // A tracer that polls its buffers takes an occasional tick.
            if now.user + now.system - before.user - before.system < 0.015 || Instant::now() > end {
                return Ok(now);
            }
            before = now;
        }
    }

    /// Returns the statistics of the tracer's BPF programs.
    pub(super) fn programs(&self) -> Result<Vec<ProgramRuns>> {
        Ok(self.processes()?.into_iter().flat_map(programs_of).collect())
    }

    /// Returns a field of the tracer's `/proc/PID/smaps_rollup`, in bytes.
    pub(super) fn memory(&self, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
        let kib = field(&text, name).with_context(|| format!("{path} has no {name}"))?;
        Ok(kib * 1024)
    }

    /// Returns the tracer's peak resident memory in bytes; `None` if it has exited.
    #[expect(clippy::cast_precision_loss, reason = "bytes of a process")]
    pub(super) fn peak_memory(&self) -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        Some(field(&text, "VmHWM:")? as f64 * 1024.0)
    }

    /// Sends a signal to the tracer's process.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("the tracer has already exited")
    }

    /// Stops the tracer with SIGINT. Returns its stderr lines.
    pub(super) fn interrupt(mut self) -> Result<Vec<String>> {
        let end = Instant::now() + LIMIT;
        let mut next = Instant::now();
        while self.child.try_wait().context("the tracer cannot be waited for")?.is_none() {
            let now = Instant::now();
            if now > end {
                bail!(
                    "process {} and its children did not exit within {} s",
                    self.child.id(),
                    LIMIT.as_secs()
                );
            }
            // Some tracers miss the first signal.
            if now >= next {
                self.send_to_all(Signal::INT)?;
                next = now + AGAIN;
            }
            thread::sleep(Duration::from_millis(2));
        }
        while let Ok(line) = self.stderr.recv_timeout(SETTLE) {
            self.printed.push(line);
        }
        Ok(std::mem::take(&mut self.printed))
    }

    fn send_to_all(&self, signal: Signal) -> Result<()> {
        for process in self.processes()?.into_iter().rev() {
            if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
                // The process may just have exited.
                let _ = kill_process(pid, signal);
            }
        }
        Ok(())
    }

    /// Stops the tracer. Returns its summary.
    pub(super) fn summary(self) -> Result<Summary> {
        let printed = self.interrupt()?;
        printed.iter().rev().find_map(|line| Summary::parse(line)).with_context(|| {
            format!("the tracer exited without a summary; its output: {}", printed.join("; "))
        })
    }

    /// Returns the process ids of the tracer and its descendants, the tracer first.
    fn processes(&self) -> Result<Vec<u32>> {
        let mut family = vec![self.child.id()];
        let entries = fs::read_dir("/proc").context("/proc cannot be read")?;
        let mut parents: Vec<(u32, u32)> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|process| Some((process, parent(process)?)))
            .collect();
        while let Some(index) = parents.iter().position(|(_, parent)| family.contains(parent)) {
            family.push(parents.swap_remove(index).0);
        }
        Ok(family)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Processes may just have exited.
            let _ = self.send_to_all(Signal::KILL);
        }
        // The child may have been reaped already.
        let _ = self.child.wait();
    }
}

/// Returns the statistics of a process's BPF programs, each program once; empty if the process has exited.
pub(super) fn programs_of(process: u32) -> Vec<ProgramRuns> {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fdinfo")) else { return Vec::new() };
    let found: BTreeMap<u64, ProgramRuns> = files
        .flatten()
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .filter_map(|text| {
            let number = |name| field(&text, name);
            let runs = ProgramRuns {
                time: number("run_time_ns:")?,
                // A link to a program also has its id, but no counts.
                count: number("run_cnt:")?,
                skipped: number("recursion_misses:").unwrap_or(0),
            };
            Some((field(&text, "prog_id:")?, runs))
        })
        .collect();
    found.into_values().collect()
}

/// Returns the number that follows a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Returns the fields of `/proc/PID/stat` after the process name, the state first.
fn stat(process: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(text.rsplit(") ").next()?.split_whitespace().map(str::to_owned).collect())
}

fn parent(process: u32) -> Option<u32> {
    stat(process)?.get(1)?.parse().ok()
}

fn ticks(process: u32) -> Option<(u64, u64)> {
    let fields = stat(process)?;
    Some((fields.get(11)?.parse().ok()?, fields.get(12)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_line_is_parsed() {
        let line = "tcptrace-bpf: 300002 transitions seen, 12 lost in the ring, 3 skipped by the kernel, 60000 \
                    connections closed, 0 open, 0 evicted, 0 unmatched, 0 gaps";
        let summary = Summary::parse(line).unwrap();
        assert_eq!(summary, Summary { seen: 300_002, lost: 12, skipped: 3 });
        assert_eq!(summary.total(), 300_017);
        let logged = line.replace("tcptrace-bpf:", "2026-11-21T09:32:35.463861Z  INFO");
        assert_eq!(Summary::parse(&logged), Some(summary));
        assert_eq!(Summary::parse("tcptrace-bpf: tracing TCP in mode btf; Ctrl-C ends it"), None);
    }

    #[test]
    fn fields_are_found_by_name() {
        let text = "pos:\t0\nprog_id:\t18640\nrun_time_ns:\t71\nrun_cnt:\t1\n";
        assert_eq!(field(text, "prog_id:"), Some(18_640));
        assert_eq!(field(text, "recursion_misses:"), None);
        assert_eq!(field("Rss:      4096 kB\nPss:      12 kB\n", "Pss:"), Some(12));
    }
}
