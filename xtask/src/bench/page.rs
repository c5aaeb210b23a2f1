//! Renders the report in Markdown: `docs/performance.md`.

use std::fmt::Write as _;

const HEAD: &str = "\
<!-- Written by `cargo xtask bench --write`; do not edit. -->
# Performance

`cargo xtask bench` measured the cost of tracing on the machine below. Every figure is a median. After several runs,
brackets show the minimum and the maximum. Other load on the machine makes the figures less reliable.
`sudo -E cargo xtask bench` repeats all measurements; with `--quick` it takes a few minutes.
";

/// A table.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates an empty table with the given columns.
    pub(super) fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn write(&self, page: &mut String) {
        for (index, row) in self.rows.iter().enumerate() {
            page.push_str("| ");
            page.push_str(&row.join(" | "));
            page.push_str(" |\n");
            if index == 0 {
                page.push_str(&"|---".repeat(row.len()));
                page.push_str("|\n");
            }
        }
    }
}

/// A target and its measured value.
#[derive(Debug)]
pub(super) struct Target {
    what: String,
    wanted: String,
    found: String,
    met: Option<bool>,
    /// Value of an empty program, if it also misses the target.
    least: Option<String>,
}

impl Target {
    /// Creates a target with an upper limit.
    pub(super) fn at_most(what: impl Into<String>, limit: f64, found: f64, unit: &str) -> Self {
        Self::new(what, format!("at most {}", amount(limit, unit)), found, unit, found <= limit)
    }

    /// Creates a target with a lower limit.
    pub(super) fn at_least(what: impl Into<String>, limit: f64, found: f64, unit: &str) -> Self {
        Self::new(what, format!("at least {}", amount(limit, unit)), found, unit, found >= limit)
    }

    /// Creates a target for a command that this build does not have.
    pub(super) fn not_in_this_build(what: impl Into<String>, wanted: &str) -> Self {
        Self {
            what: what.into(),
            wanted: wanted.to_owned(),
            found: "not in this build".to_owned(),
            met: None,
            least: None,
        }
    }

    fn new(what: impl Into<String>, wanted: String, found: f64, unit: &str, met: bool) -> Self {
        Self { what: what.into(), wanted, found: amount(found, unit), met: Some(met), least: None }
    }

    /// Adds the value of an empty program if it also misses the lower limit. No tracer on the same tracepoint can
    /// exceed it.
    pub(super) fn beside_an_empty_program(mut self, limit: f64, empty: f64) -> Self {
        self.least = (empty < limit).then(|| amount(empty, ""));
        self
    }

    fn row(&self) -> [String; 4] {
        let met = match self.met {
            Some(true) => "met".to_owned(),
            Some(false) => match &self.least {
                Some(least) => format!("**missed**; an empty program also misses it: {least}"),
                None => "**missed**".to_owned(),
            },
            None => "not measured".to_owned(),
        };
        [self.what.clone(), self.wanted.clone(), self.found.clone(), met]
    }
}

/// Formats a number with three significant digits.
fn amount(value: f64, unit: &str) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let blank = if unit.is_empty() { "" } else { " " };
    format!("{value:.decimals$}{blank}{unit}")
}

/// A section of the report.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// Heading.
    pub(super) title: &'static str,
    /// Method and notes.
    pub(super) text: String,
    /// Results.
    pub(super) tables: Vec<Table>,
    /// Targets.
    pub(super) targets: Vec<Target>,
}

/// Renders the page.
pub(super) fn write(machine: &Table, sections: &[Section]) -> String {
    let mut page = HEAD.to_owned();
    page.push('\n');
    machine.write(&mut page);
    let mut targets = Table::new(&["quantity", "target", "measured", "result"]);
    for target in sections.iter().flat_map(|section| &section.targets) {
        targets.row(target.row());
    }
    page.push_str("\n## Targets\n\n");
    targets.write(&mut page);
    for section in sections {
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## {}\n\n{}\n", section.title, section.text.trim_end());
        for table in &section.tables {
            page.push('\n');
            table.write(&mut page);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_report_whether_they_are_met() {
        assert_eq!(
            Target::at_most("a", 120.0, 133.4, "ns").row(),
            ["a", "at most 120 ns", "133 ns", "**missed**"]
        );
        assert_eq!(Target::at_least("b", 0.97, 0.981, "").row(), ["b", "at least 0.97", "0.98", "met"]);
        let beside = |kept, empty| {
            Target::at_least("b", 0.97, kept, "").beside_an_empty_program(0.97, empty).row()[3].clone()
        };
        assert_eq!(beside(0.92, 0.913), "**missed**; an empty program also misses it: 0.91");
        assert_eq!(beside(0.92, 0.99), "**missed**");
        assert_eq!(beside(0.98, 0.91), "met");
        assert_eq!(
            Target::not_in_this_build("c", "at most 1").row()[2..],
            ["not in this build", "not measured"]
        );
    }

    #[test]
    fn a_page_has_the_sections_and_their_tables() {
        let mut table = Table::new(&["x", "y"]);
        table.row(["1".to_owned(), "2".to_owned()]);
        let section =
            Section { title: "Part", text: "How.".to_owned(), tables: vec![table], targets: Vec::new() };
        let page = write(&Table::new(&["", "machine"]), &[section]);
        assert!(page.ends_with("## Part\n\nHow.\n\n| x | y |\n|---|---|\n| 1 | 2 |\n"), "{page}");
    }
}
