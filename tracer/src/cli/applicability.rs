//! Which command has a use for which shared option. Any other use is an error, never ignored.

use clap::{ArgMatches, parser::ValueSource};

use crate::{
    cli::{Cli, Command},
    report::Format,
};

/// Options with a use for the same commands.
struct Rule {
    /// Long names.
    options: &'static [&'static str],
    /// The names of the commands; `connections` is also the one of a command line that names none.
    commands: &'static [&'static str],
    /// They need events from the kernel.
    live: bool,
    /// Why the other commands have no use for them, and what to use instead.
    otherwise: &'static str,
}

/// Every shared option, once.
const RULES: &[Rule] = &[
    Rule {
        options: &["input"],
        commands: &["connections", "transitions", "handshakes", "stuck", "top", "diagram", "serve"],
        live: false,
        otherwise: "`listeners`, `record` and `doctor` look at this host, whose sockets a recording does not contain, and \
                    `compare` and `export` take their recordings without an option",
    },
    Rule {
        options: &["output"],
        commands: &[
            "connections",
            "transitions",
            "handshakes",
            "compare",
            "listeners",
            "stuck",
            "diagram",
            "doctor",
        ],
        live: false,
        otherwise: "it writes no rows to stdout; `export` has --format",
    },
    Rule {
        options: &["duration"],
        commands: &[
            "connections",
            "transitions",
            "handshakes",
            "compare",
            "listeners",
            "stuck",
            "top",
            "diagram",
            "serve",
            "record",
            "export",
        ],
        live: false,
        otherwise: "it ends by itself",
    },
    Rule {
        options: &["count"],
        commands: &["connections", "transitions", "handshakes", "compare", "listeners", "stuck", "record"],
        live: false,
        otherwise: "it writes no lines to count; use --duration to end it early",
    },
    Rule {
        options: &["time"],
        commands: &["connections", "transitions", "handshakes", "diagram"],
        live: false,
        otherwise: "it writes no times into a table",
    },
    Rule {
        options: &["mode", "buffer", "latency", "nice", "no-twin", "no-hook"],
        commands: &[
            "connections",
            "transitions",
            "handshakes",
            "compare",
            "listeners",
            "stuck",
            "top",
            "diagram",
            "serve",
            "record",
        ],
        live: true,
        otherwise: "it reads no events from the kernel",
    },
    Rule {
        options: &["no-snapshot"],
        commands: &[
            "connections",
            "transitions",
            "handshakes",
            "compare",
            "stuck",
            "top",
            "diagram",
            "serve",
            "record",
        ],
        live: true,
        otherwise: "it reads no events from the kernel, or lists the sockets that exist",
    },
    Rule {
        options: &["backends"],
        commands: &["connections", "handshakes", "compare", "record"],
        live: true,
        otherwise: "it shows no backends; use `connections` or `handshakes`, or `record` them for these",
    },
    Rule {
        options: &["max-connections"],
        commands: &[
            "connections",
            "transitions",
            "handshakes",
            "compare",
            "listeners",
            "stuck",
            "top",
            "diagram",
            "serve",
            "record",
            "export",
        ],
        live: false,
        otherwise: "it follows no connections",
    },
    Rule {
        options: &["host-root"],
        commands: &[
            "connections",
            "transitions",
            "handshakes",
            "compare",
            "listeners",
            "stuck",
            "top",
            "diagram",
            "serve",
            "record",
        ],
        live: false,
        otherwise: "it reads no names of containers on this host",
    },
    Rule {
        // Messages have colors, too.
        options: &["quiet", "color"],
        commands: &[
            "connections",
            "transitions",
            "handshakes",
            "compare",
            "listeners",
            "stuck",
            "top",
            "diagram",
            "serve",
            "record",
            "export",
            "doctor",
        ],
        live: false,
        otherwise: "",
    },
    Rule {
        options: &["verbose"],
        commands: &[
            "connections",
            "transitions",
            "handshakes",
            "compare",
            "listeners",
            "stuck",
            "top",
            "diagram",
            "serve",
            "record",
        ],
        live: false,
        otherwise: "it says everything already",
    },
    Rule {
        options: &["netns"],
        commands: &[
            "connections",
            "transitions",
            "handshakes",
            "compare",
            "listeners",
            "stuck",
            "top",
            "diagram",
            "serve",
            "export",
        ],
        live: false,
        otherwise: NO_FILTER,
    },
    Rule {
        options: &["local-port", "local", "pid", "comm", "cgroup", "pod", "k8s-namespace", "ipv4", "ipv6"],
        commands: &[
            "connections",
            "transitions",
            "handshakes",
            "compare",
            "listeners",
            "stuck",
            "top",
            "diagram",
            "export",
        ],
        live: false,
        otherwise: NO_FILTER,
    },
    Rule {
        options: &["remote-port", "remote", "state", "min-duration"],
        commands: &[
            "connections",
            "transitions",
            "handshakes",
            "compare",
            "stuck",
            "top",
            "diagram",
            "export",
        ],
        live: false,
        otherwise: NO_FILTER,
    },
    Rule {
        options: &["role"],
        commands: &["connections", "transitions", "handshakes", "compare", "top", "diagram", "export"],
        live: false,
        otherwise: "it does not know which end opened a connection, or it shows none; select with --local-port or \
                    --remote-port, and `record` everything",
    },
    Rule {
        options: &["failed"],
        commands: &["connections", "handshakes", "export"],
        live: false,
        otherwise: "only connections and handshakes that have ended can have failed; use `connections --failed` or \
                    `handshakes --failed`",
    },
];

const NO_FILTER: &str = "`record` records everything for the command that reads the recording, `serve` counts everything \
                         (use --label and --netns), `listeners` shows sockets without a peer (use --port), and `doctor` \
                         shows no connections";

/// Returns whether a command with this name has a use for a shared option.
pub(super) fn has_use(command: &str, option: &str) -> bool {
    RULES.iter().any(|rule| rule.options.contains(&option) && rule.commands.contains(&command))
}

/// Returns the sentence that refuses the first given option without a use; none if all have one.
pub(super) fn refusal(cli: &Cli, matches: &ArgMatches) -> Option<String> {
    let (name, given) = matches.subcommand().unwrap_or(("connections", matches));
    let is_given = |option: &str| {
        // The ids of options are their long names with underscores.
        given.value_source(&option.replace('-', "_")) == Some(ValueSource::CommandLine)
    };
    let options = RULES.iter().flat_map(|rule| rule.options.iter().map(move |option| (rule, *option)));
    let refused = options.filter(|(_, option)| is_given(option)).find_map(|(rule, option)| {
        let why =
            if rule.commands.contains(&name) { with_others(cli, rule, option)? } else { rule.otherwise };
        let why = if matches!(name, "completions" | "man") { "it only writes its text" } else { why };
        Some((option, why))
    });
    let refused = refused.or_else(|| own_with_others(cli).into_iter().find(|(option, _)| is_given(option)));
    refused.map(|(option, why)| format!("`{name}` has no use for --{option}: {why}"))
}

/// Returns the options of the command's own that another option makes useless, and why.
fn own_with_others(cli: &Cli) -> Vec<(&'static str, &'static str)> {
    let is_csv = cli.shared.output == Format::Csv;
    match &cli.command {
        Some(Command::Stuck(_)) if is_csv => vec![("limit", "CSV lists every connection")],
        Some(Command::Handshakes(arguments)) if arguments.joins() => {
            ["by", "max-groups"].map(|option| (option, "with --join it makes no groups")).to_vec()
        }
        Some(Command::Handshakes(_)) if is_csv => vec![("slowest", "CSV has only the groups")],
        Some(Command::Serve(_)) if cli.shared.quiet || cli.shared.verbose => {
            vec![("log-level", "--quiet and --verbose set the level")]
        }
        _ => Vec::new(),
    }
}

/// Returns why another option makes this one useless; none if it has a use.
fn with_others(cli: &Cli, rule: &Rule, option: &str) -> Option<&'static str> {
    let reads_recording = !cli.shared.input.is_empty();
    let only_reads = matches!(&cli.command, Some(Command::Compare(arguments)) if arguments.after.is_some());
    let traces = !reads_recording && cli.shared.duration.is_some();
    let is_look = matches!(cli.command, Some(Command::Stuck(_))) && !reads_recording && !traces;
    match option {
        _ if only_reads && (rule.live || matches!(option, "verbose" | "host-root")) => {
            Some("with AFTER it reads only recordings")
        }
        _ if rule.live && reads_recording => Some("with --input it reads no events from the kernel"),
        "host-root" if reads_recording => Some("with --input the names come from the recording"),
        "verbose" if reads_recording && !matches!(cli.command, Some(Command::Serve(_))) => {
            Some("with --input it says everything already")
        }
        _ if is_look && (rule.live || matches!(option, "verbose" | "max-connections")) => {
            Some("it traces only with --duration")
        }
        "count" if matches!(&cli.command, Some(Command::Handshakes(arguments)) if arguments.joins()) => {
            Some("with --join it makes no groups; --slowest sets the number of handshakes")
        }
        "count" if matches!(&cli.command, Some(Command::Record(arguments)) if arguments.flight.ring.is_some()) => {
            Some("with --ring it keeps the last events; use --duration to end it early")
        }
        "failed" => match &cli.command {
            Some(Command::Export(arguments)) if !arguments.exports_only_closed() => {
                Some("only closed connections can have failed; add --what connections")
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory as _;

    use super::*;

    /// A command line of each command.
    const COMMANDS: [&[&str]; 14] = [
        &["connections"],
        &["transitions"],
        &["handshakes"],
        &["compare", "a.arrows"],
        &["listeners"],
        &["stuck", "--duration", "1s"],
        &["top"],
        &["diagram"],
        &["serve"],
        &["record", "a.arrows"],
        &["export", "a.arrows", "--to", "b", "--what", "connections"],
        &["doctor"],
        &["completions", "bash"],
        &["man"],
    ];

    /// An argument of each option that takes a value.
    fn argument(option: &str) -> String {
        let value = match option {
            "input" => "a.arrows",
            "output" => "json",
            "duration" | "latency" | "min-duration" => "1s",
            "count" | "max-connections" | "nice" | "pid" => "5",
            "time" => "utc",
            "color" => "always",
            "mode" => "btf",
            "buffer" => "8M",
            "local-port" | "remote-port" => "80",
            "local" | "remote" => "10.0.0.0/8",
            "comm" => "curl",
            "pod" | "k8s-namespace" => "web-0",
            "host-root" | "cgroup" => "/",
            "netns" => "self",
            "role" => "client",
            "state" => "syn_sent",
            "no-hook" => "drop",
            _ => return format!("--{option}"),
        };
        format!("--{option}={value}")
    }

    fn read(arguments: &[&str]) -> Result<Cli, String> {
        let arguments = ["tcptrace-bpf"].iter().chain(arguments).map(OsString::from);
        let cli = Cli::read(arguments, |_| None).map_err(|error| error.to_string())?;
        cli.check().map_err(|error| error.to_string())?;
        Ok(cli)
    }

    #[test]
    fn every_shared_option_has_one_rule() {
        let command = Cli::command();
        let mut shared: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        let mut ruled: Vec<&str> = RULES.iter().flat_map(|rule| rule.options).copied().collect();
        shared.sort_unstable();
        ruled.sort_unstable();
        assert_eq!(ruled, shared);
        for option in ruled {
            let id = command.get_arguments().find(|it| it.get_long() == Some(option)).unwrap().get_id();
            assert_eq!(id.as_str(), option.replace('-', "_"));
        }
    }

    #[test]
    fn the_rules_and_these_tests_name_the_commands() {
        let command = Cli::command();
        let commands: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        assert_eq!(COMMANDS.map(|line| line[0]).to_vec(), commands);
        for name in RULES.iter().flat_map(|rule| rule.commands) {
            assert!(commands.contains(name), "{name}");
        }
    }

    #[test]
    fn an_option_without_a_use_is_refused_before_and_after_the_command() {
        for command in COMMANDS {
            let name = command[0];
            for option in RULES.iter().flat_map(|rule| rule.options) {
                let argument = argument(option);
                if command.contains(&argument.split('=').next().unwrap()) {
                    continue;
                }
                let after: Vec<&str> = command.iter().copied().chain([argument.as_str()]).collect();
                let before: Vec<&str> =
                    [argument.as_str()].into_iter().chain(command.iter().copied()).collect();
                for line in [after, before] {
                    match read(&line) {
                        Ok(_) => assert!(has_use(name, option), "{line:?}"),
                        Err(error) => {
                            assert!(!has_use(name, option), "{line:?}: {error}");
                            assert!(error.contains(&format!("--{option}: ")), "{line:?}: {error}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn another_option_can_take_the_use() {
        for (line, part) in [
            (&["-i", "a.arrows", "--mode", "btf"][..], "--mode: with --input"),
            (&["transitions", "-i", "a.arrows", "--no-snapshot"], "--no-snapshot: with --input"),
            (&["-i", "a.arrows", "-v"], "--verbose: with --input"),
            (&["-i", "a.arrows", "--host-root", "/"], "--host-root: with --input the names"),
            (&["stuck", "--buffer", "8M"], "--buffer: it traces only with --duration"),
            (&["stuck", "--max-connections", "5"], "--max-connections: it traces only with --duration"),
            (&["export", "a.arrows", "--to", "b", "--failed"], "--failed: only closed connections can"),
            (
                &["listeners", "-i", "a.arrows"],
                "--input: `listeners`, `record` and `doctor` look at this host",
            ),
            (&["stuck", "-o", "csv", "--limit", "3"], "--limit: CSV lists every connection"),
            (&["handshakes", "-o", "csv", "--slowest", "3"], "--slowest: CSV has only the groups"),
            (
                &["handshakes", "-i", "a", "--join", "b", "--by", "role"],
                "--by: with --join it makes no groups",
            ),
            (&["handshakes", "-i", "a", "--join", "b", "--max-groups", "3"], "--max-groups: with --join"),
            (
                &["handshakes", "-i", "a", "--join", "b", "-n", "3"],
                "--count: with --join it makes no groups; --slowest",
            ),
            (&["compare", "a", "b", "--buffer", "8M"], "--buffer: with AFTER it reads only recordings"),
            (&["record", "a", "--ring", "1M", "-n", "3"], "--count: with --ring it keeps the last events"),
            (&["serve", "-q", "--log-level", "debug"], "--log-level: --quiet and --verbose"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(part), "{line:?}: {error}");
        }
        for line in [
            &["serve", "-i", "a.arrows", "-v"][..],
            &["stuck", "--duration", "1s", "--buffer", "8M"],
            &["compare", "a", "b", "--remote-port", "80"],
            &["stuck", "--host-root", "/"],
            &["stuck", "-i", "a.arrows", "--max-connections", "5"],
            &["stuck", "-o", "csv"],
            &["handshakes", "-o", "json", "--slowest", "3"],
            &["handshakes", "-i", "a", "--join", "b", "-o", "csv", "--slowest", "3", "--failed"],
        ] {
            assert!(read(line).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn a_refusal_is_wrong_usage() {
        let arguments = ["tcptrace-bpf", "stuck", "--role", "client"].map(OsString::from);
        let error = Cli::read(arguments, |_| None).unwrap_err();
        let crate::cli::SettingsError::Usage(error) = error else { panic!("{error}") };
        assert_eq!(error.exit_code(), 2);
    }
}
