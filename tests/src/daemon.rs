//! The daemon, running.

use std::{net::SocketAddr, process::Command};

use crate::{
    Namespace, Tracer,
    http::{self, Answer},
    program::program,
    wait,
};

/// `serve`, which counts one namespace and listens on this host's loopback.
#[derive(Debug)]
pub struct Daemon {
    /// The program.
    pub program: Tracer,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub fn start(namespace: &Namespace, options: &[&str]) -> Self {
        let daemon = Self::start_unasked(namespace, options);
        wait::until("readiness", || {
            daemon.get("/readyz").ok().filter(|answer| answer.status == 200).map(|_| ())
        });
        daemon
    }

    /// Starts it and waits until it listens, without a request.
    pub fn start_unasked(namespace: &Namespace, options: &[&str]) -> Self {
        Self::spawn(&mut Self::command(namespace, options))
    }

    /// The command that starts it.
    pub fn command(namespace: &Namespace, options: &[&str]) -> Command {
        let netns = namespace.inode().to_string();
        // The duration ends it also when the test is killed and cannot.
        let fixed = ["serve", "--netns", &netns, "--listen", "127.0.0.1:0", "--duration", "10m"];
        let mut command = Command::new(program());
        command.args(fixed.iter().chain(options));
        command
    }

    /// Starts it by its command and waits until it listens.
    pub fn spawn(command: &mut Command) -> Self {
        let program = Tracer::spawn(command);
        let address = wait::until("its address", || {
            let log = program.stderr();
            let rest = log.split("listening on 127.0.0.1:").nth(1)?;
            let (port, _) = rest.split_once(|it: char| !it.is_ascii_digit())?;
            Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?)))
        });
        Self { program, address }
    }

    /// Asks for a path.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub fn get(&self, path: &str) -> std::io::Result<Answer> {
        http::get(self.address, path, "")
    }

    /// The page of metrics as text.
    pub fn page(&self) -> String {
        let answer = self.get("/metrics").unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text()
    }

    /// The value of a series, written as on the page, such as `up{job="x"}`; none when it is not there.
    pub fn value(&self, series: &str) -> Option<f64> {
        value(&self.page(), series)
    }

    /// Waits until a series has this value.
    pub fn wait_for(&self, series: &str, value: f64) {
        wait::until(&format!("{series} {value}"), || (self.value(series) == Some(value)).then_some(()));
    }
}

/// The value of a series on a page.
pub fn value(page: &str, series: &str) -> Option<f64> {
    let rest = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    rest.parse().ok()
}
