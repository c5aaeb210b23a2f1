//! An independent count of transitions: the kernel's own trace event, without BPF.
//!
//! ftrace records `sock:inet_sock_set_state` into a tracefs instance of its own. It loses no event if its buffer is large
//! enough, which [`Witness::end`] checks.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    os::fd::OwnedFd,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat},
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::UnshareFlags,
};

const TRACEFS: &str = "/sys/kernel/tracing";
const EVENT: &str = "events/sock/inet_sock_set_state";

/// Bytes of one event in the trace buffer, with some reserve.
const EVENT_BYTES: u64 = 128;

/// Records transitions from its start to its end; removes its tracefs instance on drop.
#[derive(Debug)]
pub struct Witness {
    instances: OwnedFd,
    name: String,
    instance: OwnedFd,
    port: u16,
    /// Threads of process 1 when recording started.
    first_process: HashSet<u32>,
}

/// Transitions that a witness recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// Transitions of sockets with the witness's port.
    pub own: u64,
    /// Transitions of `own` during which a thread of process 1 was current. Some virtual machines' kernels run no BPF
    /// program then, and count no skip.
    pub under_first_process: u64,
    /// Transitions of all other TCP sockets of the host.
    pub strangers: u64,
}

impl Witnessed {
    /// Returns whether `own` is the number of the port's transitions, with or without those that the kernel may hide from
    /// BPF programs.
    pub fn is_exactly(&self, own: u64) -> bool {
        own == self.own || own == self.own - self.under_first_process
    }

    /// Returns the minimum number of the port's transitions that a BPF program sees.
    pub fn least(&self) -> u64 {
        self.own - self.under_first_process
    }
}

impl Witness {
    /// Starts recording. `most` is the maximum number of transitions.
    ///
    /// # Errors
    ///
    /// Fails if tracefs cannot be mounted or lacks the event.
    pub fn start(port: u16, most: u64) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tcptrace-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // Runs on a separate thread, which may have to mount tracefs privately. The descriptor outlives the mount.
        let instances = thread::scope(|scope| {
            scope.spawn(instances).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        mkdirat(&instances, &name, Mode::RWXU)?;
        let instance = match openat(&instances, &name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Ok(instance) => instance,
            Err(error) => {
                let _ = unlinkat(&instances, &name, AtFlags::REMOVEDIR);
                return Err(error.into());
            }
        };
        let witness = Self { instances, name, instance, port, first_process: first_process() };
        witness.write("buffer_size_kb", &(most * EVENT_BYTES / 1024 + 64).to_string())?;
        witness.write(&format!("{EVENT}/enable"), "1")?;
        Ok(witness)
    }

    /// Stops recording and counts the transitions.
    ///
    /// # Errors
    ///
    /// Fails if the trace buffer was too small, or its text cannot be read or parsed.
    pub fn end(self) -> io::Result<Witnessed> {
        self.write(&format!("{EVENT}/enable"), "0")?;
        let mut first_process = first_process();
        first_process.extend(&self.first_process);
        let mut witnessed = Witnessed { own: 0, under_first_process: 0, strangers: 0 };
        let port = format!("port={} ", self.port);
        let (mut is_complete, mut line, mut text) = (false, Vec::new(), self.open("trace")?);
        // A line at a time: the text of a long run has hundreds of megabytes.
        while text.read_until(b'\n', &mut line)? > 0 {
            let event = String::from_utf8_lossy(&line);
            is_complete |= is_everything(&event)?;
            if event.contains(" inet_sock_set_state: ") && event.contains("protocol=IPPROTO_TCP ") {
                if event.contains(&port) {
                    let pid = current(&event).ok_or_else(|| unexpected("no process in", &event))?;
                    witnessed.own += 1;
                    witnessed.under_first_process += u64::from(first_process.contains(&pid));
                } else {
                    witnessed.strangers += 1;
                }
            }
            line.clear();
        }
        if is_complete { Ok(witnessed) } else { Err(unexpected("no counts in", "the trace")) }
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let file = openat(&self.instance, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).write_all(text.as_bytes())
    }

    fn open(&self, file: &str) -> io::Result<BufReader<File>> {
        let file = openat(&self.instance, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(BufReader::new(File::from(file)))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.write(&format!("{EVENT}/enable"), "0");
        let _ = unlinkat(&self.instances, &self.name, AtFlags::REMOVEDIR);
    }
}

/// Opens the `instances` folder of tracefs. If the host has no tracefs mounted, mounts it in a mount namespace of this
/// thread.
fn instances() -> io::Result<OwnedFd> {
    let path = format!("{TRACEFS}/instances");
    let open = || openat(CWD, &path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    if let Ok(instances) = open() {
        return Ok(instances);
    }
    // SAFETY: only the mounts of this thread change, which ends after this.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount("tracefs", TRACEFS, "tracefs", MountFlags::empty(), None)?;
    Ok(open()?)
}

/// Returns the threads of process 1.
fn first_process() -> HashSet<u32> {
    let tasks = std::fs::read_dir("/proc/1/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

/// Returns whether the line has the counts of the trace buffer, such as
/// `# entries-in-buffer/entries-written: 12/12   #P:2`, and no entry was overwritten.
///
/// # Errors
///
/// Fails if entries were overwritten.
fn is_everything(line: &str) -> io::Result<bool> {
    let counts =
        line.split_once("entries-written: ").and_then(|(_, counts)| counts.split_whitespace().next());
    match counts.and_then(|counts| counts.split_once('/')) {
        None => Ok(false),
        Some((kept, written)) if kept == written => Ok(true),
        Some(_) => Err(unexpected("entries were overwritten; the trace buffer is too small:", line)),
    }
}

fn unexpected(what: &str, text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} {}", text.trim_end()))
}

/// Returns the current thread of a line such as `  name-42  [001] b.s3. 1.2: inet_sock_set_state: …`. Its name may contain
/// any characters.
fn current(line: &str) -> Option<u32> {
    let (before, _) = line.split_once(" inet_sock_set_state: ")?;
    let (task, _) = before.rsplit_once(" [")?;
    task.trim_end().rsplit_once('-')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_thread_is_found_behind_any_name() {
        let rest = "[001] b.s3.  12.5: inet_sock_set_state: family=AF_INET protocol=IPPROTO_TCP";
        for (task, pid) in
            [("          server-42     ", 42), ("   a-1 [000] b-7  ", 7), ("  <idle>-0       ", 0)]
        {
            assert_eq!(current(&format!("{task}{rest}")), Some(pid), "{task}");
        }
        assert_eq!(current("# tracer: nop"), None);
    }

    #[test]
    fn an_overwritten_entry_is_an_error() {
        assert!(is_everything("# entries-in-buffer/entries-written: 12/12   #P:2").unwrap());
        assert!(!is_everything("# tracer: nop").unwrap());
        let overwritten = is_everything("# entries-in-buffer/entries-written: 12/14   #P:2");
        assert!(overwritten.unwrap_err().to_string().contains("too small"));
    }
}
