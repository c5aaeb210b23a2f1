//! The completions of shells, from the definition of the command line.

use clap::Args;
use clap_complete::Shell;

use crate::cli::definition::documented;

/// The name that the completions are for.
const PROGRAM: &str = "tcptrace-bpf";

/// Options of `completions`.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompletionsArguments {
    /// Shell to complete in
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

impl CompletionsArguments {
    /// Returns the script that the shell loads.
    pub(crate) fn script(&self) -> String {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut documented(), PROGRAM, &mut script);
        let script = String::from_utf8_lossy(&script).into_owned();
        match self.shell {
            Shell::Bash => with_matching_labels(&script),
            _ => script,
        }
    }
}

/// Gives the cases of subcommands in a bash script the names that its variable has.
///
/// `clap_complete` replaces `-` in the program's name by `__` for the variable, and by `__subcmd__` for the labels, so that
/// nothing is completed after a subcommand.
fn with_matching_labels(script: &str) -> String {
    let label = PROGRAM.replace('-', "__subcmd__");
    script.replace(&format!("{label}__subcmd__"), &format!("{}__subcmd__", PROGRAM.replace('-', "__")))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_completes_every_command_and_option() {
        let definition = documented();
        for shell in Shell::value_variants() {
            let script = CompletionsArguments { shell: *shell }.script();
            for command in definition.get_subcommands().chain([&definition]) {
                assert!(script.contains(command.get_name()), "{shell} lacks {}", command.get_name());
                for long in command.get_arguments().filter_map(clap::Arg::get_long) {
                    // Fish writes `-l long`.
                    assert!(script.contains(long), "{shell} lacks --{long}");
                }
            }
        }
    }

    #[test]
    fn each_case_of_the_bash_script_is_a_value_of_its_variable() {
        let script = CompletionsArguments { shell: Shell::Bash }.script();
        let values: Vec<&str> = script
            .lines()
            .filter_map(|line| line.trim().strip_prefix("cmd=\"")?.strip_suffix('"'))
            .filter(|value| !value.is_empty())
            .collect();
        assert_eq!(values.len(), documented().get_subcommands().count() + 1);
        for value in values {
            let label = format!("{value})");
            assert_eq!(script.lines().filter(|line| line.trim() == label).count(), 1, "{label}");
        }
    }
}
