//! The command line. Its names and meanings are a contract with users' scripts.

mod applicability;
mod compare;
mod completions;
mod definition;
mod diagram;
mod examples;
mod export;
mod file_names;
mod filters;
mod flight;
mod handshakes;
mod listeners;
mod man;
mod man_pages;
mod parsers;
mod record;
mod serve;
mod settings;
mod shared;
mod stuck;
mod tips;

pub(crate) use compare::CompareArguments;
pub(crate) use completions::CompletionsArguments;
pub(crate) use definition::command;
pub(crate) use diagram::DiagramArguments;
pub(crate) use export::ExportArguments;
pub(crate) use flight::FlightArguments;
pub(crate) use handshakes::HandshakesArguments;
pub(crate) use listeners::ListenersArguments;
pub(crate) use man::ManArguments;
pub(crate) use man_pages::pages;
pub(crate) use record::RecordArguments;
pub(crate) use serve::ServeArguments;
pub use settings::SettingsError;
pub(crate) use shared::Shared;
pub(crate) use stuck::StuckArguments;

use crate::report::Format;
use clap::{Parser, Subcommand};

/// Traces every TCP state transition of this host: lifecycles, handshake times, close reasons, owners.
///
/// Without a command, it prints a line for each connection when it closes.
#[derive(Debug, Parser)]
#[command(name = "tcptrace-bpf", version, propagate_version = true)]
#[command(
    after_help = "Needs CAP_BPF and CAP_PERFMON: run it with sudo. `tcptrace-bpf doctor` checks what this kernel supports."
)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Options that every command shares.
    #[command(flatten)]
    pub(crate) shared: Shared,
}

/// The command to run.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// Print a line per connection when it closes (the default)
    Connections,
    /// Print a line per kernel transition as it happens
    Transitions,
    /// Show which handshakes are slow, how slow, and why
    Handshakes(HandshakesArguments),
    /// Compare two recordings, or a recording with now: which groups became worse or better
    Compare(CompareArguments),
    /// List the listening sockets with their queues, drops and handshakes, the worst first
    Listeners(ListenersArguments),
    /// List connections that stay too long in a state, with their owner
    Stuck(StuckArguments),
    /// Live full-screen view: state diagram, connections, owners, handshakes, stuck connections
    Top,
    /// Draw the TCP state diagram with the traffic along each edge, as text or SVG
    Diagram(DiagramArguments),
    /// Run the daemon: metrics and health over HTTP
    Serve(ServeArguments),
    /// Record the event stream to a file, which every command reads with --input
    Record(RecordArguments),
    /// Convert a recording to Parquet or CSV files
    Export(ExportArguments),
    /// Check what this kernel and these privileges support, and what each missing feature costs
    Doctor,
    /// Write the completions of a shell to stdout
    Completions(CompletionsArguments),
    /// Write the man pages
    Man(ManArguments),
}

impl Cli {
    /// Returns whether the command writes nothing to stdout before its end.
    fn is_silent_while_running(&self) -> bool {
        let draws = matches!(self.shared.output, Format::Table | Format::Wide);
        match &self.command {
            None | Some(Command::Connections | Command::Transitions | Command::Top | Command::Serve(_)) => {
                false
            }
            Some(Command::Handshakes(arguments)) => !draws || arguments.joins(),
            Some(Command::Listeners(_)) => !draws,
            Some(
                Command::Stuck(_)
                | Command::Compare(_)
                | Command::Diagram(_)
                | Command::Record(_)
                | Command::Export(_)
                | Command::Doctor
                | Command::Completions(_)
                | Command::Man(_),
            ) => true,
        }
    }

    /// Checks the rules that the option definitions cannot express.
    ///
    /// # Errors
    ///
    /// Wrong usage.
    pub fn check(&self) -> Result<(), clap::Error> {
        let found = match &self.command {
            Some(Command::Export(arguments)) => arguments.conflict(),
            Some(Command::Record(arguments)) => arguments.conflict(),
            Some(Command::Compare(arguments)) => arguments.conflict().map(str::to_owned),
            Some(Command::Handshakes(arguments)) => arguments.conflict(&self.shared.input).map(str::to_owned),
            Some(Command::Serve(arguments)) => arguments.conflict(&self.shared.input).map(str::to_owned),
            Some(Command::Man(arguments)) => arguments.conflict(),
            _ => None,
        };
        found.map_or(Ok(()), |sentence| Err(conflict(self.shared.color.into(), sentence)))
    }
}

/// Returns the error of options that do not go together.
fn conflict(color: clap::ColorChoice, sentence: impl std::fmt::Display) -> clap::Error {
    command().color(color).error(clap::error::ErrorKind::ArgumentConflict, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_valid() {
        command().debug_assert();
    }

    #[test]
    fn shared_options_are_accepted_before_and_after_the_command() {
        let before = Cli::try_parse_from(["tcptrace-bpf", "-o", "json", "transitions"]).unwrap();
        let after = Cli::try_parse_from(["tcptrace-bpf", "transitions", "-o", "json"]).unwrap();
        assert_eq!((before.command, before.shared.output), (Some(Command::Transitions), Format::Json));
        assert_eq!((after.command, after.shared.output), (Some(Command::Transitions), Format::Json));
        let none = Cli::try_parse_from(["tcptrace-bpf", "-n", "3", "-4"]).unwrap();
        assert_eq!((none.command, none.shared.count), (None, Some(3)));
        assert_eq!(none.shared.filter().ipv4, Some(true));
    }

    #[test]
    fn the_default_latency_is_that_of_the_source() {
        let cli = Cli::try_parse_from(["tcptrace-bpf"]).unwrap();
        assert_eq!(cli.shared.buffer, None);
        assert_eq!(cli.shared.latency, crate::sources::live::DEFAULT_POLL_INTERVAL);
    }

    #[test]
    fn contradictory_options_are_wrong_usage() {
        for (arguments, part) in [
            (&["handshakes", "--join", "b"][..], "add --input"),
            (&["handshakes", "--join", "-", "-i", "-"], "both read stdin"),
            (&["compare", "-", "-"], "both read stdin"),
            (&["export", "a", "--to", "b.csv"], "--what connections"),
            (&["export", "a", "--to", "b.csv", "--what", "connections", "--format", "parquet"], "agree"),
            (&["export", "a", "--to", "b", "--what", "connections,connections"], "twice"),
            (&["export", "a", "--to", "b.json"], "`tcptrace-bpf -i a -o json > b.json`"),
            (&["record", "a.parquet"], "`tcptrace-bpf export a.arrows --what connections --to a.parquet`"),
            (&["record", "a.pcap"], "`tcpdump -w a.pcap`"),
            (&["record", "a", "--freeze-on", "failures>1"], "--freeze-on needs --ring"),
            (&["record", "-", "--ring", "1M"], "instead of `-`"),
            (&["record", "a", "--ring", "1M", "--rotate", "1h"], "give one of them"),
            (&["record", "a", "--ring", "1M", "--force"], "--force has no use with --ring"),
            (&["serve", "--ring", "1M"], "--ring needs --freeze-to"),
            (&["serve", "--freeze-to", "b"], "--freeze-to needs --ring"),
            (&["serve", "--freeze-on", "failures>1"], "--freeze-on needs --ring"),
            (&["serve", "-i", "a", "--ring", "1M", "--freeze-to", "b"], "no use with --input"),
        ] {
            let cli = Cli::try_parse_from(["tcptrace-bpf"].iter().chain(arguments)).unwrap();
            let error = cli.check().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(part), "{error}");
        }
        let cli = Cli::try_parse_from(["tcptrace-bpf", "record", "a", "-n", "3"]).unwrap();
        assert!(cli.check().is_ok());
    }

    #[test]
    fn an_invalid_value_is_named_with_a_valid_one() {
        for (arguments, parts) in [
            (["--local-port", "70000"], ["`70000`", "65535"]),
            (["--remote", "10.0.0/8"], ["`10.0.0/8`", "2001:db8::/32"]),
            (["--latency", "20"], ["`20`", "100ms"]),
            (["--duration", "soon"], ["`soon`", "10s"]),
            (["--duration", "0s"], ["`0s`", "above zero"]),
            (["--buffer", "1"], ["`1`", "4M"]),
            (["--state", "open"], ["`open`", "syn_sent"]),
            (["stuck", "--threshold=close_wait"], ["`close_wait`", "close_wait=60s"]),
            (["--netns", "/no/such/file"], ["/no/such/file", "self"]),
            (["--host-root", "/no/such/folder"], ["/no/such/folder", "-v /:/host:ro"]),
            (["listeners", "--port=443-80"], ["443-80", "80-443"]),
            (["record", "--freeze-on=p99>1s"], ["`p99`", "handshake_p99"]),
            (["serve", "--ring=1K"], ["`1K`", "64M"]),
            (["--frobnicate", "x"], ["--frobnicate", "unexpected"]),
        ] {
            let text =
                Cli::try_parse_from(["tcptrace-bpf"].into_iter().chain(arguments)).unwrap_err().to_string();
            for part in parts {
                assert!(text.contains(part), "{part} not in: {text}");
            }
        }
    }
}
