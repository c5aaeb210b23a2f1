//! The options of `diagram`.

use std::path::PathBuf;

use clap::Args;

/// Options of `diagram`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiagramArguments {
    /// Also write the diagram as SVG to this file; `-` writes it to stdout instead of the text
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}
