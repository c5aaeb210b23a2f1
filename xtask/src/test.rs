//! `cargo xtask test`: installs what the tests need, then runs `cargo test` for the whole workspace.

use anyhow::Result;
use clap::Args;

use crate::{ebpf, packages, process, workspace::Workspace};

/// Makes the tracer load this object instead of the embedded one.
const OBJECT_VARIABLE: &str = "TCPTRACE_BPF_OBJECT";

/// Required Debian packages, and their use.
const PACKAGES: &[(&str, &str)] = &[
    ("iproute2", "ss kills sockets and provides reference counts; ip configures namespaces"),
    ("nftables", "drops or rejects segments to keep a connection in a state"),
    ("bpftool", "loads the object with libbpf, independently of aya"),
    ("jq", "reads the JSON output like a user's script"),
    ("systemd", "systemd-analyze checks the unit in deploy/ and rates its hardening"),
    ("zsh", "completes command lines"),
    ("fish", "completes command lines"),
    ("valgrind", "counts instructions"),
    ("curl", "requests pages over TLS"),
    ("openssl", "creates the TLS certificate"),
    ("prometheus", "scrapes the daemon and answers PromQL; promtool checks the metrics page and the rules"),
    ("podman", "runs a container, whose name the program reports"),
    ("runc", "starts the containers of podman, with every version of cgroups"),
    ("busybox-static", "is the only program of that container"),
    ("chromium", "opens the live page of the daemon"),
    (
        "python3-venv",
        "installs pyarrow, DuckDB, Polars and pandas from PyPI, which read recordings and exports",
    ),
];

/// Installs what the tests need, then runs all tests; kernel tests run as root
#[derive(Args)]
pub(crate) struct Arguments {
    /// Install nothing; tests with missing programs fail
    #[arg(long)]
    no_install: bool,

    /// Build and test the eBPF object instead of the committed one. Implied by CI=true
    #[arg(long)]
    rebuilt: bool,

    /// Arguments for `cargo test`, such as a test name
    #[arg(last = true)]
    passed_on: Vec<String>,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::find()?;
    let ci = ebpf::in_ci();
    if !arguments.no_install {
        let names: Vec<&str> = PACKAGES.iter().map(|(name, _)| *name).collect();
        packages::ensure(&names)?;
    }

    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast"]).args(&arguments.passed_on);
    if arguments.rebuilt || ci {
        cargo.env(OBJECT_VARIABLE, ebpf::rebuild(&workspace, ci && !arguments.no_install)?);
    }
    process::run(&mut cargo)
}
