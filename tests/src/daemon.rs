//! Starts the daemon and reads its HTTP pages.

use std::{net::SocketAddr, process::Command};

use crate::{
    Namespace, Tracer,
    http::{self, Response},
    program::program,
    wait,
};

/// A running `serve` that traces one namespace and listens on this host's loopback.
#[derive(Debug)]
pub struct Daemon {
    /// The daemon's process.
    pub program: Tracer,
    /// Its HTTP listen address.
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts the daemon and waits until `/readyz` reports ready.
    pub fn start(namespace: &Namespace, options: &[&str]) -> Self {
        let daemon = Self::start_listening(namespace, options);
        wait::until("readiness", || {
            daemon.get("/readyz").ok().filter(|response| response.status == 200).map(|_| ())
        });
        daemon
    }

    /// Starts the daemon and waits until it listens, without sending a request.
    pub fn start_listening(namespace: &Namespace, options: &[&str]) -> Self {
        Self::spawn(&mut Self::command(namespace, options))
    }

    /// Returns the command that starts the daemon.
    pub fn command(namespace: &Namespace, options: &[&str]) -> Command {
        let netns = namespace.inode().to_string();
        // The duration ends the daemon even if the test is killed.
        let fixed = ["serve", "--netns", &netns, "--listen", "127.0.0.1:0", "--duration", "10m"];
        let mut command = Command::new(program());
        command.args(fixed.iter().chain(options));
        command
    }

    /// Starts the daemon from a command and waits until it listens.
    pub fn spawn(command: &mut Command) -> Self {
        let program = Tracer::spawn(command);
        let address = wait::until("the daemon's listen address", || {
            let log = program.stderr();
            let rest = log.split("listening on 127.0.0.1:").nth(1)?;
            let (port, _) = rest.split_once(|character: char| !character.is_ascii_digit())?;
            Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?)))
        });
        Self { program, address }
    }

    /// Requests a path.
    ///
    /// # Errors
    ///
    /// Returns an error if no response arrives.
    pub fn get(&self, path: &str) -> std::io::Result<Response> {
        http::get(self.address, path, "")
    }

    /// Fetches `/metrics` as text.
    pub fn page(&self) -> String {
        let response = self.get("/metrics").unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(response.status, 200, "{response:?}");
        response.text()
    }

    /// Returns the value of a series, written as on the page, such as `up{job="x"}`; `None` if the page does
    /// not have it.
    pub fn value(&self, series: &str) -> Option<f64> {
        value(&self.page(), series)
    }

    /// Waits until a series has the given value.
    pub fn wait_for(&self, series: &str, value: f64) {
        wait::until(&format!("{series} {value}"), || (self.value(series) == Some(value)).then_some(()));
    }
}

/// Returns the value of a series on a page.
pub fn value(page: &str, series: &str) -> Option<f64> {
    let rest = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    rest.parse().ok()
}
