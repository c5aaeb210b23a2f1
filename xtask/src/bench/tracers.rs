//! The measured tracers and their command lines.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

use super::programs::Programs;

/// Mounts a private tracefs for the other tracers, because the host may have none mounted.
const WITH_TRACEFS: &str = r#"mount -t tracefs tracefs /sys/kernel/tracing && exec "$@""#;

const COUNT: &str = "tracepoint:sock:inet_sock_set_state { @[args->newstate] = count(); }";
const PRINT: &str = r#"tracepoint:sock:inet_sock_set_state { printf("%llu %d %s %d %d %d %d\n", nsecs, pid, comm, args->sport, args->dport, args->oldstate, args->newstate); }"#;

/// A tracer.
pub(super) struct Tracer {
    /// Name in the tables.
    pub(super) name: &'static str,
    /// Whether it belongs to this project.
    pub(super) ours: bool,
    arguments: &'static [&'static str],
    /// Program to start, if not this project's tracer.
    program: Option<&'static str>,
}

/// Traces another network namespace than the load's, so the BPF program drops the load's transitions.
const OTHER_NAMESPACE: &str = "tcptrace-bpf connections --netns, another namespace";

/// This project's tracers: subcommand, name, arguments.
const OURS: &[(&str, &str, &[&str])] = &[
    ("serve", "tcptrace-bpf serve", &["serve"]),
    // Shows the cost of the twin program, which recovers transitions for which the kernel skips the first one.
    ("serve", "tcptrace-bpf serve, without the twin", &["serve", "--no-twin"]),
    // Shows the cost of the page's last hour.
    ("serve", "tcptrace-bpf serve, without the page", &["serve", "--no-page"]),
    ("connections", "tcptrace-bpf connections", &["connections"]),
    ("transitions", "tcptrace-bpf transitions -o json", &["transitions", "-o", "json"]),
    ("record", "tcptrace-bpf record", &["record", "-"]),
    ("connections", OTHER_NAMESPACE, &["connections", "--netns", "self"]),
];

/// Other tracers.
pub(super) const PEERS: &[Tracer] = &[
    Tracer::peer("bpftrace, counting", "bpftrace", &["-e", COUNT]),
    Tracer::peer("libbpf-tools tcplife", "script", &["--quiet", "--command", "tcplife", "/dev/null"]),
    Tracer::peer("bpftrace, printing", "bpftrace", &["-e", PRINT]),
    Tracer::peer(TCPSTATES, "script", &["--quiet", "--command", "tcpstates", "/dev/null"]),
];

/// The tracer that is most similar to this project's.
pub(super) const TCPSTATES: &str = "libbpf-tools tcpstates";

impl Tracer {
    const fn peer(name: &'static str, program: &'static str, arguments: &'static [&'static str]) -> Self {
        Self { name, ours: false, arguments, program: Some(program) }
    }

    const fn own(name: &'static str, arguments: &'static [&'static str]) -> Self {
        Self { name, ours: true, arguments, program: None }
    }

    /// Returns the command that starts the tracer, with stdout discarded.
    pub(super) fn command(&self, programs: &Programs) -> Command {
        let mut command = match self.program {
            None => Command::new(&programs.tracer),
            Some(program) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh", program]);
                command
            }
        };
        command.args(self.arguments).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// Returns the tracers of this project that this build has, and the missing subcommands.
pub(super) fn own(programs: &Programs) -> (Vec<Tracer>, BTreeSet<&'static str>) {
    let (there, missing): (Vec<_>, Vec<_>) =
        OURS.iter().partition(|(subcommand, _, _)| programs.has(subcommand));
    (
        there.iter().map(|(_, name, arguments)| Tracer::own(name, arguments)).collect(),
        missing.iter().map(|(subcommand, _, _)| *subcommand).collect(),
    )
}
