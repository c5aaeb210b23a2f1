//! The commands and their options.

use std::{collections::BTreeMap, ffi::OsString};

use clap::CommandFactory as _;
use tcptrace_bpf::cli::{Cli, SettingsError};

use crate::{
    markdown::{cells, code, table},
    page::{DOCUMENTS, names, read, section},
};

#[test]
fn commands_are_documented() {
    let documented = names(&table(&section(&read("README.md"), "Commands"), "command"));
    let command = Cli::command();
    let defined: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    assert_eq!(documented, defined);
}

/// Each command has a page with a sample of its output.
#[test]
fn every_command_has_its_page() {
    for row in table(&section(&read("README.md"), "Commands"), "command") {
        let command = &code(&row[0])[0];
        let link = row[1].split("](").nth(1).and_then(|rest| rest.split([')', '#']).next());
        let page = read(link.unwrap_or_else(|| panic!("{command} has no link")));
        assert!(page.contains(&format!("tcptrace-bpf {command}")), "{command}");
        assert!(page.contains("```"), "{command}");
    }
}

/// Returns every option of the program and its commands, by long name.
fn defined_options() -> BTreeMap<String, Vec<clap::Arg>> {
    let mut command = Cli::command();
    command.build();
    let mut options: BTreeMap<String, Vec<clap::Arg>> = BTreeMap::new();
    let all = command
        .get_arguments()
        .chain(
            command
                .get_subcommands()
                .filter(|command| command.get_name() != "help")
                .flat_map(clap::Command::get_arguments),
        )
        .filter(|option| !option.is_positional() && !option.is_hide_set())
        .map(|option| (option.get_long().expect("every option has a long name").to_owned(), option.clone()));
    for (name, option) in all {
        options.entry(name).or_default().push(option);
    }
    options
}

#[test]
fn options_are_documented_with_values_and_defaults() {
    let text = section(&read("docs/options.md"), "Options");
    let mut documented: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for row in text.lines().map(cells) {
        let forms = row.first().map(|cell| code(cell)).unwrap_or_default();
        if let Some(long) = forms.iter().find_map(|form| form.strip_prefix("--")) {
            documented.entry(long.split(' ').next().unwrap().to_owned()).or_default().push(row);
        }
    }
    let defined = defined_options();
    assert_eq!(documented.keys().collect::<Vec<_>>(), defined.keys().collect::<Vec<_>>());

    for (name, options) in &defined {
        for option in options {
            // Commands may have different options with the same name; each has its own row.
            let complaints: Vec<String> =
                documented[name].iter().filter_map(|row| misdescribed(name, option, row)).collect();
            assert!(complaints.len() < documented[name].len(), "{complaints:#?}");
        }
    }
}

/// Returns the first error in the row of an option, or `None`.
fn misdescribed(name: &str, option: &clap::Arg, row: &[String]) -> Option<String> {
    let forms = code(&row[0]);
    let short = forms.iter().find_map(|form| form.strip_prefix('-').filter(|rest| !rest.starts_with('-')));
    if short.map(str::to_owned) != option.get_short().map(String::from) {
        return Some(format!("--{name}: {short:?}"));
    }
    let words = code(&row[1..].join(" "));
    let listed = !option.is_hide_possible_values_set();
    let values: Vec<String> = option
        .get_possible_values()
        .iter()
        .filter(|_| listed)
        .map(|value| value.get_name().to_owned())
        .collect();
    if let Some(value) = values.iter().find(|value| !words.contains(value)) {
        return Some(format!("--{name}: {value} not in {words:?}"));
    }
    let value_name = option
        .get_action()
        .takes_values()
        .then(|| option.get_value_names().and_then(<[_]>::first))
        .flatten()
        .filter(|_| values.is_empty());
    if let Some(value_name) = value_name
        && !forms.contains(&format!("--{name} {value_name}"))
    {
        return Some(format!("--{name}: {value_name} not in {forms:?}"));
    }
    let defaults = option.get_default_values().iter().map(|default| default.to_string_lossy());
    for default in defaults.filter(|_| option.get_action().takes_values()) {
        if !code(&row[1]).iter().any(|word| *word == default) {
            return Some(format!("--{name}: {default} not in {row:?}"));
        }
    }
    None
}

/// Returns a command line up to a pipe, a redirection or a comment, without its quotes. No quoted text has a space.
fn command_line(line: &str) -> String {
    let mut quoted = false;
    let mut own = String::new();
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            '|' | '>' | '#' if !quoted => break,
            other => own.push(other),
        }
    }
    own
}

#[test]
fn documented_command_lines_parse() {
    let mut count = 0;
    for name in DOCUMENTS {
        for line in read(name).split("```").skip(1).step_by(2).flat_map(str::lines) {
            let Some(line) = line.trim_start_matches("$ ").strip_prefix("sudo tcptrace-bpf") else {
                continue;
            };
            let own = command_line(line);
            let arguments = ["tcptrace-bpf"].into_iter().chain(own.split_whitespace());
            match Cli::read(arguments.map(OsString::from), |_| None) {
                Ok(cli) => cli.check().unwrap_or_else(|error| panic!("{name}: {line}: {error}")),
                // The configuration of an installed service.
                Err(SettingsError::Read { .. }) => {}
                Err(error) => panic!("{name}: {line}: {error}"),
            }
            count += 1;
        }
    }
    assert!(count >= 7, "only {count} command lines were found");
}
