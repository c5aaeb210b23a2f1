//! Writes the man pages and the shell completions into a folder: `cargo run --example manual -- FOLDER`.
//!
//! It is an example so that neither the program nor `cargo xtask` carries the generators: only
//! `cargo xtask dist`, which starts this, and the tests build them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Command, CommandFactory as _, Parser};
use clap_complete::Shell;
use tcptrace_bpf::cli::Cli;

/// Where each shell looks for completions, below a prefix such as /usr/local.
///
/// Elvish and PowerShell have no such place; their files are to be loaded by the user's own configuration.
const COMPLETIONS: [(Shell, &str); 5] = [
    (Shell::Bash, "share/bash-completion/completions/tcptrace-bpf"),
    (Shell::Zsh, "share/zsh/site-functions/_tcptrace-bpf"),
    (Shell::Fish, "share/fish/vendor_completions.d/tcptrace-bpf.fish"),
    (Shell::Elvish, "share/elvish/lib/tcptrace-bpf.elv"),
    (Shell::PowerShell, "share/powershell/tcptrace-bpf.ps1"),
];

/// Where `man` looks for pages of programs, below the same prefix.
const PAGES: &str = "share/man/man1";

/// Writes the man pages and the shell completions of tcptrace-bpf.
#[derive(Parser)]
struct Arguments {
    /// The prefix to write below; made when it does not exist
    folder: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match write_all(&arguments.folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manual: writing below {} failed: {error}", arguments.folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes everything below a prefix.
fn write_all(prefix: &Path) -> std::io::Result<()> {
    let pages = prefix.join(PAGES);
    fs::create_dir_all(&pages)?;
    for (name, page) in pages_of(&built()) {
        fs::write(pages.join(name), page)?;
    }
    for (shell, path) in COMPLETIONS {
        let file = prefix.join(path);
        fs::create_dir_all(file.parent().expect("the path has folders"))?;
        fs::write(file, completion(shell))?;
    }
    Ok(())
}

/// The command line with its shared options in every command, as `--help` shows it.
///
/// Without `help`, which would get a page of its own that only repeats the names.
fn built() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// The man page of a command and of those below it, with their file names.
fn pages_of(command: &Command) -> Vec<(String, Vec<u8>)> {
    let page = clap_mangen::Man::new(command.clone()).manual("tcptrace-bpf");
    let mut text = Vec::new();
    page.render(&mut text).expect("a vector takes everything");
    let mut pages = vec![(page.get_filename(), text)];
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        pages.extend(pages_of(below));
    }
    pages
}

/// A shell's completions.
fn completion(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tcptrace-bpf", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command, with the name of its page.
    fn commands(command: &Command) -> Vec<(String, Command)> {
        let mut all = vec![(
            format!("{}.1", command.get_display_name().unwrap_or(command.get_name())),
            command.clone(),
        )];
        all.extend(command.get_subcommands().filter(|it| !it.is_hide_set()).flat_map(commands));
        all
    }

    /// What a reader of the page sees, or nearly: roff writes `-` as `\-`.
    fn read(page: &[u8]) -> String {
        String::from_utf8_lossy(page).replace("\\-", "-")
    }

    #[test]
    fn every_command_has_a_page_with_every_option() {
        let command = built();
        let pages = pages_of(&command);
        let commands = commands(&command);
        assert_eq!(
            pages.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            commands.iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
        assert!(pages.len() >= 5, "only {} pages", pages.len());

        for ((name, page), (_, command)) in pages.iter().zip(&commands) {
            let text = read(page);
            for option in command.get_arguments().filter(|it| !it.is_hide_set()) {
                let Some(long) = option.get_long() else { continue };
                assert!(text.contains(&format!("--{long}")), "{name} lacks --{long}");
                for value in option.get_possible_values() {
                    let value = value.get_name();
                    assert!(text.contains(value), "{name}: --{long} lacks {value}");
                }
            }
            for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
                assert!(text.contains(below.get_name()), "{name} lacks the command {}", below.get_name());
            }
        }
    }

    #[test]
    fn every_shell_completes_every_command_and_option() {
        let command = built();
        for (shell, _) in COMPLETIONS {
            let text = String::from_utf8(completion(shell)).unwrap();
            for (_, command) in commands(&command) {
                assert!(text.contains(command.get_name()), "{shell} lacks {}", command.get_name());
                for long in
                    command.get_arguments().filter(|it| !it.is_hide_set()).filter_map(clap::Arg::get_long)
                {
                    // Fish writes `-l long`.
                    assert!(text.contains(long), "{shell} lacks --{long}");
                }
            }
        }
    }

    #[test]
    fn the_same_each_time() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for folder in &folders {
            write_all(folder.path()).unwrap();
        }
        let page = format!("{PAGES}/tcptrace-bpf.1");
        for path in COMPLETIONS.map(|(_, path)| path).into_iter().chain([page.as_str()]) {
            let [first, second] =
                folders.each_ref().map(|folder| fs::read(folder.path().join(path)).unwrap());
            assert!(!first.is_empty(), "{path}");
            assert!(first == second, "{path} differs");
        }
    }
}
