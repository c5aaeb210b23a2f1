//! The tracers that are compared, and how each is started.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
};

use super::programs::Programs;

/// Shows a private tracefs to the peers, which look for it at its place: the host may have none mounted.
const WITH_TRACEFS: &str = r#"mount -t tracefs tracefs /sys/kernel/tracing && exec "$@""#;

const COUNT: &str = "tracepoint:sock:inet_sock_set_state { @[args->newstate] = count(); }";
const PRINT: &str = r#"tracepoint:sock:inet_sock_set_state { printf("%llu %d %s %d %d %d %d\n", nsecs, pid, comm, args->sport, args->dport, args->oldstate, args->newstate); }"#;

/// One of them.
pub(super) struct Tracer {
    /// As the tables name it.
    pub(super) name: &'static str,
    /// Whether it is this project's.
    pub(super) ours: bool,
    arguments: &'static [&'static str],
    /// What it is started by, when that is not the tracer of this project.
    program: Option<&'static str>,
}

/// Asked for a network namespace in which the load is not, so that the kernel side drops what the load does.
const OTHER_NAMESPACE: &str = "tcptrace-bpf connections --netns, of another namespace";

/// This project's, by subcommand.
const OURS: &[(&str, &str, &[&str])] = &[
    ("serve", "tcptrace-bpf serve", &["serve"]),
    // What the second program on the tracepoint costs, which recovers what the kernel skips.
    ("serve", "tcptrace-bpf serve, without the twin", &["serve", "--no-twin"]),
    ("connections", "tcptrace-bpf connections", &["connections"]),
    ("transitions", "tcptrace-bpf transitions -o json", &["transitions", "-o", "json"]),
    ("record", "tcptrace-bpf record", &["record", "-"]),
    ("connections", OTHER_NAMESPACE, &["connections", "--netns", "self"]),
];

/// What people use today.
pub(super) const PEERS: &[Tracer] = &[
    Tracer::peer("bpftrace, counting", "bpftrace", &["-e", COUNT]),
    Tracer::peer("libbpf-tools tcplife", "script", &["--quiet", "--command", "tcplife", "/dev/null"]),
    Tracer::peer("bpftrace, printing", "bpftrace", &["-e", PRINT]),
    Tracer::peer(TCPSTATES, "script", &["--quiet", "--command", "tcpstates", "/dev/null"]),
];

/// The one that does most nearly what this project does.
pub(super) const TCPSTATES: &str = "libbpf-tools tcpstates";

impl Tracer {
    const fn peer(name: &'static str, program: &'static str, arguments: &'static [&'static str]) -> Self {
        Self { name, ours: false, arguments, program: Some(program) }
    }

    const fn own(name: &'static str, arguments: &'static [&'static str]) -> Self {
        Self { name, ours: true, arguments, program: None }
    }

    /// The command that starts it, writing to where nothing is kept.
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

/// Those of this project that this build has, and the subcommands that it lacks.
pub(super) fn own(programs: &Programs) -> (Vec<Tracer>, BTreeSet<&'static str>) {
    let (there, missing): (Vec<_>, Vec<_>) =
        OURS.iter().partition(|(subcommand, _, _)| programs.has(subcommand));
    (
        there.iter().map(|(_, name, arguments)| Tracer::own(name, arguments)).collect(),
        missing.iter().map(|(subcommand, _, _)| *subcommand).collect(),
    )
}
