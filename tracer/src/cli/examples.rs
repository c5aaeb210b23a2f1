//! The examples of each command, which `--help` and the man pages show.

/// A command line and what it answers.
pub(crate) struct Example {
    /// The line, as typed into a shell.
    pub(crate) line: &'static str,
    /// What it does.
    pub(crate) about: &'static str,
}

const fn example(line: &'static str, about: &'static str) -> Example {
    Example { line, about }
}

/// Returns the examples of a command; `tcptrace-bpf` is the program without a command.
#[expect(clippy::too_many_lines, reason = "one list, which is read from top to bottom")]
pub(crate) fn examples(command: &str) -> &'static [Example] {
    match command {
        "tcptrace-bpf" => {
            const {
                &[
                    example("sudo tcptrace-bpf", "A line for each connection when it closes, until Ctrl-C"),
                    example("sudo tcptrace-bpf --failed", "Which connections fail, and why"),
                    example(
                        "sudo tcptrace-bpf --remote-port 443 -d 1m",
                        "One minute of connections to port 443",
                    ),
                    example(
                        "sudo tcptrace-bpf -o json -n 100 >connections.jsonl",
                        "100 connections for a script",
                    ),
                    example("sudo tcptrace-bpf doctor", "What this kernel and these privileges allow"),
                ]
            }
        }
        "connections" => {
            const {
                &[
                    example("sudo tcptrace-bpf connections --failed", "Which connections fail, and why"),
                    example(
                        "sudo tcptrace-bpf connections --role server --local-port 443 -o wide",
                        "How the clients of a service fare",
                    ),
                    example("sudo tcptrace-bpf connections --comm curl -n 1", "The next connection of curl"),
                    example(
                        "tcptrace-bpf connections -i incident.arrows --min-duration 10s",
                        "Long connections of a recording",
                    ),
                ]
            }
        }
        "transitions" => {
            const {
                &[
                    example(
                        "sudo tcptrace-bpf transitions --remote-port 443",
                        "Each transition of connections to port 443",
                    ),
                    example(
                        "sudo tcptrace-bpf transitions --state close_wait",
                        "Which side closed, and how soon the other followed",
                    ),
                ]
            }
        }
        "handshakes" => {
            const {
                &[
                    example(
                        "sudo tcptrace-bpf handshakes -d 1m",
                        "The slowest services of the next minute, and why",
                    ),
                    example(
                        "sudo tcptrace-bpf handshakes --by process --role client -d 1m",
                        "The same for each process that connects",
                    ),
                    example(
                        "tcptrace-bpf handshakes -i client.arrows --join server.arrows",
                        "Which segment was lost between two hosts",
                    ),
                ]
            }
        }
        "listeners" => {
            const {
                &[
                    example("sudo tcptrace-bpf listeners", "The listening sockets now, the worst first"),
                    example(
                        "sudo tcptrace-bpf listeners --port 443 -d 1m",
                        "The queue and drops of one port during a minute",
                    ),
                ]
            }
        }
        "stuck" => {
            const {
                &[
                    example(
                        "sudo tcptrace-bpf stuck",
                        "Which process leaks connections or waits for a dead peer",
                    ),
                    example(
                        "sudo tcptrace-bpf stuck --by remote --threshold syn_sent=1s",
                        "Which peers this host waits for",
                    ),
                ]
            }
        }
        "top" => {
            const {
                &[
                    example("sudo tcptrace-bpf top", "The live view; ? shows the keys"),
                    example("sudo tcptrace-bpf top --local-port 443", "The live view of one service"),
                ]
            }
        }
        "compare" => {
            const {
                &[
                    example(
                        "tcptrace-bpf compare before.arrows after.arrows",
                        "What a change did to handshakes and closes",
                    ),
                    example(
                        "sudo tcptrace-bpf compare before.arrows --by remote-port -d 5m",
                        "A recording and the next five minutes",
                    ),
                ]
            }
        }
        "diagram" => {
            const {
                &[
                    example("sudo tcptrace-bpf diagram -d 10s", "Ten seconds of traffic as a state diagram"),
                    example("sudo tcptrace-bpf diagram -d 10s --svg states.svg", "The same as a picture"),
                ]
            }
        }
        "serve" => {
            const {
                &[
                    example("sudo tcptrace-bpf serve", "Metrics on http://127.0.0.1:10793/metrics"),
                    example(
                        "sudo tcptrace-bpf serve --ring 64M --freeze-on 'failures>100' --freeze-to /var/lib/tcptrace-bpf",
                        "Metrics, and a recording of the minutes before failures",
                    ),
                    example(
                        "sudo tcptrace-bpf serve --check --config tcptrace-bpf.toml",
                        "Check a configuration",
                    ),
                ]
            }
        }
        "record" => {
            const {
                &[
                    example("sudo tcptrace-bpf record incident.arrows -d 10m", "Ten minutes to a file"),
                    example(
                        "sudo tcptrace-bpf record trace.arrows --rotate 1h --max-files 24",
                        "The last day, in a file per hour",
                    ),
                    example(
                        "sudo tcptrace-bpf record incident.arrows --ring 64M --freeze-on 'handshake_p99>1s,failures>100'",
                        "Nothing until something happens, then a file with the minutes before",
                    ),
                ]
            }
        }
        "export" => {
            const {
                &[
                    example(
                        "tcptrace-bpf export incident.arrows --to export",
                        "Parquet files, one per host and hour",
                    ),
                    example(
                        "tcptrace-bpf export incident.arrows --what connections --to connections.csv",
                        "One CSV file",
                    ),
                    example(
                        "tcptrace-bpf export incident.arrows --what open_connections --to open.parquet",
                        "What was open at the end, with its state and age",
                    ),
                ]
            }
        }
        "doctor" => {
            const {
                &[
                    example("sudo tcptrace-bpf doctor", "What this kernel and these privileges allow"),
                    example("sudo tcptrace-bpf doctor -o json", "The same for a script"),
                ]
            }
        }
        "completions" => {
            const {
                &[
                    example(
                        "tcptrace-bpf completions bash | sudo tee /usr/share/bash-completion/completions/tcptrace-bpf >/dev/null",
                        "Install the completions of bash",
                    ),
                    example(
                        "tcptrace-bpf completions zsh | sudo tee /usr/local/share/zsh/site-functions/_tcptrace-bpf >/dev/null",
                        "Install the completions of zsh",
                    ),
                    example(
                        "tcptrace-bpf completions fish >~/.config/fish/completions/tcptrace-bpf.fish",
                        "Install the completions of fish",
                    ),
                ]
            }
        }
        "man" => {
            const {
                &[
                    example("tcptrace-bpf man handshakes | man -l -", "Read a page without installing it"),
                    example("sudo tcptrace-bpf man --to /usr/local/share/man/man1", "Install all pages"),
                ]
            }
        }
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::{Cli, command};

    /// Splits a command line like a shell, up to a pipe or a redirection.
    fn words(line: &str) -> Vec<OsString> {
        let mut words = String::new();
        let mut quoted = false;
        for character in line.chars() {
            match character {
                '\'' => quoted = !quoted,
                '|' | '>' if !quoted => break,
                other => words.push(other),
            }
        }
        // No quoted text has a space.
        words.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        let command = command();
        let names = command.get_subcommands().map(clap::Command::get_name).chain([command.get_name()]);
        for name in names {
            assert!(examples(name).len() >= 2, "{name}");
            for example in examples(name) {
                let own = example.line.trim_start_matches("sudo ");
                let words = words(own);
                assert_eq!(words[0], "tcptrace-bpf");
                match Cli::read(words, |_| None) {
                    Ok(cli) => cli.check().unwrap_or_else(|error| panic!("{own}: {error}")),
                    // The file of the example does not exist here.
                    Err(crate::cli::SettingsError::Read { .. }) => {}
                    Err(error) => panic!("{own}: {error}"),
                }
            }
        }
    }
}
