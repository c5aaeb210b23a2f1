//! Compares the documentation with the program: fields, reasons, sources, caveats, options, names.
//!
//! These tests need the source tree and no kernel support. `cargo xtask vm` runs static builds on machines
//! without the source tree, so static builds omit these tests.
#![cfg(not(target_feature = "crt-static"))]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::{CommandFactory as _, Parser as _};
use tcptrace_bpf::{
    cli::Cli,
    host::Runtime,
    recording::{BATCH_ROWS, COLUMNS, Header, Kind},
    report::{
        ConnectionRow, DiagramEdgeRow, DiagramStateRow, Field, FieldKind, Fields as _, Format, GroupRow,
        HandshakeBucketRow, HandshakeGroupRow, Row, Sink, SlowHandshakeRow, StuckRow, Summary, TimeStyle,
        TransitionRow,
    },
    sources::live::Hook,
};
use tracer_core::{
    event::{Nanos, SourceCounts, TcpState},
    lifecycle::{
        Age, CloseReason, ClosedBy, DurationSource, HandshakeCaveat, Role, Thresholds, TrackerCounts,
    },
    owner::OwnerSource,
};

const DOCUMENTS: [&str; 26] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/accuracy.md",
    "docs/close-reasons.md",
    "docs/connections.md",
    "docs/diagram.md",
    "docs/doctor.md",
    "docs/handshake-durations.md",
    "docs/handshakes.md",
    "docs/index.md",
    "docs/limitations.md",
    "docs/metrics.md",
    "docs/modes.md",
    "docs/operating.md",
    "docs/options.md",
    "docs/output.md",
    "docs/performance.md",
    "docs/recordings.md",
    "docs/requirements.md",
    "docs/scale.md",
    "docs/slow-handshakes.md",
    "docs/stuck.md",
    "docs/top.md",
    "docs/transitions.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace").to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the level and the text of a heading.
fn heading(line: &str) -> Option<(usize, &str)> {
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    (level > 0 && text.starts_with(' ')).then(|| (level, text.trim()))
}

/// Returns the text below a heading, up to the next heading of the same or a higher level.
fn section(text: &str, title: &str) -> String {
    let mut lines = text.lines().skip_while(|line| heading(line).is_none_or(|(_, it)| it != title));
    let level = lines.next().and_then(heading).unwrap_or_else(|| panic!("no heading `{title}`")).0;
    let body: Vec<&str> =
        lines.take_while(|line| heading(line).is_none_or(|(deeper, _)| deeper > level)).collect();
    body.join("\n")
}

/// Returns the rows of the first table whose first column has this title.
fn table(text: &str, title: &str) -> Vec<Vec<String>> {
    let rows: Vec<Vec<String>> = text
        .lines()
        .skip_while(|line| cells(line).first().is_none_or(|first| first != title))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect();
    assert!(!rows.is_empty(), "no table whose first column is `{title}`");
    rows
}

fn cells(line: &str) -> Vec<String> {
    let Some(inner) = line.strip_prefix('|').and_then(|line| line.trim_end().strip_suffix('|')) else {
        return Vec::new();
    };
    // `\|` is a literal bar inside a cell.
    let inner = inner.replace("\\|", "\0");
    inner.split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// Returns the code spans.
fn code(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the names in the first column.
fn names(rows: &[Vec<String>]) -> Vec<String> {
    rows.iter().map(|row| code(&row[0]).first().unwrap_or(&row[0]).clone()).collect()
}

/// Returns the row with this name.
fn row<'a>(rows: &'a [Vec<String>], name: &str) -> &'a [String] {
    rows.iter()
        .find(|row| code(&row[0]).iter().any(|it| it == name))
        .unwrap_or_else(|| panic!("no row `{name}`"))
}

/// Sections of docs/output.md and the fields of their tables.
fn field_tables() -> [(&'static str, &'static [Field]); 10] {
    let states = ConnectionRow::FIELDS.iter().find_map(|field| match field.kind {
        FieldKind::List(fields) => Some(fields),
        _ => None,
    });
    [
        ("`connection`", ConnectionRow::FIELDS),
        ("States", states.expect("a connection has states")),
        ("`transition`", TransitionRow::FIELDS),
        ("`handshake_group`", HandshakeGroupRow::FIELDS),
        ("`handshake_slow`", SlowHandshakeRow::FIELDS),
        ("`handshake_bucket`", HandshakeBucketRow::FIELDS),
        ("`diagram_edge`", DiagramEdgeRow::FIELDS),
        ("`diagram_state`", DiagramStateRow::FIELDS),
        ("`stuck_group`", GroupRow::FIELDS),
        ("`stuck`", StuckRow::FIELDS),
    ]
}

/// Replaces the lines of the first table below a heading by the table of `fields`.
fn with_field_table(page: &str, title: &str, fields: &[Field]) -> String {
    let mut lines: Vec<String> = page.lines().map(str::to_owned).collect();
    let heading = lines.iter().position(|line| heading(line).is_some_and(|(_, it)| it == title));
    let heading = heading.unwrap_or_else(|| panic!("no heading `{title}`"));
    let start = heading + lines[heading..].iter().take_while(|line| !line.starts_with("| field |")).count();
    let length = lines[start..].iter().take_while(|line| line.starts_with('|')).count();
    let rows = fields.iter().map(|field| {
        let Field { name, kind, unit, meaning } = field;
        format!("| `{name}` | {} | {unit} | {meaning} |", kind.name()).replace("|  |", "| |")
    });
    let head = ["| field | type | unit | meaning |", "|---|---|---|---|"].map(str::to_owned);
    lines.splice(start..start + length, head.into_iter().chain(rows));
    lines.join("\n") + "\n"
}

/// Rewrites the tables if `UPDATE_DOCS` is set.
#[test]
fn field_tables_are_generated_from_the_rows() {
    let page = read("docs/output.md");
    let mut generated = page.clone();
    for (title, fields) in field_tables() {
        generated = with_field_table(&generated, title, fields);
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join("docs/output.md"), generated).expect("the page can be written");
    } else {
        assert!(page == generated, "docs/output.md is out of date: UPDATE_DOCS=1 cargo test --test docs");
    }
}

#[test]
fn the_example_has_every_field() {
    let text = section(&read("docs/output.md"), "An example");
    let json = text.split("```").nth(1).and_then(|block| block.strip_prefix("json")).unwrap();
    let example: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).unwrap();
    let names: Vec<&str> = ConnectionRow::FIELDS.iter().map(|field| field.name).collect();
    assert_eq!(example.keys().collect::<Vec<_>>(), names);
}

#[test]
fn the_documented_checks_match_doctor() {
    // Without privileges more checks fail, but the list of checks is the same.
    let output =
        Command::new(env!("CARGO_BIN_EXE_tcptrace-bpf")).args(["doctor", "-o", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let checks: Vec<serde_json::Map<String, serde_json::Value>> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();

    let fields = table(&section(&read("docs/output.md"), "`check`"), "field");
    for check in &checks {
        assert_eq!(check.keys().cloned().collect::<Vec<_>>(), names(&fields));
    }
    let documented = names(&table(&section(&read("docs/requirements.md"), "What `doctor` checks"), "name"));
    let found: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!(documented, found);
}

#[test]
fn close_reasons_and_failures_are_documented() {
    let text = read("docs/close-reasons.md");
    let rows = table(&text, "reason");
    assert_eq!(names(&rows), CloseReason::ALL.map(CloseReason::name));
    for reason in CloseReason::ALL {
        let failure = if reason.is_failure() { "yes" } else { "no" };
        assert_eq!(row(&rows, reason.name())[1], failure, "{reason:?}");
    }
    let closers = [ClosedBy::Local, ClosedBy::Remote, ClosedBy::Both];
    for closer in closers {
        // A new variant fails to compile here; add it to the list above.
        match closer {
            ClosedBy::Local | ClosedBy::Remote | ClosedBy::Both => {}
        }
    }
    assert_eq!(names(&table(&text, "value")), closers.map(ClosedBy::name));
}

#[test]
fn owner_sources_are_documented() {
    let rows = table(&section(&read("docs/output.md"), "Owners"), "source");
    let documented: BTreeSet<String> = names(&rows).into_iter().collect();
    assert_eq!(documented, OwnerSource::ALL.map(|source| source.name().to_owned()).into());
}

#[test]
fn handshake_caveats_are_documented() {
    let caveats = [
        HandshakeCaveat::SynAckRetransmitted,
        HandshakeCaveat::RetransmitSchedule,
        HandshakeCaveat::SynCookie,
        HandshakeCaveat::FirstData,
        HandshakeCaveat::FastOpenDeferred,
    ];
    for caveat in caveats {
        match caveat {
            HandshakeCaveat::SynAckRetransmitted
            | HandshakeCaveat::RetransmitSchedule
            | HandshakeCaveat::SynCookie
            | HandshakeCaveat::FirstData
            | HandshakeCaveat::FastOpenDeferred => {}
        }
    }
    let rows = table(&section(&read("docs/handshake-durations.md"), "Caveats"), "caveat");
    assert_eq!(names(&rows), caveats.map(HandshakeCaveat::name));
}

#[test]
fn value_names_are_listed_at_their_field() {
    let roles = [Role::Client, Role::Server, Role::Simultaneous, Role::Unknown];
    for role in roles {
        match role {
            Role::Client | Role::Server | Role::Simultaneous | Role::Unknown => {}
        }
    }
    let sources = [DurationSource::Observed, DurationSource::Measured, DurationSource::Modelled];
    for source in sources {
        match source {
            DurationSource::Observed | DurationSource::Measured | DurationSource::Modelled => {}
        }
    }
    let runtimes = [
        Runtime::Docker,
        Runtime::Containerd,
        Runtime::CriO,
        Runtime::Podman,
        Runtime::Lxc,
        Runtime::Nspawn,
        Runtime::Unnamed,
    ];
    for runtime in runtimes {
        match runtime {
            Runtime::Docker
            | Runtime::Containerd
            | Runtime::CriO
            | Runtime::Podman
            | Runtime::Lxc
            | Runtime::Nspawn
            | Runtime::Unnamed => {}
        }
    }
    let text = read("docs/output.md");
    let connection = table(&section(&text, "`connection`"), "field");
    let stuck = table(&section(&text, "`stuck`"), "field");
    let span = table(&section(&text, "States"), "field");
    let listed = |rows: &[Vec<String>], field: &str| code(&row(rows, field)[3]);

    assert_eq!(listed(&connection, "role"), roles.map(Role::name));
    assert_eq!(listed(&connection, "handshake_source")[1..], sources.map(DurationSource::name));
    assert_eq!(listed(&connection, "container_runtime"), runtimes.map(Runtime::name));
    assert_eq!(
        listed(&stuck, "age_source"),
        [Age::Observed(Nanos::ZERO), Age::AtLeast(Nanos::ZERO)].map(Age::source)
    );
    let spans = listed(&span, "source");
    for source in sources {
        assert!(spans.iter().any(|name| name == source.name()), "{source:?} not in {spans:?}");
    }
    for state in TcpState::ALL {
        assert!(text.contains(&format!("`{}`", state.name())), "{state:?}");
    }
}

#[test]
fn hooks_are_documented() {
    let text = section(&read("docs/modes.md"), "Additional hooks");
    let targets: Vec<String> =
        table(&text, "name in `doctor`").iter().flat_map(|row| code(&row[1])).collect();
    assert_eq!(targets, Hook::ALL.map(Hook::target));
}

#[test]
fn every_part_of_the_summary_is_documented() {
    let source = SourceCounts {
        seen: 1,
        lost: 2,
        skipped: Some(3),
        others_lost: 4,
        resyncs: 5,
        malformed: 6,
        recovered: 7,
        duplicates: 8,
    };
    let tracker = TrackerCounts {
        transitions: 1,
        closed: 2,
        evicted: 3,
        unmatched: 4,
        gaps: 5,
        unseen_closes: 6,
        existing: 7,
        syn_ack_retransmits: 8,
        abandoned_handshakes: 9,
        unfollowed: 10,
        time_wait_reused: 11,
    };
    let summary = Summary { source, tracker, live: 6 }.to_string();
    let parts: Vec<&str> =
        summary.split(", ").map(|part| part.split_once(' ').expect("a number and a name").1).collect();
    let rows = table(&section(&read("docs/output.md"), "The summary"), "part");
    assert_eq!(names(&rows), parts);
}

#[test]
fn the_recordings_page_matches_the_schema() {
    let text = read("docs/recordings.md");
    let documented = table(&section(&text, "Columns"), "column");
    assert_eq!(names(&documented), COLUMNS.map(|column| column.name));
    for (row, column) in documented.iter().zip(COLUMNS) {
        assert_eq!(row[1..], [column.kind.name(), column.unit, column.about], "{}", column.name);
    }
    assert_eq!(names(&table(&section(&text, "Kinds"), "kind")), Kind::ALL.map(Kind::name));
    assert_eq!(names(&table(&section(&text, "Metadata"), "key")), Header::KEYS);
    let rows = BATCH_ROWS.to_string();
    let (thousands, rest) = rows.split_at(rows.len() - 3);
    assert!(text.contains(&format!("{thousands},{rest} rows")), "{rows}");
}

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

/// Returns the lines of the first sample on a page.
fn sample(page: &str) -> Vec<String> {
    let text = read(page);
    let block = text.split("```text\n").nth(1).and_then(|rest| rest.split("```").next());
    block
        .unwrap_or_else(|| panic!("{page} has no sample"))
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// Returns the header line of a table.
fn head<R: Row>(wide: bool) -> String {
    let mut written = Vec::new();
    let format = if wide { Format::Wide } else { Format::Table };
    Sink::new(&mut written, format, TimeStyle::Utc).begin::<R>().expect("a vector takes everything");
    String::from_utf8(written).expect("a table is text").trim_end().to_owned()
}

#[test]
fn samples_have_the_current_headers() {
    assert_eq!(sample("README.md")[0], head::<ConnectionRow>(false));
    assert_eq!(sample("docs/connections.md")[0], head::<ConnectionRow>(false));
    assert_eq!(sample("docs/transitions.md")[0], head::<TransitionRow>(false));
    assert_eq!(sample("docs/stuck.md")[0], head::<StuckRow>(false));
    // The page explains every column.
    for (page, head) in [
        ("docs/connections.md", head::<ConnectionRow>(false)),
        ("docs/transitions.md", head::<TransitionRow>(false)),
    ] {
        let explained = names(&table(&read(page), "column"));
        let explained: Vec<&str> =
            explained.iter().flat_map(|name| name.split([',', ' '])).filter(|it| !it.is_empty()).collect();
        let written: Vec<&str> = head.split_whitespace().collect();
        assert_eq!(explained, written, "{page}");
    }
    // Every check is in the sample, marked `found` or `missing`.
    let checks = sample("docs/doctor.md");
    for name in names(&table(&section(&read("docs/requirements.md"), "What `doctor` checks"), "name")) {
        let reported = |line: &String| {
            ["found ", "missing "]
                .iter()
                .any(|word| line.strip_prefix(word).is_some_and(|rest| rest.trim_start().starts_with(&name)))
        };
        assert!(checks.iter().any(reported), "{name}");
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
    let values: Vec<String> =
        option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
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

#[test]
fn documented_command_lines_parse() {
    let mut count = 0;
    for name in DOCUMENTS {
        for line in read(name).split("```").skip(1).step_by(2).flat_map(str::lines) {
            let Some(line) = line.trim_start_matches("$ ").strip_prefix("sudo tcptrace-bpf") else {
                continue;
            };
            let own = line.split(['|', '>', '#']).next().unwrap();
            let arguments = ["tcptrace-bpf"].into_iter().chain(own.split_whitespace());
            if let Err(error) = Cli::try_parse_from(arguments) {
                panic!("{name}: {line}: {error}");
            }
            count += 1;
        }
    }
    assert!(count >= 7, "only {count} command lines were found");
}

#[test]
fn default_limits_of_stuck_are_documented() {
    let thresholds = Thresholds::default();
    let limited = |state: &TcpState| thresholds.of(*state).map(|limit| (state.name().to_owned(), limit));
    let expected: BTreeMap<String, Nanos> = TcpState::ALL.iter().filter_map(limited).collect();
    let mut documented = BTreeMap::new();
    for row in table(&read("docs/stuck.md"), "state") {
        let seconds: u64 = row[1].strip_suffix(" s").expect("a limit in seconds").parse().unwrap();
        documented.extend(code(&row[0]).into_iter().map(|state| (state, Nanos::from_secs(seconds))));
    }
    assert_eq!(documented, expected);
}

/// Every page of `docs/` is in the index.
#[test]
fn the_index_lists_every_page() {
    let index = read("docs/index.md");
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension() == Some(OsStr::new("md")) && name != "index.md" {
            assert!(index.contains(&format!("]({name}")), "{name}");
        }
    }
}

/// Returns the link anchor of a heading.
fn anchor(title: &str) -> String {
    title
        .to_lowercase()
        .chars()
        .filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'))
        .map(|it| if it == ' ' { '-' } else { it })
        .collect()
}

#[test]
fn links_resolve() {
    for name in DOCUMENTS {
        let text = read(name);
        let folder = root().join(name).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("https://") {
                continue;
            }
            let (path, wanted) = link.split_once('#').map_or((link, None), |(path, it)| (path, Some(it)));
            let target = if path.is_empty() { root().join(name) } else { folder.join(path) };
            assert!(target.exists(), "{name}: {link}");
            if let Some(wanted) = wanted {
                let text = fs::read_to_string(target).unwrap();
                let found = text.lines().filter_map(heading).any(|(_, title)| anchor(title) == wanted);
                assert!(found, "{name}: {link}");
            }
        }
    }
}

/// Lists every file and folder of the repository except build output, relative to its root.
fn files() -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the repository can be listed") {
            let path = entry.expect("the repository can be listed").path();
            let name = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
            if name == "target" || name == ".git" {
                continue;
            }
            found.push(format!("/{name}"));
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found
}

#[test]
fn mentioned_files_exist() {
    let files = files();
    for name in DOCUMENTS {
        // Code blocks contain commands and their output.
        let prose: String = read(name).split("```").step_by(2).collect();
        for word in code(&prose) {
            let extension = Path::new(&word).extension().and_then(OsStr::to_str);
            let is_source = extension.is_some_and(|it| ["md", "rs", "sh", "toml"].contains(&it));
            let is_folder = word.ends_with('/') && !word.starts_with('/');
            if !is_source && !is_folder && !word.starts_with(".ci/") {
                continue;
            }
            let end = format!("/{}", word.trim_end_matches('/'));
            assert!(
                files.iter().any(|file| file.ends_with(&end)),
                "{name} names `{word}`, which does not exist"
            );
        }
    }
}
