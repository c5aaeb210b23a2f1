//! The options of `man`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::man_pages::{Page, pages};

/// Options of `man`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ManArguments {
    /// Command whose page to write to stdout; without one, the program's page
    #[arg(value_name = "COMMAND")]
    pub(crate) page: Option<String>,
    /// Write all pages to this folder instead; it is created if missing
    #[arg(long, value_name = "FOLDER", conflicts_with = "page")]
    pub(crate) to: Option<PathBuf>,
}

impl ManArguments {
    /// Returns the page of the command; none if there is no such command.
    pub(crate) fn page(&self) -> Option<Page> {
        let file = match &self.page {
            Some(command) => format!("tcptrace-bpf-{command}.1"),
            None => "tcptrace-bpf.1".to_owned(),
        };
        pages().into_iter().find(|page| page.file == file)
    }

    /// Returns the error of a command that does not exist.
    pub(super) fn conflict(&self) -> Option<String> {
        let command = self.page.as_deref()?;
        self.page().is_none().then(|| {
            let names: Vec<String> = pages()
                .iter()
                .filter_map(|page| {
                    Some(page.file.strip_prefix("tcptrace-bpf-")?.trim_end_matches(".1").to_owned())
                })
                .collect();
            format!("`{command}` is not a command: use one of {}", names.join(", "))
        })
    }
}
