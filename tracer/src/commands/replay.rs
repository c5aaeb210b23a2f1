//! A recording on its way to a command: what is told on stderr about it meanwhile and at its end.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use tracer_core::{
    escape::escape,
    event::{Event, SourceCounts},
};

use crate::{
    cli::Shared,
    recording::Header,
    report::utc,
    sources::{Origin, Polled, Source, recording::RecordingSource},
};

/// How often the progress is told.
const INTERVAL: Duration = Duration::from_millis(250);

/// A recording that tells how far it has been read, when that takes long, and what it lacks.
pub(super) struct Replay {
    source: RecordingSource,
    quiet: bool,
    /// When the progress is told next; none where nobody would see it, or rows are on the same terminal.
    due: Option<Instant>,
    shown: bool,
}

impl Replay {
    pub(super) fn new(source: RecordingSource, shared: &Shared) -> Self {
        let stdout_is_free = shared.is_silent_while_running || !io::stdout().is_terminal();
        let seen = !shared.quiet && io::stderr().is_terminal() && stdout_is_free;
        Self { source, quiet: shared.quiet, due: seen.then(|| Instant::now() + INTERVAL), shown: false }
    }

    /// What is told when it begins.
    pub(super) fn announcement(paths: &[PathBuf], header: &Header) -> String {
        let name = match paths {
            [path] => path.display().to_string(),
            several => format!("{} files", several.len()),
        };
        format!(
            "reading {}: host {}, kernel {}, mode {}, recorded {}",
            escape(name.as_bytes()),
            escape(header.host.name.as_bytes()),
            escape(header.host.kernel.as_bytes()),
            escape(header.host.mode.as_bytes()),
            utc(header.started, header.clock)
        )
    }

    fn tell_progress(&mut self) {
        let Some(due) = self.due else { return };
        let now = Instant::now();
        if now < due {
            return;
        }
        self.due = Some(now + INTERVAL);
        let (read, size) = self.source.progress();
        let Some(percent) = (read * 100).checked_div(size) else { return };
        let seen = self.source.counts().seen;
        // A terminal that went away is no reason to stop.
        let _ = write!(io::stderr(), "\rtcptrace-bpf: {percent:3} % read, {seen} transitions ");
        self.shown = true;
    }

    fn erase_progress(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn tell_problems(&mut self) {
        self.erase_progress();
        let problems = self.source.take_problems();
        if !self.quiet {
            for problem in problems {
                stderr_line!("{}", escape(problem.as_bytes()));
            }
        }
    }
}

impl Drop for Replay {
    /// What ended it early is told on a line of its own.
    fn drop(&mut self) {
        self.erase_progress();
    }
}

impl Source for Replay {
    fn poll(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<Polled> {
        let polled = self.source.poll(deliver)?;
        match polled {
            Polled::Drained => self.tell_progress(),
            Polled::End => self.tell_problems(),
        }
        Ok(polled)
    }

    fn finish(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<()> {
        self.source.finish(deliver)?;
        self.tell_problems();
        Ok(())
    }

    fn counts(&self) -> SourceCounts {
        self.source.counts()
    }

    fn origin(&mut self) -> Origin {
        self.source.origin()
    }
}
