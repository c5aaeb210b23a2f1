//! One file per command; each wires source → lifecycle → output.

mod connections;
mod doctor;
mod live;
mod stuck;
mod transitions;

use crate::cli::{Cli, Command};

/// Runs the command line.
///
/// # Errors
///
/// One sentence: what could not be done, why, and what to do.
pub fn run(cli: &Cli) -> anyhow::Result<()> {
    match cli.command.as_ref().unwrap_or(&Command::Connections) {
        Command::Connections => live::trace(&cli.shared, connections::Connections::new(&cli.shared)),
        Command::Transitions => live::trace(&cli.shared, transitions::Transitions::new(&cli.shared)),
        Command::Stuck(arguments) => stuck::run(&cli.shared, arguments),
        Command::Doctor => doctor::run(&cli.shared),
    }
}
