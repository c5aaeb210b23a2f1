//! Sends messages to the host over a dedicated serial port, where output of the kernel and of tests cannot
//! interfere.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::protocol::{GuestMessage, REPORT_PORT, TestOutcome};

/// Sends messages to the host.
pub(crate) struct Report {
    port: File,
    /// The device, for messages.
    name: String,
}

impl Report {
    pub(crate) fn open() -> Result<Self> {
        let parameters = fs::read_to_string("/proc/cmdline").context("could not read /proc/cmdline")?;
        let name = parameters
            .split_whitespace()
            .find_map(|parameter| parameter.strip_prefix(REPORT_PORT)?.strip_prefix('='))
            .with_context(|| format!("the kernel's command line has no {REPORT_PORT}"))?
            .to_owned();
        let port = OpenOptions::new()
            .write(true)
            .read(true)
            .open(&name)
            .with_context(|| format!("could not open {name}"))?;
        let mut settings = tcgetattr(&port).with_context(|| format!("{name} is not a serial port"))?;
        settings.make_raw();
        tcsetattr(&port, OptionalActions::Now, &settings)
            .with_context(|| format!("could not configure {name}"))?;
        Ok(Self { port, name })
    }

    pub(crate) fn send(&mut self, message: &GuestMessage) -> Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.port.write_all(&line).with_context(|| format!("could not write to {}", self.name))
    }

    pub(crate) fn booted(&mut self) -> Result<()> {
        let system = rustix::system::uname();
        self.send(&GuestMessage::Booted {
            release: system.release().to_string_lossy().into_owned(),
            version: system.version().to_string_lossy().into_owned(),
        })
    }

    pub(crate) fn note(&mut self, text: String) -> Result<()> {
        self.send(&GuestMessage::Note { text })
    }

    pub(crate) fn test(
        &mut self,
        suite: &str,
        name: &str,
        outcome: TestOutcome,
        took: Duration,
    ) -> Result<()> {
        let seconds = took.as_secs_f64();
        self.send(&GuestMessage::Test { suite: suite.to_owned(), name: name.to_owned(), outcome, seconds })
    }

    pub(crate) fn done(&mut self) -> Result<()> {
        self.send(&GuestMessage::Done)?;
        rustix::termios::tcdrain(&self.port).with_context(|| format!("could not drain {}", self.name))
    }
}
