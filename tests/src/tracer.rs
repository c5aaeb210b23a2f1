//! Starts the traced program, reads its output and stops it.

use std::{
    ffi::OsStr,
    fmt,
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use crate::{
    Connection, Namespace, Transition,
    program::program,
    rows::Span,
    speed::{limit, not_possible},
};

/// The program's tracing mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// BTF-enabled tracepoint.
    Btf,
    /// Classic tracepoint.
    Tracepoint,
}

impl Mode {
    /// Returns the name on the command line and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Btf => "btf",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// Output of a stream so far.
#[derive(Default)]
struct Captured {
    bytes: Vec<u8>,
    lines: usize,
    ended: bool,
}

type CapturedStream = Arc<(Mutex<Captured>, Condvar)>;

/// The running program; killed on drop.
pub struct Tracer {
    child: Child,
    stdout: CapturedStream,
    stderr: CapturedStream,
    readers: Vec<JoinHandle<()>>,
}

/// Exit status and output of the program.
pub struct TracerOutput {
    /// Exit status.
    pub status: ExitStatus,
    /// Everything written to stdout.
    pub stdout: Vec<u8>,
    /// Everything written to stderr.
    pub stderr: String,
}

/// Counts of the summary line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Transitions seen in the selected namespace, or on the whole host.
    pub seen: u64,
    /// Transitions dropped because the ring buffer was full.
    pub lost: u64,
    /// Runs of the BPF program that the kernel skipped. `None` where the kernel does not count them: before
    /// 5.12, in mode tracepoint before 6.7.
    pub skipped: Option<u64>,
}

impl Summary {
    /// Returns the known number of missed transitions.
    pub fn missing(&self) -> u64 {
        self.lost + self.skipped.unwrap_or(0)
    }

    /// Returns the known number of generated transitions.
    pub fn total(&self) -> u64 {
        self.seen + self.missing()
    }
}

impl Tracer {
    /// Starts the program and waits until it traces.
    pub fn start<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let tracer = Self::start_unready(arguments);
        tracer.wait_for_stderr("tracing TCP in mode");
        tracer
    }

    /// Starts the program without waiting; it may exit with an error.
    pub fn start_unready<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(program());
        command.args(arguments);
        Self::spawn(&mut command)
    }

    /// Starts a command that runs the program.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot start: {error}"));
        let (stdout, stderr) = (CapturedStream::default(), CapturedStream::default());
        let readers = vec![
            capture(child.stdout.take().expect("it is piped"), Arc::clone(&stdout)),
            capture(child.stderr.take().expect("it is piped"), Arc::clone(&stderr)),
        ];
        Self { child, stdout, stderr, readers }
    }

    /// Traces the connections of a namespace as JSON.
    pub fn connections(namespace: &Namespace, mode: Mode) -> Self {
        Self::json("connections", namespace, mode, &[])
    }

    /// Traces the transitions of a namespace as JSON.
    pub fn transitions(namespace: &Namespace, mode: Mode) -> Self {
        Self::json("transitions", namespace, mode, &[])
    }

    /// Traces a namespace as JSON with additional options.
    pub fn json(command: &str, namespace: &Namespace, mode: Mode, options: &[&str]) -> Self {
        let mut arguments = arguments(command, "json", namespace, mode);
        arguments.push("--verbose".to_owned());
        arguments.extend(options.iter().map(ToString::to_string));
        let tracer = Self::start(arguments);
        tracer.wait_for_stderr(&format!("tracing TCP in mode {}", mode.name()));
        tracer
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the stderr output so far.
    pub fn stderr(&self) -> String {
        let captured = self.stderr.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&captured.bytes).into_owned()
    }

    /// Waits for text on stderr.
    pub fn wait_for_stderr(&self, text: &str) {
        self.wait(&self.stderr, text, |captured| String::from_utf8_lossy(&captured.bytes).contains(text));
    }

    /// Waits until stdout has `count` lines.
    pub fn wait_for_lines(&self, count: usize) {
        self.wait(&self.stdout, &format!("{count} lines"), |captured| captured.lines >= count);
    }

    fn wait(&self, stream: &CapturedStream, what: &str, holds: impl Fn(&Captured) -> bool) {
        assert!(Self::try_wait(stream, holds), "the program did not write {what}: {self:?}");
    }

    /// Returns whether `holds` becomes true before the stream ends or the limit passes.
    fn try_wait(stream: &CapturedStream, holds: impl Fn(&Captured) -> bool) -> bool {
        let (captured, changed) = &**stream;
        let end = Instant::now() + limit();
        let mut guard = captured.lock().unwrap_or_else(PoisonError::into_inner);
        while !holds(&guard) {
            let left = end.saturating_duration_since(Instant::now());
            if guard.ended || left.is_zero() {
                return false;
            }
            guard = changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(&self.child), signal).expect("the program has not been waited for");
    }

    /// Returns whether the program has exited.
    pub fn has_exited(&mut self) -> bool {
        self.child.try_wait().expect("the child can be waited for").is_some()
    }

    /// Waits for the program to exit.
    pub fn wait_for_exit(mut self) -> TracerOutput {
        let end = Instant::now() + limit();
        let status = loop {
            match self.child.try_wait().expect("the child can be waited for") {
                Some(status) => break status,
                None if Instant::now() > end => panic!("the program did not exit: {self:?}"),
                None => thread::sleep(std::time::Duration::from_millis(2)),
            }
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader thread does not panic");
        }
        let bytes = |stream: &CapturedStream| {
            std::mem::take(&mut stream.0.lock().unwrap_or_else(PoisonError::into_inner).bytes)
        };
        TracerOutput {
            status,
            stdout: bytes(&self.stdout),
            stderr: String::from_utf8_lossy(&bytes(&self.stderr)).into_owned(),
        }
    }

    /// Stops the program like Ctrl-C, and asserts that it exits successfully.
    pub fn interrupt(self) -> TracerOutput {
        self.signal(Signal::INT);
        let ended = self.wait_for_exit();
        assert!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
        ended
    }

    /// Waits for exactly `count` JSON rows, and stops the program.
    pub fn rows<T: DeserializeOwned + fmt::Debug>(self, count: usize) -> Vec<T> {
        self.wait_for_lines(count);
        let rows: Vec<T> = self.interrupt().rows();
        assert_eq!(rows.len(), count, "more rows than expected: {rows:#?}");
        rows
    }

    /// Waits for `count` connections and stops the program. For scenarios with many connections.
    ///
    /// Returns `None` and reports [`not_possible`] if the kernel skipped runs of the BPF program; in mode btf
    /// only if rows are missing or marked as gaps. In mode tracepoint the same holds if rows are missing and
    /// the kernel does not count skips. An interrupt during a run of the program is enough for a skip; slower
    /// machines have more of them.
    pub fn finish_many(self, mode: Mode, count: usize) -> Option<TracerOutput> {
        let complete = Self::try_wait(&self.stdout, |captured| captured.lines >= count);
        let ended = self.interrupt();
        let skipped = ended.summary().skipped;
        let intact = complete && ended.rows::<Connection>().iter().all(|row| !row.gap);
        let reason = match (skipped, mode) {
            (Some(0), _) | (None, Mode::Btf) => None,
            (Some(_), Mode::Btf) | (None, Mode::Tracepoint) if intact => None,
            (Some(skipped), _) => Some(format!("it skipped {skipped} runs of the BPF program")),
            (None, _) => Some("transitions are missing, and it does not count skipped runs".to_owned()),
        };
        if let Some(reason) = reason {
            not_possible(&reason);
            return None;
        }
        assert!(complete, "{} of {count} lines: {}", ended.line_count(), ended.stderr);
        Some(ended)
    }

    /// Waits for exactly `count` connections, and stops the program.
    pub fn finish(self, count: usize) -> Vec<Connection> {
        let rows = self.rows(count);
        for row in &rows {
            assert_plausible(row);
        }
        rows
    }

    /// Waits for the rows of both sockets of one connection, and stops the program. Returns the client's row
    /// first.
    pub fn finish_both(self) -> (Connection, Connection) {
        let mut rows = self.finish(2);
        rows.sort_by_key(|row| row.role.clone());
        let [client, server] = <[_; 2]>::try_from(rows).expect("there are two");
        assert_eq!((client.role.as_str(), server.role.as_str()), ("client", "server"));
        assert_eq!(client.ports(), (server.remote_port.unwrap_or(0), server.local_port.unwrap_or(0)));
        (client, server)
    }

    /// Waits for exactly `count` transitions, and stops the program.
    pub fn finish_transitions(self, count: usize) -> Vec<Transition> {
        self.rows(count)
    }
}

impl TracerOutput {
    /// Parses the JSON rows on stdout.
    pub fn rows<T: DeserializeOwned>(&self) -> Vec<T> {
        let parsed = serde_json::Deserializer::from_slice(&self.stdout).into_iter().collect::<Result<_, _>>();
        parsed.unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// Returns the number of lines on stdout.
    pub fn line_count(&self) -> usize {
        count_lines(&self.stdout)
    }

    /// Returns stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Returns a count of the summary line by its label, which is that of several; `None` if the line does not have it.
    pub fn counted(&self, what: &str) -> Option<u64> {
        let is_summary =
            |line: &&str| line.contains("transitions seen,") || line.contains("1 transition seen,");
        let line = self.stderr.lines().find(is_summary);
        let line = line.unwrap_or_else(|| panic!("no summary in: {}", self.stderr));
        let singular = singular(what);
        // The first count follows the name of the program, or of `serve` the time and the level.
        line.split(", ").find_map(|part| {
            let before = part.strip_suffix(what).or_else(|| part.strip_suffix(singular.as_str()))?;
            before.trim().rsplit(' ').next()?.parse().ok()
        })
    }

    /// Returns the number of abandoned handshakes with a listener, from the line after the summary; `None` if
    /// the line does not name the listener.
    pub fn abandoned_at(&self, listener: &str) -> Option<u64> {
        let (_, line) = self.stderr.split_once("handshakes abandoned by their clients: ")?;
        // With several namespaces the line adds the namespace to the listener.
        line.lines().next()?.split(", ").find_map(|part| {
            let (name, count) = part.rsplit_once(' ')?;
            count.parse().ok().filter(|_| name.split(' ').next() == Some(listener))
        })
    }

    /// Parses the summary line.
    pub fn summary(&self) -> Summary {
        let count = |what: &str| {
            self.counted(what).unwrap_or_else(|| panic!("no `{what}` in the summary: {}", self.stderr))
        };
        let skips_unknown = self.stderr.contains("skips by the kernel unknown");
        Summary {
            seen: count("transitions seen"),
            lost: count("lost in the ring"),
            skipped: (!skips_unknown).then(|| count("skipped by the kernel")),
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |stream: &CapturedStream| {
            let captured = stream.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&captured.bytes[..captured.bytes.len().min(20_000)]).into_owned()
        };
        write!(formatter, "stderr:\n{}\nstdout:\n{}", text(&self.stderr), text(&self.stdout))
    }
}

/// Returns the arguments that trace a namespace in one mode. The duration ends the program even if the test is killed.
pub fn arguments(command: &str, format: &str, namespace: &Namespace, mode: Mode) -> Vec<String> {
    let netns = namespace.inode().to_string();
    [command, "-o", format, "--mode", mode.name(), "--netns", &netns, "--duration", "10m"]
        .map(str::to_owned)
        .to_vec()
}

/// Returns the label of a count of one, from that of other counts.
fn singular(what: &str) -> String {
    let (noun, rest) = what.split_once(' ').unwrap_or((what, ""));
    let rest = rest.replace("their clients", "its client");
    format!("{} {rest}", noun.strip_suffix('s').unwrap_or(noun)).trim_end().to_owned()
}

fn pid(child: &Child) -> Pid {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child has a process id")
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.split(|&byte| byte == b'\n').count().saturating_sub(1)
}

fn capture(mut from: impl Read + Send + 'static, into: CapturedStream) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = from.read(&mut buffer).unwrap_or(0);
            let (captured, changed) = &*into;
            let mut captured = captured.lock().unwrap_or_else(PoisonError::into_inner);
            captured.bytes.extend_from_slice(&buffer[..count]);
            captured.lines += count_lines(&buffer[..count]);
            captured.ended = count == 0;
            changed.notify_all();
            if count == 0 {
                return;
            }
        }
    })
}

/// Asserts that the states with a socket add up to the connection's lifetime. Holds for every connection
/// whose open was seen.
fn assert_plausible(row: &Connection) {
    assert_eq!(row.r#type, "connection");
    assert!(!row.incomplete && !row.gap, "{row:#?}");
    let lifetime = row.lifetime().as_secs_f64() * 1e6;
    // Modelled spans lie after the close, except a handshake, which is part of the lifetime.
    let within = |span: &&Span| span.source != "modelled" || span.state == "syn_received";
    let sum: f64 = row.states.iter().filter(within).filter_map(|span| span.duration_us).sum();
    // A modelled FIN_WAIT2 belongs to a timewait socket, so that state of the socket itself has no span.
    let unknown = row
        .states
        .iter()
        .any(|span| span.duration_us.is_none() || span.state == "fin_wait_2" && span.source == "modelled");
    assert!(
        unknown && sum <= lifetime + 1.0 || (sum - lifetime).abs() <= 1.0,
        "{sum} is not {lifetime}: {row:#?}"
    );
}
