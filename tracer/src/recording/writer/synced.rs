//! Syncs a file to disk in the background.

use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use crate::host::give_up_priority;

/// A file that a second thread syncs with `fdatasync` after each write. If the disk is slower than the writes, one call
/// covers several writes.
pub(super) struct SyncedFile {
    file: File,
    path: PathBuf,
    /// Requests a sync. `None` before the first write, or if the thread could not be started.
    requests: Option<SyncSender<()>>,
    started: bool,
}

impl SyncedFile {
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        Self { file, path, requests: None, started: false }
    }

    /// Starts the thread at the first write. The file is created before the capabilities are dropped, and a thread
    /// started then would keep them.
    fn start(&mut self) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let (sender, receiver) = sync_channel(1);
        let thread = self.file.try_clone().ok().and_then(|copy| {
            let sync = move || {
                give_up_priority();
                while receiver.recv().is_ok() {
                    // The next write reports an error.
                    let _ = copy.sync_data();
                }
            };
            thread::Builder::new().name("sync".to_owned()).spawn(sync).ok()
        });
        self.requests = thread.map(|_| sender);
    }
}

impl Write for SyncedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "cannot write the recording {}: {error}; the file is readable up to its last complete batch",
                    self.path.display()
                ),
            )
        })?;
        self.start();
        if let Some(sender) = &self.requests {
            // If the channel is full, the pending sync includes this write.
            let _ = sender.try_send(());
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Called at the end of a file. Pipes and devices do not support a sync.
        match self.file.sync_data() {
            Err(error) if error.kind() != io::ErrorKind::InvalidInput => Err(error),
            _ => Ok(()),
        }
    }
}
