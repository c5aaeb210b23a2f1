//! A file that reaches the disk soon, without its writer waiting for that.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

/// Writes at once, and has another thread call `fdatasync` after each write, one call at a time: when the
/// disk is slower than the writes, one call serves several.
pub(super) struct SyncedFile {
    file: File,
    path: PathBuf,
    /// None before the first write, or where no thread can be had.
    written: Option<SyncSender<()>>,
    begun: bool,
}

impl SyncedFile {
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        Self { file, path, written: None, begun: false }
    }

    /// The thread begins with the first write: the file is made while the process still has its
    /// capabilities, and a thread keeps those that it is started with.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let (written, seen) = sync_channel(1);
        let synced = self.file.try_clone().ok().and_then(|copy| {
            let sync = move || {
                while seen.recv().is_ok() {
                    // What the disk refuses is told by the next write.
                    let _ = copy.sync_data();
                }
            };
            thread::Builder::new().name("sync".to_owned()).spawn(sync).ok()
        });
        self.written = synced.map(|_| written);
    }
}

impl Write for SyncedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "{}: {error}: what was recorded before reads up to its last batch",
                    self.path.display()
                ),
            )
        })?;
        self.begin();
        if let Some(sender) = &self.written {
            // Full: a call is due already, and will include this write.
            let _ = sender.try_send(());
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        // At the end of a file; what is not a disk has nothing to sync.
        match self.file.sync_data() {
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
            _ => Ok(()),
        }
    }
}
