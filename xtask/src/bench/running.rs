//! A tracer that runs: its processes, their processor time, their programs in the kernel, and its end.

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

/// How long a tracer may take to start or to end.
const LIMIT: Duration = Duration::from_secs(30);

/// After which a tracer whose programs are loaded is taken to have attached them, and to be idle.
const SETTLE: Duration = Duration::from_millis(500);

/// After which a tracer that was told to end is told again.
const AGAIN: Duration = Duration::from_secs(3);

/// Processor time, seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CpuTime {
    /// In user space.
    pub(super) user: f64,
    /// In the kernel, on the tracer's own account: not its programs, which run in the processes that they trace.
    pub(super) system: f64,
}

/// What the kernel counts of BPF programs while its statistics are on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProgramRuns {
    /// Nanoseconds.
    pub(super) time: u64,
    /// Runs.
    pub(super) count: u64,
    /// Runs that were skipped, because the program, or another one, was interrupted.
    pub(super) skipped: u64,
}

/// The line that ends a run of this project's tracer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Transitions seen.
    pub(super) seen: u64,
    /// Transitions that found the ring buffer full.
    pub(super) lost: u64,
    /// Transitions for which the kernel skipped the program.
    pub(super) skipped: u64,
}

impl Summary {
    /// All that was generated, as far as the tracer knows.
    pub(super) fn total(&self) -> u64 {
        self.seen + self.lost + self.skipped
    }

    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.split(", ");
        // Before the first number is what the program calls itself, or the time and level of a line of the log.
        let mut number =
            |what: &str| parts.next()?.strip_suffix(what)?.split_whitespace().last()?.parse().ok();
        Some(Self {
            seen: number("transitions seen")?,
            lost: number("lost in the ring")?,
            skipped: number("skipped by the kernel")?,
        })
    }
}

/// A tracer and the processes it started; killed when dropped.
pub(super) struct Running {
    child: Child,
    stderr: Receiver<String>,
    said: Vec<String>,
    started: Instant,
}

impl Running {
    /// Starts it and waits until it traces.
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

    /// Starts it.
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
        Ok(Self { child, stderr, said: Vec::new(), started })
    }

    /// The child that was started itself.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for a text on standard error; gives the time since the start.
    pub(super) fn wait_for(&mut self, text: &str) -> Result<Duration> {
        loop {
            let left = LIMIT.saturating_sub(self.started.elapsed());
            let line = self.stderr.recv_timeout(left).with_context(|| {
                format!("the tracer did not say `{text}`; what it said: {}", self.said.join("; "))
            })?;
            let time = self.started.elapsed();
            let found = line.contains(text);
            self.said.push(line);
            if found {
                return Ok(time);
            }
        }
    }

    /// Its processor time so far.
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

    /// Waits until it has done what it had to do, and gives its processor time.
    pub(super) fn cpu_time_when_idle(&self) -> Result<CpuTime> {
        let end = Instant::now() + LIMIT;
        let mut before = self.cpu_time()?;
        loop {
            thread::sleep(SETTLE);
            let now = self.cpu_time()?;
            // A tracer that looks at its buffers now and then uses a tick in a while.
            if now.user + now.system - before.user - before.system < 0.015 || Instant::now() > end {
                return Ok(now);
            }
            before = now;
        }
    }

    /// Its BPF programs, one entry for each.
    pub(super) fn programs(&self) -> Result<Vec<ProgramRuns>> {
        Ok(self.processes()?.into_iter().flat_map(programs_of).collect())
    }

    /// A field of `/proc/PID/smaps_rollup` of the started process, in bytes.
    pub(super) fn memory(&self, name: &str) -> Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
        let kib = field(&text, name).with_context(|| format!("{path} has no {name}"))?;
        Ok(kib * 1024)
    }

    /// The most resident memory that the started process has had, in bytes; none when it has ended.
    #[expect(clippy::cast_precision_loss, reason = "bytes of a process")]
    pub(super) fn peak_memory(&self) -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        Some(field(&text, "VmHWM:")? as f64 * 1024.0)
    }

    /// Sends a signal to the started process.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("the tracer has ended by itself")
    }

    /// Ends it as Ctrl-C does.
    pub(super) fn interrupt(mut self) -> Result<Vec<String>> {
        let end = Instant::now() + LIMIT;
        let mut next = Instant::now();
        while self.child.try_wait().context("the tracer cannot be waited for")?.is_none() {
            let now = Instant::now();
            if now > end {
                bail!("process {} and its own did not end within {} s", self.child.id(), LIMIT.as_secs());
            }
            // Some do not hear the first one.
            if now >= next {
                self.send_to_all(Signal::INT)?;
                next = now + AGAIN;
            }
            thread::sleep(Duration::from_millis(2));
        }
        while let Ok(line) = self.stderr.recv_timeout(SETTLE) {
            self.said.push(line);
        }
        Ok(std::mem::take(&mut self.said))
    }

    fn send_to_all(&self, signal: Signal) -> Result<()> {
        for process in self.processes()?.into_iter().rev() {
            if let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) {
                // One that has just ended needs no signal.
                let _ = kill_process(pid, signal);
            }
        }
        Ok(())
    }

    /// Ends it and reads its summary.
    pub(super) fn summary(self) -> Result<Summary> {
        let said = self.interrupt()?;
        said.iter()
            .rev()
            .find_map(|line| Summary::parse(line))
            .with_context(|| format!("the tracer ended without a summary; what it said: {}", said.join("; ")))
    }

    /// The started process and those it started, itself first.
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
            // What cannot be listed or has just ended needs no signal.
            let _ = self.send_to_all(Signal::KILL);
        }
        // It has been waited for already, or cannot be.
        let _ = self.child.wait();
    }
}

/// The BPF programs that a process holds, each once; none when it has ended.
pub(super) fn programs_of(process: u32) -> Vec<ProgramRuns> {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fdinfo")) else { return Vec::new() };
    let found: BTreeMap<u64, ProgramRuns> = files
        .flatten()
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .filter_map(|text| {
            let number = |name| field(&text, name);
            let runs = ProgramRuns {
                time: number("run_time_ns:")?,
                // A link to a program names it too, and has no counts.
                count: number("run_cnt:")?,
                skipped: number("recursion_misses:").unwrap_or(0),
            };
            Some((field(&text, "prog_id:")?, runs))
        })
        .collect();
    found.into_values().collect()
}

/// A number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// The fields of `/proc/PID/stat` after the name of the process, which may hold anything: the state first.
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
    fn a_summary_is_read() {
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
