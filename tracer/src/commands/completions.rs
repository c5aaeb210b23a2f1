//! `completions`: writes the completions of a shell.

use crate::{cli::CompletionsArguments, commands::print};

pub(super) fn run(arguments: &CompletionsArguments) -> anyhow::Result<()> {
    print(arguments.script().as_bytes())
}
