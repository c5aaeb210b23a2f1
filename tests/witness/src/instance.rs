//! A tracefs instance that records one trace event.

use std::{
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

/// Bytes of one event in the trace buffer, with some reserve.
const EVENT_BYTES: u64 = 128;

/// Records an event from its start until it is read; removed on drop.
#[derive(Debug)]
pub(crate) struct Instance {
    instances: OwnedFd,
    name: String,
    folder: OwnedFd,
    /// The folder of the event, such as `events/sock/inet_sock_set_state`.
    event: &'static str,
}

impl Instance {
    /// Starts recording. `most` is the maximum number of events.
    ///
    /// # Errors
    ///
    /// Fails if tracefs cannot be mounted or lacks the event.
    pub(crate) fn start(event: &'static str, most: u64) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tcptrace-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // Runs on a separate thread, which may have to mount tracefs privately. The descriptor outlives the mount.
        let instances = thread::scope(|scope| {
            scope.spawn(instances).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        mkdirat(&instances, &name, Mode::RWXU)?;
        let folder = match openat(&instances, &name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Ok(folder) => folder,
            Err(error) => {
                let _ = unlinkat(&instances, &name, AtFlags::REMOVEDIR);
                return Err(error.into());
            }
        };
        let instance = Self { instances, name, folder, event };
        instance.write("buffer_size_kb", &(most * EVENT_BYTES / 1024 + 64).to_string())?;
        instance.enable("1")?;
        Ok(instance)
    }

    /// Stops recording and passes each line of the text to `line`.
    ///
    /// # Errors
    ///
    /// Fails if the trace buffer was too small, if its text cannot be read, or with the error of `line`.
    pub(crate) fn read(&self, mut line: impl FnMut(&str) -> io::Result<()>) -> io::Result<()> {
        self.enable("0")?;
        let (mut is_complete, mut bytes, mut text) = (false, Vec::new(), self.open("trace")?);
        // A line at a time: the text of a long run has hundreds of megabytes.
        while text.read_until(b'\n', &mut bytes)? > 0 {
            let event = String::from_utf8_lossy(&bytes);
            is_complete |= is_everything(&event)?;
            line(&event)?;
            bytes.clear();
        }
        if is_complete { Ok(()) } else { Err(unexpected("no counts in", "the trace")) }
    }

    fn enable(&self, value: &str) -> io::Result<()> {
        self.write(&format!("{}/enable", self.event), value)
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let file = openat(&self.folder, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).write_all(text.as_bytes())
    }

    fn open(&self, file: &str) -> io::Result<BufReader<File>> {
        let file = openat(&self.folder, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(BufReader::new(File::from(file)))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.enable("0");
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

/// Returns an error about a text of the trace.
pub(crate) fn unexpected(what: &str, text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} {}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overwritten_entry_is_an_error() {
        assert!(is_everything("# entries-in-buffer/entries-written: 12/12   #P:2").unwrap());
        assert!(!is_everything("# tracer: nop").unwrap());
        let overwritten = is_everything("# entries-in-buffer/entries-written: 12/14   #P:2");
        assert!(overwritten.unwrap_err().to_string().contains("too small"));
    }
}
