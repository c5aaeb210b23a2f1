//! The documents, and their headings, tables and code spans.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::markdown::code;

pub(crate) const DOCUMENTS: [&str; 34] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "deploy/helm/tcptrace-bpf/README.md",
    "deploy/kubernetes/README.md",
    "docs/accuracy.md",
    "docs/close-reasons.md",
    "docs/compare.md",
    "docs/connections.md",
    "docs/diagram.md",
    "docs/doctor.md",
    "docs/handshake-durations.md",
    "docs/handshakes.md",
    "docs/index.md",
    "docs/install.md",
    "docs/limitations.md",
    "docs/listeners.md",
    "docs/lost-handshakes.md",
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
    "docs/troubleshooting.md",
];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace").to_owned()
}

pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the level and the text of a heading.
pub(crate) fn heading(line: &str) -> Option<(usize, &str)> {
    let text = line.trim_start_matches('#');
    let level = line.len() - text.len();
    (level > 0 && text.starts_with(' ')).then(|| (level, text.trim()))
}

/// Returns the text below a heading, up to the next heading of the same or a higher level.
pub(crate) fn section(text: &str, title: &str) -> String {
    let mut lines = text.lines().skip_while(|line| heading(line).is_none_or(|(_, it)| it != title));
    let level = lines.next().and_then(heading).unwrap_or_else(|| panic!("no heading `{title}`")).0;
    let body: Vec<&str> =
        lines.take_while(|line| heading(line).is_none_or(|(deeper, _)| deeper > level)).collect();
    body.join("\n")
}

/// Returns the names in the first column.
pub(crate) fn names(rows: &[Vec<String>]) -> Vec<String> {
    rows.iter().map(|row| code(&row[0]).first().unwrap_or(&row[0]).clone()).collect()
}

/// Returns the row with this name.
pub(crate) fn row<'a>(rows: &'a [Vec<String>], name: &str) -> &'a [String] {
    rows.iter()
        .find(|row| code(&row[0]).iter().any(|it| it == name))
        .unwrap_or_else(|| panic!("no row `{name}`"))
}

/// Returns the lines of the first sample on a page.
pub(crate) fn sample(page: &str) -> Vec<String> {
    let text = read(page);
    let block = text.split("```text\n").nth(1).and_then(|rest| rest.split("```").next());
    block
        .unwrap_or_else(|| panic!("{page} has no sample"))
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect()
}
