//! The way back to the host: a serial port of its own, so that nothing the kernel or a test prints can
//! get between.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::protocol::{Outcome, Verdict};

const PORT: &str = "/dev/ttyS1";

/// Writes verdicts to the host.
pub(crate) struct Report {
    port: File,
}

impl Report {
    pub(crate) fn open() -> Result<Self> {
        let port = OpenOptions::new()
            .write(true)
            .read(true)
            .open(PORT)
            .with_context(|| format!("{PORT} cannot be opened"))?;
        let mut settings = tcgetattr(&port).with_context(|| format!("{PORT} is not a serial port"))?;
        settings.make_raw();
        tcsetattr(&port, OptionalActions::Now, &settings)
            .with_context(|| format!("{PORT} cannot be set up"))?;
        Ok(Self { port })
    }

    pub(crate) fn send(&mut self, verdict: &Verdict) -> Result<()> {
        let mut line = serde_json::to_vec(verdict)?;
        line.push(b'\n');
        self.port.write_all(&line).with_context(|| format!("{PORT} cannot be written to"))
    }

    pub(crate) fn booted(&mut self) -> Result<()> {
        let system = rustix::system::uname();
        self.send(&Verdict::Booted {
            release: system.release().to_string_lossy().into_owned(),
            version: system.version().to_string_lossy().into_owned(),
        })
    }

    pub(crate) fn note(&mut self, text: String) -> Result<()> {
        self.send(&Verdict::Note { text })
    }

    pub(crate) fn test(&mut self, suite: &str, name: &str, outcome: Outcome, took: Duration) -> Result<()> {
        let seconds = took.as_secs_f64();
        self.send(&Verdict::Test { suite: suite.to_owned(), name: name.to_owned(), outcome, seconds })
    }

    pub(crate) fn done(&mut self) -> Result<()> {
        self.send(&Verdict::Done)?;
        rustix::termios::tcdrain(&self.port).with_context(|| format!("{PORT} does not drain"))
    }
}
