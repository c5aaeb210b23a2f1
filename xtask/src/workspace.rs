//! Where things are in this workspace.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The places of one checkout.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The checkout that `cargo xtask` was started in.
    ///
    /// # Errors
    /// When the program was not started by cargo, which is who tells the place.
    pub(crate) fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .context("CARGO_MANIFEST_DIR is not set: start this program as `cargo xtask`")?;
        let root = Path::new(&manifest)
            .parent()
            .context("CARGO_MANIFEST_DIR has no parent folder: start this program as `cargo xtask`")?;
        Ok(Self { root: root.to_owned() })
    }

    /// The folder of the workspace's `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The committed eBPF object.
    pub(crate) fn committed_object(&self) -> PathBuf {
        self.root.join("tracer/bpf/tcptrace.bpf.o")
    }

    /// The file beside the committed object that says what it was made from.
    pub(crate) fn sidecar(&self) -> PathBuf {
        self.root.join("tracer/bpf/tcptrace.bpf.toml")
    }

    /// Cargo's target folder for the eBPF side, apart from the one of user space so that neither
    /// waits for the other's lock.
    pub(crate) fn ebpf_target(&self) -> PathBuf {
        self.root.join("target/ebpf")
    }

    /// An object built from the sources of this checkout, which nothing has committed yet.
    pub(crate) fn rebuilt_object(&self) -> PathBuf {
        self.ebpf_target().join("tcptrace.bpf.o")
    }

    /// Where programs that the build needs are installed, in the way of `cargo install --root`.
    pub(crate) fn tools(&self) -> PathBuf {
        self.root.join("target/tools")
    }
}
