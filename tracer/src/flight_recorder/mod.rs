//! The flight recorder: keeps the last events in bounded memory, and writes them to a file when a condition holds or
//! somebody asks.
//!
//! It is a consumer of the tracing thread, alone in `record --ring` or beside the metrics in `serve --ring`. A file is an
//! ordinary recording of the events before the trigger. Another thread writes it, so the disk never delays the reading of
//! events.
//!
//! Memory: the ring has at most its size, plus the batch that is being collected, at most about 5 MiB. Batches that the ring
//! drops while a file is being written stay until then, so the ring may take twice its size for that moment. Disk: as many
//! files as are kept, each about as large as the ring, and one that is being written.

mod beside;
mod files;
mod freeze;
mod requests;
mod ring;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use tracer_core::{
    analysis::{FreezeTrigger, FreezeTriggerOptions},
    event::{Event, Nanos, SourceCounts, Timestamp},
    lifecycle::Observation,
};

pub(crate) use beside::WithFlightRecorder;
pub(crate) use files::FrozenFiles;
pub(crate) use freeze::FreezeError;
pub(crate) use requests::{FreezeHandle, FreezeRequests, freeze_channel};

use crate::{
    event_loop::{Consumer, Progress},
    flight_recorder::{
        freeze::{FreezeCause, FreezeJob},
        requests::Reply,
        ring::Ring,
    },
    host::{CgroupResolver, give_up_priority},
    recording::Header,
    report::Summary,
    sources::new_run,
};

/// What the recorder reports while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Something that was asked for was done.
    Done(String),
    /// Something went wrong. The recorder continues.
    Problem(String),
}

/// Shows a notice to the user. It runs on the tracing thread and on the thread that writes a file.
pub(crate) type Report = Arc<dyn Fn(Notice) + Send + Sync>;

/// The options of a [`FlightRecorder`].
pub(crate) struct FlightOptions {
    /// The size of the ring, bytes.
    pub(crate) ring: u64,
    /// When a file is written without a request.
    pub(crate) trigger: FreezeTriggerOptions,
    /// Where files are written.
    pub(crate) files: FrozenFiles,
    /// Shows notices.
    pub(crate) report: Report,
}

/// Keeps the last events, and writes them to files.
pub(crate) struct FlightRecorder {
    ring: Ring,
    resolver: CgroupResolver,
    trigger: FreezeTrigger,
    window: Nanos,
    requests: FreezeRequests,
    header: Header,
    files: Arc<FrozenFiles>,
    report: Report,
    /// The thread that writes a file.
    writing: Option<JoinHandle<()>>,
    written: Arc<AtomicU64>,
    latest: SourceCounts,
}

impl FlightRecorder {
    /// Creates a recorder. `header` describes the host and has the start; `resolver` looks up the cgroups of sockets.
    ///
    /// # Errors
    ///
    /// When the schema cannot be encoded, which does not happen.
    pub(crate) fn new(
        options: FlightOptions,
        header: Header,
        resolver: CgroupResolver,
        requests: FreezeRequests,
    ) -> io::Result<Self> {
        let FlightOptions { ring, trigger, files, report } = options;
        Ok(Self {
            ring: Ring::new(ring, header.clone())?,
            resolver,
            window: trigger.window,
            trigger: FreezeTrigger::new(trigger),
            requests,
            header,
            files: Arc::new(files),
            report,
            writing: None,
            written: Arc::default(),
            latest: SourceCounts::ZERO,
        })
    }

    /// Returns whether a file is being written.
    fn is_writing(&mut self) -> bool {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.wait();
        }
        self.writing.is_some()
    }

    /// Waits until the current file is written.
    fn wait(&mut self) {
        if let Some(thread) = self.writing.take() {
            // The thread reports its own errors.
            let _ = thread.join();
        }
    }

    /// Starts to write a file.
    fn freeze(&mut self, cause: FreezeCause, reply: Option<Reply>, now: Timestamp) -> io::Result<()> {
        let job = FreezeJob {
            content: self.ring.content(&self.latest, &mut self.resolver)?,
            // Files overlap, so they must not be read as parts of one run.
            header: Header { run: new_run(), ..self.header.clone() },
            cause,
            window: self.window,
            now,
        };
        let (files, report, written) =
            (Arc::clone(&self.files), Arc::clone(&self.report), Arc::clone(&self.written));
        let work = move || {
            give_up_priority();
            let result = job.write(&files);
            report(match &result {
                Ok(frozen) => {
                    written.fetch_add(1, Ordering::Relaxed);
                    Notice::Done(frozen.line())
                }
                Err(error) => Notice::Problem(error.to_string()),
            });
            if let Some(reply) = reply {
                // The client may be gone.
                let _ = reply.send(result);
            }
        };
        match thread::Builder::new().name("freeze".to_owned()).spawn(work) {
            Ok(thread) => self.writing = Some(thread),
            Err(cause) => {
                let path = PathBuf::from(self.files.shown());
                (self.report)(Notice::Problem(FreezeError::Write { path, cause }.to_string()));
            }
        }
        Ok(())
    }

    /// Refuses a request because a file is being written.
    fn refuse(&self, reply: Option<Reply>) {
        if let Some(reply) = reply {
            // The client may be gone.
            let _ = reply.send(Err(FreezeError::Busy));
        } else {
            (self.report)(Notice::Problem(FreezeError::Busy.to_string()));
        }
    }

    fn answer_requests(&mut self, now: Timestamp) -> io::Result<()> {
        while let Some(request) = self.requests.next() {
            if self.is_writing() {
                self.refuse(request.reply);
            } else {
                self.freeze(request.cause, request.reply, now)?;
            }
        }
        Ok(())
    }
}

impl Consumer for FlightRecorder {
    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.trigger.move_to(event.time());
        self.ring.event(event, &mut self.resolver)
    }

    fn observe(&mut self, observation: Observation<'_>) -> io::Result<()> {
        self.trigger.observe(&observation);
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> io::Result<()> {
        // The first flush precedes the first read, which has the first time.
        if progress.now == Timestamp(0) {
            return Ok(());
        }
        self.latest = progress.source;
        if let Some(connections) = self.ring.flush(progress, &mut self.resolver)? {
            (self.report)(Notice::Problem(format!(
                "{connections} open connections take more than a quarter of the ring; frozen files begin without those that \
                 were open before, until --ring is larger"
            )));
        }
        let ready = !self.is_writing();
        if let Some(reason) = self.trigger.advance(progress.tracker, &progress.source, progress.now, ready) {
            self.freeze(FreezeCause::Condition(reason), None, progress.now)?;
        }
        self.answer_requests(progress.now)
    }

    fn writes_to_stdout(&self) -> bool {
        false
    }

    /// Waits for a file that is being written.
    fn end(&mut self, _summary: &Summary) -> io::Result<()> {
        self.wait();
        let files = match self.written.load(Ordering::Relaxed) {
            0 => "no file was frozen".to_owned(),
            1 => "1 file was frozen".to_owned(),
            several => format!("{several} files were frozen"),
        };
        (self.report)(Notice::Done(files));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
