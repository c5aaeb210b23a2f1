//! The commands, one file each. A command connects a source, the core and an output.

#[macro_use]
mod messages;

mod compare;
mod completions;
mod connections;
mod diagram;
mod doctor;
mod error_text;
mod export;
mod flight_record;
mod handshakes;
mod input;
mod joined;
mod listeners;
mod live_report;
mod man;
mod quiet_notice;
mod record;
mod replay;
mod serve;
mod socket_dumps;
mod stuck;
mod table_style;
mod top;
mod trace;
mod transitions;
mod usage;

pub use error_text::error_text;
pub use messages::print as print_message;
pub use usage::WrongUsage;

use anyhow::Context as _;
use tracer_core::counted::counted_as;

use crate::{
    cli::{Cli, Command},
    report::{ColorChoice, ExitReport, FirstTransitions},
};

/// Runs the command line.
///
/// # Errors
///
/// One sentence with the failure, its cause and the remedy. [`WrongUsage`] if the configuration is invalid.
pub fn run(cli: &Cli) -> anyhow::Result<()> {
    match cli.command.as_ref().unwrap_or(&Command::Connections) {
        Command::Connections => {
            trace::trace(&cli.shared, |origin| connections::Connections::new(&cli.shared, origin))
        }
        Command::Transitions => {
            trace::trace(&cli.shared, |origin| transitions::Transitions::new(&cli.shared, origin))
        }
        Command::Handshakes(arguments) if arguments.joins() => joined::run(&cli.shared, arguments),
        Command::Handshakes(arguments) => {
            trace::trace(&cli.shared, |origin| handshakes::Handshakes::new(&cli.shared, arguments, origin))
        }
        Command::Compare(arguments) => compare::run(&cli.shared, arguments),
        Command::Top => top::run(&cli.shared),
        Command::Diagram(arguments) => diagram::run(&cli.shared, arguments),
        Command::Listeners(arguments) => listeners::run(&cli.shared, arguments),
        Command::Stuck(arguments) => stuck::run(&cli.shared, arguments),
        Command::Serve(arguments) => serve::run(&cli.shared, arguments),
        Command::Record(arguments) => record::run(&cli.shared, arguments),
        Command::Export(arguments) => export::run(&cli.shared, arguments),
        Command::Doctor => doctor::run(&cli.shared),
        Command::Completions(arguments) => completions::run(arguments),
        Command::Man(arguments) => man::run(arguments),
    }
}

/// Writes text to stdout. A closed stdout is success.
fn print(text: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("the output cannot be written"),
    }
}

/// Prints the exit report, if there is one.
fn print_exit_report(report: Option<&ExitReport>, color: ColorChoice) {
    let palette = color.palette(&std::io::stderr());
    for line in report.into_iter().flat_map(|report| report.lines(palette)) {
        stderr_line!("{line}");
    }
}

/// Prints how many first transitions a port filter dropped before their port was known, if any.
fn print_forgotten(first: &FirstTransitions) {
    match first.forgotten() {
        0 => {}
        count => {
            let shown = counted_as(count, "first transition is", "first transitions are");
            stderr_line!("{shown} not shown: too many were waiting for their port");
        }
    }
}
