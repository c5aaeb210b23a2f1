//! The man pages, from the definition of the command line.

use clap::Command;
use clap_mangen::{
    Man,
    roff::{Inline, Roff, bold, roman},
};

use crate::{
    cli::{definition::documented, examples::examples},
    report::{
        ComparisonRow, ConnectionRow, DiagramEdgeRow, DiagramStateRow, Field, FieldKind, Fields as _,
        GroupRow, HandshakeBucketRow, HandshakeGroupRow, JoinRow, JoinedHandshakeRow, ListenerDropsRow,
        ListenerRow, OpenConnectionRow, ShiftRow, SlowHandshakeRow, StuckRow, TransitionRow,
    },
    top::{KEYS, SavedView},
};

/// A man page.
pub(crate) struct Page {
    /// The name of its file.
    pub(crate) file: String,
    /// The text, for troff.
    pub(crate) text: Vec<u8>,
}

/// Returns the page of the program and of each command.
pub(crate) fn pages() -> Vec<Page> {
    let definition = documented();
    let below: Vec<&Command> = definition.get_subcommands().collect();
    std::iter::once(&definition).chain(below).map(|command| page(command, &definition)).collect()
}

fn page(command: &Command, definition: &Command) -> Page {
    let man = Man::new(command.clone()).manual("tcptrace-bpf");
    let mut text = Vec::new();
    let mut parts = || -> std::io::Result<()> {
        man.render_title(&mut text)?;
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
        if command.has_subcommands() {
            man.render_subcommands_section(&mut text)?;
        }
        if command.get_name() == "top" {
            write_terms("KEYS", &KEYS, &mut text);
        }
        for (title, fields) in row_types(command.get_name()) {
            write_fields(title, fields, &mut text);
        }
        write_examples(command.get_name(), &mut text);
        write_terms("EXIT STATUS", EXIT_STATUS, &mut text);
        write_terms("ENVIRONMENT", environment(command.get_name()), &mut text);
        write_terms("FILES", files(command.get_name()), &mut text);
        write_see_also(command, definition, &mut text);
        man.render_version_section(&mut text)
    };
    parts().expect("a write to a vector does not fail");
    Page { file: man.get_filename(), text }
}

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "The program did what it was asked to, also when a signal, --duration or --count ended it."),
    ("1", "The program could not run. A sentence on stderr names the cause and the remedy."),
    ("2", "Wrong usage: an option, a configuration file or an environment variable is invalid."),
];

/// Returns the environment variables of a command.
fn environment(command: &str) -> &'static [(&'static str, &'static str)] {
    match command {
        "serve" => &[
            (
                "TCPTRACE_OPTION",
                "The value of --option, such as TCPTRACE_LABEL_LIMIT for --label-limit. Options override variables, and variables override the file of --config.",
            ),
            ("TCPTRACE_CONFIG", "The file of --config."),
        ],
        "completions" | "man" => &[],
        _ => &[
            ("NO_COLOR", "If it is not empty, --color auto writes no colors."),
            ("CLICOLOR_FORCE", "If it is not empty, --color auto also writes colors into pipes and files."),
            ("TZ", "The time zone of times in tables."),
            (
                "TCPTRACE_BPF_OBJECT",
                "An eBPF object to load instead of the one in the program, for development.",
            ),
        ],
    }
}

/// Returns the files that a command uses.
fn files(command: &str) -> &'static [(&'static str, &'static str)] {
    const BTF: (&str, &str) =
        ("/sys/kernel/btf/vmlinux", "The kernel's type information, which mode btf needs.");
    const TRACEFS: (&str, &str) = ("/sys/kernel/tracing", "tracefs, which mode tracepoint needs.");
    const NETNS: (&str, &str) = ("/run/netns", "Network namespaces with the names that --netns accepts.");
    match command {
        "completions" | "man" | "export" => &[],
        "top" => &[
            (
                "tcptrace-bpf-top-TIME.json",
                "The view that the key w saves: a new file in the working directory, for its user only.",
            ),
            BTF,
            TRACEFS,
            NETNS,
        ],
        "serve" => &[
            ("/etc/tcptrace-bpf/tcptrace-bpf.toml", "The configuration of the service of the packages."),
            BTF,
            TRACEFS,
            NETNS,
        ],
        _ => &[BTF, TRACEFS, NETNS],
    }
}

fn write_examples(command: &str, page: &mut Vec<u8>) {
    let mut section = Roff::new();
    section.control("SH", ["EXAMPLES"]);
    for example in examples(command) {
        section.control("TP", []);
        section.text([bold(example.line)]);
        section.text([roman(format!("{}.", example.about))]);
    }
    section.to_writer(page).expect("a write to a vector does not fail");
}

/// Appends a section of terms with their meanings, unless there are none.
fn write_terms(title: &str, terms: &[(&str, &str)], page: &mut Vec<u8>) {
    if terms.is_empty() {
        return;
    }
    let mut section = Roff::new();
    section.control("SH", [title]);
    for (term, meaning) in terms {
        section.control("TP", []);
        section.text([bold(*term)]);
        section.text([roman(*meaning)]);
    }
    section.to_writer(page).expect("a write to a vector does not fail");
}

/// Appends the references to the other pages, and to tools that answer related questions.
fn write_see_also(command: &Command, definition: &Command, page: &mut Vec<u8>) {
    let name = |command: &Command| command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let own = std::iter::once(definition).chain(definition.get_subcommands());
    let others = own.map(name).filter(|other| *other != name(command)).map(|name| (name, 1));
    let tools = [("ss".to_owned(), 8), ("tcpdump".to_owned(), 8)];
    let all: Vec<(String, u8)> = others.chain(tools).collect();
    let last = all.len() - 1;
    let mut references = Vec::new();
    for (index, (name, section)) in all.into_iter().enumerate() {
        references
            .extend([bold(name), roman(format!("({section}){}", if index < last { ", " } else { "" }))]);
    }
    let mut section = Roff::new();
    section.control("SH", ["SEE ALSO"]);
    section.text(references);
    section.to_writer(page).expect("a write to a vector does not fail");
}

/// Returns the row types that a command writes, with their fields.
fn row_types(command: &str) -> Vec<(&'static str, &'static [Field])> {
    let connection = ("connection", ConnectionRow::FIELDS);
    let transition = ("transition", TransitionRow::FIELDS);
    match command {
        "connections" => vec![connection],
        "transitions" => vec![transition],
        "export" => vec![connection, transition, ("open_connection", OpenConnectionRow::FIELDS)],
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
        "top" => vec![("A SAVED VIEW", SavedView::FIELDS)],
        "stuck" => vec![("stuck_group", GroupRow::FIELDS), ("stuck", StuckRow::FIELDS)],
        _ => Vec::new(),
    }
}

/// Appends a section that lists the fields of a row type, and the fields of their lists.
fn write_fields(title: &str, fields: &[Field], page: &mut Vec<u8>) {
    let mut section = Roff::new();
    section.control("SH", [format!("FIELDS OF {title}").as_str()]);
    list_fields("", fields, &mut section);
    section.to_writer(page).expect("a write to a vector does not fail");
}

/// Lists fields, and below each list the fields of its items.
fn list_fields(prefix: &str, fields: &[Field], section: &mut Roff) {
    for field in fields {
        list_field(prefix, field, section);
        if let FieldKind::List(items) = field.kind {
            list_fields(&format!("{prefix}{}[].", field.name), items, section);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the text of a page. Roff escapes `-` as `\\-`.
    fn read(page: &Page) -> String {
        String::from_utf8_lossy(&page.text).replace("\\-", "-")
    }

    #[test]
    fn every_command_has_a_page_with_every_option() {
        let definition = documented();
        let pages = pages();
        let commands: Vec<&Command> =
            std::iter::once(&definition).chain(definition.get_subcommands()).collect();
        assert_eq!(pages.len(), commands.len());
        for (page, command) in pages.iter().zip(commands) {
            let (name, text) = (&page.file, read(page));
            assert!(name.trim_end_matches(".1").ends_with(command.get_name()), "{name}");
            for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
                let Some(long) = option.get_long() else { continue };
                assert!(text.contains(&format!("--{long}")), "{name} lacks --{long}");
                let listed = !option.is_hide_possible_values_set();
                for value in option.get_possible_values().into_iter().filter(|_| listed) {
                    let value = value.get_name();
                    assert!(text.contains(value), "{name}: --{long} lacks {value}");
                }
            }
            for below in command.get_subcommands() {
                assert!(text.contains(below.get_name()), "{name} lacks the command {}", below.get_name());
            }
            for title in ["NAME", "SYNOPSIS", "EXAMPLES", "EXIT STATUS", "SEE ALSO"] {
                let heading = [format!(".SH {title}\n"), format!(".SH \"{title}\"\n")];
                assert!(heading.iter().any(|heading| text.contains(heading)), "{name} lacks {title}");
            }
        }
        let serve = pages.iter().find(|page| page.file == "tcptrace-bpf-serve.1").unwrap();
        for title in ["ENVIRONMENT", "FILES"] {
            assert!(read(serve).contains(&format!(".SH {title}\n")), "{title}");
        }
    }

    #[test]
    fn pages_list_the_fields_of_their_rows() {
        for page in pages() {
            let command = page.file.trim_start_matches("tcptrace-bpf-").trim_end_matches(".1");
            let text = read(&page);
            for field in row_types(command).into_iter().flat_map(|(_, fields)| fields) {
                assert!(text.contains(field.name), "{} lacks {}", page.file, field.name);
            }
            assert!(!text.contains("]("), "{} has a link in Markdown", page.file);
        }
        assert_eq!(without_links("see [a](b.md) and [c](#d)."), "see a and c.");
    }

    #[test]
    fn the_page_of_top_has_its_keys_and_the_saved_view() {
        let page = pages().into_iter().find(|page| page.file == "tcptrace-bpf-top.1").unwrap();
        let text = read(&page);
        for part in [
            ".SH KEYS",
            "save the view as JSON",
            "connections[].bytes_sent_per_second",
            "connections[].states[].duration_us",
            "tcptrace-bpf-top-TIME.json",
        ] {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }

    #[test]
    fn pages_are_reproducible() {
        for (first, second) in pages().into_iter().zip(pages()) {
            assert_eq!((first.file, first.text), (second.file, second.text));
        }
    }
}
