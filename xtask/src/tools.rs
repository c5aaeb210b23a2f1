//! Installs cargo's plugins that pack releases into the workspace's target folder.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{process, workspace::Workspace};

/// A program from crates.io.
pub(crate) struct CargoTool {
    /// The crate, which is also the program.
    pub(crate) name: &'static str,
    /// The version. A release must not change because a tool was updated.
    pub(crate) version: &'static str,
}

impl CargoTool {
    /// Installs the program, unless this version is installed, and returns it as a command in the workspace's root.
    ///
    /// # Errors
    /// If cargo cannot build it.
    pub(crate) fn command(&self, workspace: &Workspace) -> Result<Command> {
        let root = workspace.tools();
        let program = root.join("bin").join(self.name);
        let installed = process::probe(workspace.cargo().args(["install", "--list", "--root"]).arg(&root))?
            .context("cargo install --list failed")?;
        let line = format!("{} v{}:", self.name, self.version);
        if !(program.exists() && installed.lines().any(|installed| installed == line)) {
            process::run(
                workspace
                    .cargo()
                    .args(["install", "--locked", "--quiet", "--force", "--version", self.version, "--root"])
                    .arg(&root)
                    .arg(self.name),
            )?;
        }
        let mut command = Command::new(program);
        command.current_dir(workspace.root());
        Ok(command)
    }
}
