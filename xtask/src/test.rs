//! `cargo xtask test`: everything the tests need, then `cargo test` for the whole workspace.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{ebpf, packages, process, workspace::Workspace};

/// Tells the tracer's loader to take this object rather than the one compiled into it.
const OBJECT_VARIABLE: &str = "TCPTRACE_BPF_OBJECT";

/// The Debian packages whose programs the tests start, and what for.
const PACKAGES: &[(&str, &str)] = &[
    ("iproute2", "ss kills sockets and is compared with; ip lists what a test left behind"),
    ("nftables", "drops or rejects single segments, to hold a connection in a chosen state"),
    ("bpftool", "loads the object by libbpf, a second opinion beside aya"),
    ("jq", "reads the JSON output as a user's script would"),
    ("systemd", "systemd-analyze checks the unit of deploy/ and says how closed it is"),
    ("valgrind", "counts instructions"),
    ("curl", "looks at the daemon over TLS"),
    ("openssl", "makes the certificate for that"),
    ("prometheus", "scrapes the daemon and is asked by PromQL; promtool checks the page and the rules"),
    ("python3-venv", "pyarrow and DuckDB, from PyPI, read recordings and exports"),
];

/// Installs what the tests need, then runs all of them, those on the kernel as root.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Install nothing; tests that miss a program fail.
    #[arg(long)]
    no_install: bool,

    /// Build the eBPF object from the sources and test that, not the committed one. Implied by CI=true.
    #[arg(long)]
    rebuilt: bool,

    /// Passed on to `cargo test`, for instance a test's name.
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

    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace.root())
        .args(["test", "--workspace", "--no-fail-fast"])
        .args(&arguments.passed_on);
    if arguments.rebuilt || ci {
        cargo.env(OBJECT_VARIABLE, ebpf::rebuild(&workspace, ci && !arguments.no_install)?);
    }
    process::run(&mut cargo)
}
