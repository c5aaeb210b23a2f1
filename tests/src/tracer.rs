//! The program, running.

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

/// Which hook the program uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The tracepoint through BTF.
    Btf,
    /// The classic tracepoint.
    Tracepoint,
}

impl Mode {
    /// The name on the command line and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Btf => "btf",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// What a stream has brought so far.
#[derive(Default)]
struct Captured {
    bytes: Vec<u8>,
    lines: usize,
    ended: bool,
}

type Stream = Arc<(Mutex<Captured>, Condvar)>;

/// The program while it traces; killed when dropped.
pub struct Tracer {
    child: Child,
    stdout: Stream,
    stderr: Stream,
    readers: Vec<JoinHandle<()>>,
}

/// The program after its end.
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// The counts of the line that ends a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Transitions seen in the namespace that is asked for, else on the whole host.
    pub seen: u64,
    /// Transitions that found the ring buffer full.
    pub lost: u64,
    /// Times the kernel skipped the program; none where it does not count them: before 5.12, in mode tracepoint
    /// before 6.7.
    pub skipped: Option<u64>,
}

impl Summary {
    /// What was generated and not seen, as far as the program can know.
    pub fn missing(&self) -> u64 {
        self.lost + self.skipped.unwrap_or(0)
    }

    /// All that was generated, as far as the program can know.
    pub fn total(&self) -> u64 {
        self.seen + self.missing()
    }
}

impl Tracer {
    /// Starts the program with these arguments and waits until it traces.
    pub fn start<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let tracer = Self::start_unready(arguments);
        tracer.wait_for_stderr("tracing TCP in mode");
        tracer
    }

    /// Starts the program, which may refuse.
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
        let (stdout, stderr) = (Stream::default(), Stream::default());
        let readers = vec![
            capture(child.stdout.take().expect("it is piped"), Arc::clone(&stdout)),
            capture(child.stderr.take().expect("it is piped"), Arc::clone(&stderr)),
        ];
        Self { child, stdout, stderr, readers }
    }

    /// Traces the connections of a namespace in JSON.
    pub fn connections(namespace: &Namespace, mode: Mode) -> Self {
        Self::json("connections", namespace, mode, &[])
    }

    /// Traces the transitions of a namespace in JSON.
    pub fn transitions(namespace: &Namespace, mode: Mode) -> Self {
        Self::json("transitions", namespace, mode, &[])
    }

    /// Traces a namespace in JSON with more options.
    pub fn json(command: &str, namespace: &Namespace, mode: Mode, options: &[&str]) -> Self {
        let netns = namespace.inode().to_string();
        // The duration ends it also when the test is killed and cannot.
        let fixed = [
            command,
            "-o",
            "json",
            "--mode",
            mode.name(),
            "--netns",
            &netns,
            "--duration",
            "10m",
            "--verbose",
        ];
        let tracer = Self::start(fixed.iter().chain(options));
        tracer.wait_for_stderr(&format!("tracing TCP in mode {}", mode.name()));
        tracer
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        let captured = self.stderr.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&captured.bytes).into_owned()
    }

    /// Waits for text on stderr.
    pub fn wait_for_stderr(&self, text: &str) {
        self.wait(&self.stderr, text, |captured| String::from_utf8_lossy(&captured.bytes).contains(text));
    }

    /// Waits until that many lines are on stdout.
    pub fn wait_for_lines(&self, count: usize) {
        self.wait(&self.stdout, &format!("{count} lines"), |captured| captured.lines >= count);
    }

    fn wait(&self, stream: &Stream, what: &str, holds: impl Fn(&Captured) -> bool) {
        assert!(Self::try_wait(stream, holds), "the program did not bring {what}: {self:?}");
    }

    /// Whether the stream brings it before the limit.
    fn try_wait(stream: &Stream, holds: impl Fn(&Captured) -> bool) -> bool {
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

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(&self.child), signal).expect("the program has not been waited for");
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is a child").is_some()
    }

    /// Waits for its end.
    pub fn wait_for_end(mut self) -> Ended {
        let end = Instant::now() + limit();
        let status = loop {
            match self.child.try_wait().expect("it is a child") {
                Some(status) => break status,
                None if Instant::now() > end => panic!("the program does not end: {self:?}"),
                None => thread::sleep(std::time::Duration::from_millis(2)),
            }
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
        let bytes = |stream: &Stream| {
            std::mem::take(&mut stream.0.lock().unwrap_or_else(PoisonError::into_inner).bytes)
        };
        Ended {
            status,
            stdout: bytes(&self.stdout),
            stderr: String::from_utf8_lossy(&bytes(&self.stderr)).into_owned(),
        }
    }

    /// Ends it as Ctrl-C does, and checks that it ends well.
    pub fn interrupt(self) -> Ended {
        self.signal(Signal::INT);
        let ended = self.wait_for_end();
        assert!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
        ended
    }

    /// Waits for exactly that many lines of JSON, and ends it.
    pub fn rows<T: DeserializeOwned + fmt::Debug>(self, count: usize) -> Vec<T> {
        self.wait_for_lines(count);
        let rows: Vec<T> = self.interrupt().rows();
        assert_eq!(rows.len(), count, "more lines than the scenario makes: {rows:#?}");
        rows
    }

    /// Waits for that many connections, and ends it. For scenarios with many.
    ///
    /// None, which is said as [`not_possible`], when the kernel has skipped the program (in mode btf only if lines are
    /// missing or marked as gaps), or lines are missing in mode tracepoint and it does not count whether it has: an
    /// interrupt that comes while the program runs is enough, and the slower the machine, the more come.
    pub fn many(self, mode: Mode, count: usize) -> Option<Ended> {
        let came = Self::try_wait(&self.stdout, |captured| captured.lines >= count);
        let ended = self.interrupt();
        let skipped = ended.summary().skipped;
        let whole = came && ended.rows::<Connection>().iter().all(|row| !row.gap);
        let reason = match (skipped, mode) {
            (Some(0), _) | (None, Mode::Btf) => None,
            (Some(_), Mode::Btf) | (None, Mode::Tracepoint) if whole => None,
            (Some(skipped), _) => Some(format!("it skipped {skipped} runs of the program")),
            (None, _) => {
                Some("transitions are missing, and it does not count the runs that it skipped".to_owned())
            }
        };
        if let Some(reason) = reason {
            not_possible(&reason);
            return None;
        }
        assert!(came, "{} of {count} lines: {}", ended.line_count(), ended.stderr);
        Some(ended)
    }

    /// Waits for exactly that many connections, and ends it.
    pub fn finish(self, count: usize) -> Vec<Connection> {
        let rows = self.rows(count);
        for row in &rows {
            assert_plausible(row);
        }
        rows
    }

    /// Waits for the two ends of one connection, and ends it: the client's line first.
    pub fn finish_both(self) -> (Connection, Connection) {
        let mut rows = self.finish(2);
        rows.sort_by_key(|row| row.role.clone());
        let [client, server] = <[_; 2]>::try_from(rows).expect("there are two");
        assert_eq!((client.role.as_str(), server.role.as_str()), ("client", "server"));
        assert_eq!(client.ports(), (server.remote_port.unwrap_or(0), server.local_port.unwrap_or(0)));
        (client, server)
    }

    /// Waits for exactly that many transitions, and ends it.
    pub fn finish_transitions(self, count: usize) -> Vec<Transition> {
        self.rows(count)
    }
}

impl Ended {
    /// The lines as JSON.
    pub fn rows<T: DeserializeOwned>(&self) -> Vec<T> {
        let parsed = serde_json::Deserializer::from_slice(&self.stdout).into_iter().collect::<Result<_, _>>();
        parsed.unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    /// How many lines are on stdout.
    pub fn line_count(&self) -> usize {
        count_lines(&self.stdout)
    }

    /// Stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What the line that ends every run counts under this name; none when it does not name it.
    pub fn counted(&self, what: &str) -> Option<u64> {
        let line = self.stderr.lines().find(|line| line.contains("transitions seen"));
        let line = line.unwrap_or_else(|| panic!("no summary in: {}", self.stderr));
        line.trim_start_matches("tcptrace-bpf: ")
            .split(", ")
            .find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
    }

    /// How many handshakes with a listener the program says were abandoned, in the line after the summary;
    /// none when it does not name the listener.
    pub fn abandoned_at(&self, listener: &str) -> Option<u64> {
        let (_, line) = self.stderr.split_once("handshakes abandoned by their clients: ")?;
        // In several namespaces a listener is named with its own.
        line.lines().next()?.split(", ").find_map(|part| {
            let (who, count) = part.rsplit_once(' ')?;
            count.parse().ok().filter(|_| who.split(' ').next() == Some(listener))
        })
    }

    /// The line that ends every run.
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
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |stream: &Stream| {
            let captured = stream.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&captured.bytes[..captured.bytes.len().min(20_000)]).into_owned()
        };
        write!(formatter, "stderr:\n{}\nstdout:\n{}", text(&self.stderr), text(&self.stdout))
    }
}

fn pid(child: &Child) -> Pid {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child has a process id")
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.split(|&byte| byte == b'\n').count().saturating_sub(1)
}

fn capture(mut from: impl Read + Send + 'static, into: Stream) -> JoinHandle<()> {
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

/// What holds for every connection whose beginning was seen: its states, as far as they have a socket,
/// fill its life.
fn assert_plausible(row: &Connection) {
    assert_eq!(row.r#type, "connection");
    assert!(!row.incomplete && !row.gap, "{row:#?}");
    let life = row.lifetime().as_secs_f64() * 1e6;
    // What is modelled is what the kernel keeps after the end, or a handshake, which is a part of the life.
    let within = |span: &&Span| span.source != "modelled" || span.state == "syn_received";
    let sum: f64 = row.states.iter().filter(within).filter_map(|span| span.duration_us).sum();
    // What the kernel keeps of a half-closed connection has no socket, and its span none of its own.
    let unknown = row
        .states
        .iter()
        .any(|span| span.duration_us.is_none() || span.state == "fin_wait_2" && span.source == "modelled");
    assert!(unknown && sum <= life + 1.0 || (sum - life).abs() <= 1.0, "{sum} is not {life}: {row:#?}");
}
