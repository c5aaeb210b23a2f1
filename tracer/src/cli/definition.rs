//! The command line as users see it: each command with only the options that it takes, and with examples.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory as _, builder::Resettable};

use crate::cli::{Cli, applicability::has_use, examples::examples};

/// Returns the definition that parses the command line and shows the help.
///
/// Every command accepts every shared option, so that a refusal can say why; the help hides those without a use.
pub(crate) fn command() -> Command {
    let definition = Cli::command();
    let shared: Vec<Arg> = definition.get_arguments().cloned().collect();
    let definition = with_examples(definition);
    definition.mut_subcommands(|command| {
        let useless = shared.iter().filter(|option| !takes(&command, option)).cloned();
        let hidden: Vec<Arg> = useless.map(|option| option.hide(true)).collect();
        with_examples(command.args(hidden))
    })
}

/// Returns the definition for completions and man pages: no command has an option without a use.
///
/// It has no command `help`, whose page would only list the commands.
pub(super) fn documented() -> Command {
    let definition = Cli::command();
    let shared: Vec<Arg> =
        definition.get_arguments().filter(|option| !option.is_hide_set()).cloned().collect();
    let mut definition = definition
        .disable_help_subcommand(true)
        .mut_args(|option| option.global(false))
        .mut_subcommands(|command| {
            let own = shared.iter().filter(|option| takes(&command, option)).cloned();
            // A conflict may be with an option that the command lacks.
            let own: Vec<Arg> =
                own.map(|option| option.global(false).conflicts_with(Resettable::Reset)).collect();
            command.args(own)
        });
    definition.build();
    definition
}

fn takes(command: &Command, option: &Arg) -> bool {
    option.get_long().is_none_or(|long| has_use(command.get_name(), long))
}

/// Adds the examples to the long help.
fn with_examples(command: Command) -> Command {
    let mut text = command.get_after_help().map(|help| format!("{}\n\n", help.ansi())).unwrap_or_default();
    let header = *command.get_styles().get_header();
    let _ = write!(text, "{header}Examples:{header:#}");
    for example in examples(command.get_name()) {
        let _ = write!(text, "\n  {}\n          {}", example.line, example.about);
    }
    command.after_long_help(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help_of(name: &str) -> String {
        let mut command = command();
        command.build();
        let command = command.find_subcommand_mut(name).expect("the command exists");
        command.render_long_help().to_string()
    }

    #[test]
    fn the_help_of_a_command_lists_only_what_it_takes() {
        let mut all = command();
        all.build();
        let shared: Vec<String> =
            Cli::command().get_arguments().filter_map(|it| it.get_long().map(str::to_owned)).collect();
        for name in all.get_subcommands().map(Command::get_name).filter(|name| *name != "help") {
            let help = help_of(name);
            let listed = |long: &str| {
                help.split_whitespace().any(|word| word.trim_end_matches(',') == format!("--{long}"))
            };
            for long in &shared {
                let hidden = long == "no-twin";
                let own = documented().find_subcommand(name).is_some_and(|command| {
                    command.get_arguments().any(|option| option.get_long() == Some(long))
                });
                assert_eq!(own, has_use(name, long) && !hidden, "{name} --{long}");
                if own {
                    assert!(listed(long), "{name} lacks --{long}");
                }
            }
        }
        let help = help_of("doctor");
        assert!(!help.contains("Filters") && !help.contains("--buffer"), "{help}");
        assert!(help.contains("sudo tcptrace-bpf doctor -o json"), "{help}");
    }

    #[test]
    fn the_short_help_is_short_and_grouped() {
        let help = command().term_width(100).render_help().to_string();
        assert!(help.lines().count() <= 56, "{} lines: {help}", help.lines().count());
        for part in ["Commands:", "Input and output:", "Filters:", "--failed", "see more with '--help'"] {
            assert!(help.contains(part), "{part} not in {help}");
        }
        assert!(!help.contains("--buffer"), "{help}");
        let long = command().render_long_help().to_string();
        for part in ["Tracing:", "--buffer", "Examples:", "sudo tcptrace-bpf --failed"] {
            assert!(long.contains(part), "{part} not in {long}");
        }
    }
}
