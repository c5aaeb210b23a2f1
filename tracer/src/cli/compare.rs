//! The options of `compare`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::handshakes::HandshakesByArgument;

/// Options of `compare`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompareArguments {
    /// Recording from before the change
    #[arg(value_name = "BEFORE")]
    pub(crate) before: PathBuf,
    /// Recording from after the change; without it, this host is traced now
    #[arg(value_name = "AFTER")]
    pub(crate) after: Option<PathBuf>,
    /// Group handshakes and connections by
    #[arg(long, value_enum, default_value_t)]
    pub(crate) by: HandshakesByArgument,
}

impl CompareArguments {
    /// Returns the error of arguments that contradict each other.
    pub(super) fn conflict(&self) -> Option<&'static str> {
        let stdin = Path::new("-");
        (self.before == stdin && self.after.as_deref() == Some(stdin))
            .then_some("BEFORE and AFTER both read stdin; pass a file for one of them")
    }
}
