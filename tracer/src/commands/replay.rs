//! Reports the progress and the problems of a recording on stderr while a command reads it.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    time::{Duration, Instant},
};

use tracer_core::{
    counted::counted,
    escape::escape,
    event::{Event, SourceCounts},
};

use crate::{
    cli::Shared,
    commands::messages,
    recording::{FrozenBy, Header},
    report::utc,
    sources::{Origin, Polled, Source, recording::RecordingSource},
};

/// Interval of progress reports.
const INTERVAL: Duration = Duration::from_millis(250);

/// A recording that reports its progress and its problems.
pub(super) struct Replay {
    source: RecordingSource,
    quiet: bool,
    /// The next progress report; `None` without a terminal on stderr, or when rows go to the same terminal.
    due: Option<Instant>,
    shown: bool,
}

impl Replay {
    pub(super) fn new(source: RecordingSource, shared: &Shared) -> Self {
        let stdout_is_free = shared.is_silent_while_running || !io::stdout().is_terminal();
        let visible = !shared.quiet && io::stderr().is_terminal() && stdout_is_free;
        Self { source, quiet: shared.quiet, due: visible.then(|| Instant::now() + INTERVAL), shown: false }
    }

    /// Returns the line to print at the start.
    pub(super) fn announcement(paths: &[PathBuf], header: &Header) -> String {
        let name = match paths {
            [path] => path.display().to_string(),
            several => counted(several.len(), "file"),
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

    /// Returns the line that says why a flight recorder wrote the file; none for any other recording.
    pub(super) fn frozen(header: &Header) -> Option<String> {
        let FrozenBy { cause, measured, time } = header.frozen_by.as_ref()?;
        let measured = measured.as_ref().map(|measured| format!(" ({measured})")).unwrap_or_default();
        Some(format!(
            "frozen {} by {}{}",
            utc(*time, header.clock),
            escape(cause.as_bytes()),
            escape(measured.as_bytes())
        ))
    }

    fn report_progress(&mut self) {
        let Some(due) = self.due else { return };
        let now = Instant::now();
        if now < due {
            return;
        }
        self.due = Some(now + INTERVAL);
        let (read, size) = self.source.progress();
        let Some(percent) = (read * 100).checked_div(size) else { return };
        let seen = self.source.counts().seen;
        messages::write(&format!("\rtcptrace-bpf: {percent:3} % read, {} ", counted(seen, "transition")));
        self.shown = true;
    }

    fn erase_progress(&mut self) {
        if std::mem::take(&mut self.shown) {
            messages::write("\r\x1b[K");
        }
    }

    fn report_problems(&mut self) {
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
    /// Clears the progress, so that an error gets its own line.
    fn drop(&mut self) {
        self.erase_progress();
    }
}

impl Source for Replay {
    fn poll(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<Polled> {
        let polled = self.source.poll(deliver)?;
        match polled {
            Polled::Drained => self.report_progress(),
            Polled::End => self.report_problems(),
        }
        Ok(polled)
    }

    fn finish(&mut self, deliver: &mut dyn FnMut(&Event)) -> io::Result<()> {
        self.source.finish(deliver)?;
        self.report_problems();
        Ok(())
    }

    fn counts(&self) -> SourceCounts {
        self.source.counts()
    }

    fn origin(&mut self) -> Origin {
        self.source.origin()
    }
}
