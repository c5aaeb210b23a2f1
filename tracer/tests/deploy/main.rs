//! Checks the files in `deploy/` against the program's metrics, labels and options, and with the tools that read them.
//!
//! Needs `promtool` (Debian: prometheus) and `systemd-analyze` (systemd); `cargo xtask test` installs them. Static builds
//! skip these tests, because `cargo xtask vm` runs them on machines without the sources.
#![cfg(not(target_feature = "crt-static"))]

mod dashboard;
mod kubernetes;
#[path = "../shared/markdown.rs"]
mod markdown;
mod promql;
mod reference;
mod rules;
mod unit;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace").to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs a tool in a folder of the repository and requires success. Returns its output on both streams.
fn tool(package: &str, folder: &str, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .current_dir(root().join(folder))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; Debian has it in the package {package}"));
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{program} {arguments:?}:\n{text}");
    text
}
