//! The processor architectures of a release, and their names elsewhere.

use std::{env, fmt};

use anyhow::{Context as _, Result};
use clap::ValueEnum;

/// A processor architecture, named as in `uname -m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    /// AMD and Intel, 64 bits.
    #[value(name = "x86_64", alias = "amd64")]
    X86_64,
    /// 64-bit Arm.
    #[value(name = "aarch64", alias = "arm64")]
    Aarch64,
}

impl Architecture {
    /// All architectures, in the order of their names in a release.
    pub(crate) const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// Returns the architecture of this machine.
    ///
    /// # Errors
    /// If there is no release for it.
    pub(crate) fn host() -> Result<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == env::consts::ARCH).with_context(
            || format!("there is no release for {}, this machine's architecture", env::consts::ARCH),
        )
    }

    /// The name in `uname -m`, in archives and in RPM packages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The name in Debian packages.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The name in container images (`GOARCH`). It is Debian's.
    pub(crate) const fn oci(self) -> &'static str {
        self.debian()
    }

    /// The Rust target, with glibc.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The prefix of GCC and binutils, and the folder of libraries in Debian.
    pub(crate) const fn gnu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }

    /// The Debian packages with the C compiler and the static C library, to build on another architecture.
    pub(crate) const fn cross_packages(self) -> [&'static str; 2] {
        match self {
            Self::X86_64 => ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
            Self::Aarch64 => ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
