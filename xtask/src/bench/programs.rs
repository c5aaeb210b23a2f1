//! Builds the measured programs in the release profile.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{process, workspace::Workspace};

/// The workspace's programs.
pub(super) struct Programs {
    /// The tracer.
    pub(super) tracer: PathBuf,
    /// The loads.
    pub(super) load: PathBuf,
    /// Output of `tcptrace-bpf help`.
    help: String,
}

/// A compiler artifact in cargo's JSON messages.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

impl Programs {
    /// Builds both programs.
    pub(super) fn build(workspace: &Workspace) -> Result<Self> {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(workspace.root())
            .args(["build", "--release", "-p", "tcptrace-bpf", "-p", "tcptrace-bench", "--bins"])
            .arg("--message-format=json-render-diagnostics")
            .stderr(Stdio::inherit());
        let output = cargo.output().context("could not start cargo")?;
        ensure!(output.status.success(), "cargo could not build the programs; see its message above");
        // Skips cargo's other messages, which have other fields.
        let built: Vec<Artifact> = serde_json::Deserializer::from_slice(&output.stdout)
            .into_iter::<serde_json::Value>()
            .filter_map(|message| serde_json::from_value(message.ok()?).ok())
            .collect();
        let program = |name: &str| {
            let found = built.iter().find(|one| one.target.name == name && one.executable.is_some());
            found
                .and_then(|one| one.executable.clone())
                .with_context(|| format!("cargo reported no path of {name}"))
        };
        let (tracer, load) = (program("tcptrace-bpf")?, program("tcptrace-bench")?);
        let help = process::probe(Command::new(&tracer).arg("help"))?
            .with_context(|| format!("{} does not print its usage", tracer.display()))?;
        Ok(Self { tracer, load, help })
    }

    /// Returns whether the tracer has a subcommand.
    pub(super) fn has(&self, command: &str) -> bool {
        self.help
            .lines()
            .any(|line| line.starts_with("  ") && line.split_whitespace().next() == Some(command))
    }
}
