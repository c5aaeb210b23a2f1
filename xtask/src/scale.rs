//! `cargo xtask scale`: from one host to a fleet, by arithmetic on what the code and docs/metrics.md say.

mod fleet;
mod host;
mod reference;
mod table;

use std::{
    fs,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::workspace::Workspace;
use reference::Reference;

/// Computes the tables of docs/scale.md and prints them.
///
/// Nothing is measured here. What the tables take from measurements stands in the first of them.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Write the tables into docs/scale.md instead
    #[arg(long, conflicts_with = "check")]
    write: bool,

    /// Fail when docs/scale.md has other tables
    #[arg(long)]
    check: bool,
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let workspace = Workspace::find()?;
    let metrics = workspace.root().join("docs/metrics.md");
    let metrics =
        fs::read_to_string(&metrics).with_context(|| format!("could not read {}", metrics.display()))?;
    let tables = tables(&Reference::parse(&metrics)?)?;
    if !arguments.write && !arguments.check {
        let mut out = io::stdout().lock();
        for (name, table) in &tables {
            writeln!(out, "{name}\n\n{table}")?;
        }
        return Ok(());
    }
    let path = workspace.root().join("docs/scale.md");
    let page = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let computed = fill(&page, &tables)?;
    if arguments.write {
        return fs::write(&path, computed).with_context(|| format!("could not write {}", path.display()));
    }
    if computed != page {
        bail!(
            "docs/scale.md is not what the code and docs/metrics.md make of it: run `cargo xtask scale --write`"
        );
    }
    Ok(())
}

/// Every table with its name, in the order of the page.
fn tables(reference: &Reference) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("inputs", host::inputs()),
        ("hosts", host::hosts()),
        ("pauses", host::pauses()),
        ("memory", host::memory()),
        ("series", fleet::series(reference)),
        ("labels", fleet::labels(reference)?),
        ("prometheus", fleet::prometheus(reference)?),
        ("fleet", fleet::fleet(reference)),
    ])
}

/// The page with each table between its marks, `<!-- table NAME -->` and `<!-- end -->`.
fn fill(page: &str, tables: &[(&str, String)]) -> Result<String> {
    let mut text = String::new();
    let mut rest = page;
    for (name, table) in tables {
        let mark = format!("<!-- table {name} -->\n");
        let (before, after) = rest
            .split_once(&mark)
            .with_context(|| format!("docs/scale.md lacks the mark `{}`", mark.trim()))?;
        let (_, after) = after
            .split_once("<!-- end -->")
            .with_context(|| format!("the table {name} of docs/scale.md has no end"))?;
        text.push_str(before);
        text.push_str(&mark);
        text.push_str(table);
        text.push_str("<!-- end -->");
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn document(name: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn the_page_has_the_computed_tables() {
        let page = document("scale.md");
        let tables = tables(&Reference::parse(&document("metrics.md")).unwrap()).unwrap();
        let computed = fill(&page, &tables).unwrap();
        for (there, wanted) in page.lines().zip(computed.lines()) {
            assert_eq!(there, wanted, "run `cargo xtask scale --write`");
        }
        assert_eq!(page.lines().count(), computed.lines().count(), "run `cargo xtask scale --write`");
    }

    #[test]
    fn a_mark_that_is_missing_is_named() {
        let tables = [("one", "| 1 |\n".to_owned()), ("two", "| 2 |\n".to_owned())];
        let page = "a\n<!-- table one -->\nold\n<!-- end -->\nb\n";
        let error = fill(page, &tables).unwrap_err().to_string();
        assert!(error.contains("<!-- table two -->"), "{error}");
        let filled = fill(&format!("{page}<!-- table two --><!-- end -->"), &tables[..1]).unwrap();
        assert_eq!(filled, "a\n<!-- table one -->\n| 1 |\n<!-- end -->\nb\n<!-- table two --><!-- end -->");
    }
}
