//! `doctor`: checks what this kernel and these privileges support.

use std::io::{self, Write as _};

use serde::Serialize;
use tracer_core::escape::escape;

use crate::{
    cli::Shared,
    commands::table_style,
    report::{Format, Mark, TableStyle},
    sources::live::probe::{self, Check, Finding},
};

#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    name: &'a str,
    found: bool,
    detail: &'a str,
    cost: Option<&'a str>,
}

pub(super) fn run(shared: &Shared) -> anyhow::Result<()> {
    let checks = probe::all();
    match write(&checks, shared.output, table_style::of_stdout(shared)) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Columns before the detail of a check in the table.
const BEFORE_DETAIL: usize = 33;

fn write(checks: &[Check], format: Format, style: TableStyle) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if format == Format::Csv {
        writeln!(out, "type,name,found,detail,cost")?;
    }
    for check in checks {
        let (found, detail) = match &check.finding {
            Finding::Found(detail) => (true, escape(detail.as_bytes())),
            Finding::Missing(reason) => (false, escape(reason.as_bytes())),
        };
        let cost = (!found).then_some(check.cost);
        match format {
            Format::Json => {
                let line = Line { r#type: "check", name: check.name, found, detail: &detail, cost };
                serde_json::to_writer(&mut out, &line)?;
                writeln!(out)?;
            }
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(&mut out);
                let found = if found { "true" } else { "false" };
                writer.write_record(["check", check.name, found, &detail, cost.unwrap_or_default()])?;
                writer.flush()?;
            }
            Format::Table | Format::Wide => {
                // The spaces behind the words are not styled.
                let (word, mark) = if found { ("found", Mark::Good) } else { ("missing", Mark::Bad) };
                let gap = " ".repeat("missing  ".len() - word.len());
                let word = style.palette.painted(word, mark);
                let line = format!("{word}{gap}{:<23} {detail}", check.name);
                writeln!(out, "{}", style.width.wrapped(&line, BEFORE_DETAIL))?;
                if let Some(cost) = cost {
                    let line = format!("{:BEFORE_DETAIL$}costs: {cost}", "");
                    writeln!(out, "{}", style.width.wrapped(&line, BEFORE_DETAIL))?;
                }
            }
        }
    }
    out.flush()
}
