//! Paths in the workspace.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

/// The paths of a checkout.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Returns the checkout that `cargo xtask` was started in.
    ///
    /// # Errors
    /// If cargo did not start the program, because cargo passes the path.
    pub(crate) fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .context("CARGO_MANIFEST_DIR is not set: start this program as `cargo xtask`")?;
        let root = Path::new(&manifest)
            .parent()
            .context("CARGO_MANIFEST_DIR has no parent folder: start this program as `cargo xtask`")?;
        Ok(Self { root: root.to_owned() })
    }

    /// Returns the folder of the workspace's `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the cargo that started this program, as a command in the workspace's root.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        cargo
    }

    /// The committed eBPF object.
    pub(crate) fn committed_object(&self) -> PathBuf {
        self.root.join("tracer/bpf/tcptrace.bpf.o")
    }

    /// The file next to the committed object that records its sources and toolchain.
    pub(crate) fn sidecar(&self) -> PathBuf {
        self.root.join("tracer/bpf/tcptrace.bpf.toml")
    }

    /// Cargo's target folder for the eBPF side, separate from that of user space so that the two builds do
    /// not wait for each other's lock.
    pub(crate) fn ebpf_target(&self) -> PathBuf {
        self.root.join("target/ebpf")
    }

    /// An object built from this checkout's sources.
    pub(crate) fn rebuilt_object(&self) -> PathBuf {
        self.ebpf_target().join("tcptrace.bpf.o")
    }

    /// Folder of build tools, for `cargo install --root`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }
}
