//! Writes the man pages and the shell completions to a folder: `cargo run --example manual -- FOLDER`.
//!
//! An example, so that neither the program nor `cargo xtask` depends on the generators. `cargo xtask dist` runs it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Command, CommandFactory as _, Parser};
use clap_complete::Shell;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use tcptrace_bpf::{
    cli::Cli,
    report::{
        ComparisonRow, ConnectionRow, DiagramEdgeRow, DiagramStateRow, Field, FieldKind, Fields as _,
        GroupRow, HandshakeBucketRow, HandshakeGroupRow, JoinRow, JoinedHandshakeRow, ListenerDropsRow,
        ListenerRow, ShiftRow, SlowHandshakeRow, StuckRow, TransitionRow,
    },
};

/// The completion path of each shell, relative to a prefix such as /usr/local.
///
/// Elvish and PowerShell have no standard path; the user's configuration has to load their files.
const COMPLETIONS: [(Shell, &str); 5] = [
    (Shell::Bash, "share/bash-completion/completions/tcptrace-bpf"),
    (Shell::Zsh, "share/zsh/site-functions/_tcptrace-bpf"),
    (Shell::Fish, "share/fish/vendor_completions.d/tcptrace-bpf.fish"),
    (Shell::Elvish, "share/elvish/lib/tcptrace-bpf.elv"),
    (Shell::PowerShell, "share/powershell/tcptrace-bpf.ps1"),
];

/// The path of the man pages, relative to the same prefix.
const PAGES: &str = "share/man/man1";

/// Writes the man pages and the shell completions of tcptrace-bpf.
#[derive(Parser)]
struct Arguments {
    /// Prefix to write to; created if missing
    folder: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match write_all(&arguments.folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manual: writing to {} failed: {error}", arguments.folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes all files to a prefix.
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

/// Returns the command line with the shared options in every command, as `--help` shows it.
///
/// The `help` command is excluded, because its page would only list the commands.
fn built() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// Returns the man pages of a command and its subcommands, with their file names.
fn pages_of(command: &Command) -> Vec<(String, Vec<u8>)> {
    let page = clap_mangen::Man::new(command.clone()).manual("tcptrace-bpf");
    let mut text = Vec::new();
    page.render(&mut text).expect("a write to a vector does not fail");
    for (title, fields) in row_types(command.get_name()) {
        write_fields(title, fields, &mut text);
    }
    let mut pages = vec![(page.get_filename(), text)];
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        pages.extend(pages_of(below));
    }
    pages
}

/// Returns the row types that a command writes, with their fields.
fn row_types(command: &str) -> Vec<(&'static str, &'static [Field])> {
    let connection = ("connection", ConnectionRow::FIELDS);
    let transition = ("transition", TransitionRow::FIELDS);
    match command {
        "connections" => vec![connection],
        "transitions" => vec![transition],
        "export" => vec![connection, transition],
        "handshakes" => vec![
            ("handshake_group", HandshakeGroupRow::FIELDS),
            ("handshake_slow", SlowHandshakeRow::FIELDS),
            ("handshake_bucket", HandshakeBucketRow::FIELDS),
            ("join", JoinRow::FIELDS),
            ("joined_handshake", JoinedHandshakeRow::FIELDS),
        ],
        "compare" => vec![("comparison", ComparisonRow::FIELDS), ("shift", ShiftRow::FIELDS)],
        "diagram" => {
            vec![("diagram_edge", DiagramEdgeRow::FIELDS), ("diagram_state", DiagramStateRow::FIELDS)]
        }
        "listeners" => {
            vec![("listener", ListenerRow::FIELDS), ("listener_drops", ListenerDropsRow::FIELDS)]
        }
        "stuck" => vec![("stuck_group", GroupRow::FIELDS), ("stuck", StuckRow::FIELDS)],
        _ => Vec::new(),
    }
}

/// Appends a section that lists the fields of a row type, and the fields of their lists.
fn write_fields(title: &str, fields: &[Field], page: &mut Vec<u8>) {
    let mut section = Roff::new();
    section.control("SH", [format!("FIELDS OF {title}").as_str()]);
    for field in fields {
        list_field("", field, &mut section);
        if let FieldKind::List(items) = field.kind {
            for item in items {
                list_field(&format!("{}[].", field.name), item, &mut section);
            }
        }
    }
    section.to_writer(page).expect("a write to a vector does not fail");
}

fn list_field(prefix: &str, field: &Field, section: &mut Roff) {
    let unit = if field.unit.is_empty() { String::new() } else { format!(", {}", field.unit) };
    section.control("TP", []);
    section.text([bold(format!("{prefix}{}", field.name)), roman(format!(" ({}{unit})", field.kind.name()))]);
    section.text(inlines(field.meaning));
}

/// Converts Markdown: code spans become bold, and links become their text.
fn inlines(markdown: &str) -> Vec<Inline> {
    let spans = markdown.split('`').enumerate();
    spans.map(|(index, span)| if index % 2 == 1 { bold(span) } else { roman(without_links(span)) }).collect()
}

fn without_links(mut markdown: &str) -> String {
    let mut text = String::new();
    while let Some((before, label, rest)) = markdown.split_once('[').and_then(|(before, rest)| {
        let (label, rest) = rest.split_once("](")?;
        Some((before, label, rest.split_once(')')?.1))
    }) {
        text.extend([before, label]);
        markdown = rest;
    }
    text + markdown
}

/// Returns the completions of a shell.
fn completion(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tcptrace-bpf", &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns every command with the file name of its page.
    fn commands(command: &Command) -> Vec<(String, Command)> {
        let mut all = vec![(
            format!("{}.1", command.get_display_name().unwrap_or(command.get_name())),
            command.clone(),
        )];
        all.extend(command.get_subcommands().filter(|it| !it.is_hide_set()).flat_map(commands));
        all
    }

    /// Returns the text of a page. Roff escapes `-` as `\-`.
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
    fn pages_list_the_fields_of_their_rows() {
        for (name, page) in pages_of(&built()) {
            let command = name.trim_start_matches("tcptrace-bpf-").trim_end_matches(".1");
            let text = read(&page);
            for field in row_types(command).into_iter().flat_map(|(_, fields)| fields) {
                assert!(text.contains(field.name), "{name} lacks {}", field.name);
            }
            assert!(!text.contains("]("), "{name} has a link in Markdown");
        }
        assert_eq!(without_links("see [a](b.md) and [c](#d)."), "see a and c.");
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
    fn the_output_is_reproducible() {
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
