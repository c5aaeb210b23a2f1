//! The report of `compare` as text.

use std::fmt;

use tracer_core::analysis::{CompareReport, ComparedGroup, Measure, Verdict};

use crate::report::{
    row::Row as _,
    rows::{comparison::ComparisonRow, shift::ShiftRow},
    text::{
        comparison::measure_text,
        handshake::group_text,
        marks::verdict_mark,
        style::{Mark, Palette},
        table::append_line,
        table_style::TableStyle,
    },
};

/// Most groups in the first line.
const NAMED: usize = 3;

/// Options of the report.
#[derive(Clone, Copy, Debug)]
pub struct CompareTable {
    /// The most groups to list.
    pub groups: usize,
    /// The look. Wide, it has the measures with too few events, and close reasons without a claim.
    pub style: TableStyle,
}

impl CompareTable {
    /// Writes the report: the answer in one line, the number of tests, and the measures of each group.
    ///
    /// # Errors
    ///
    /// None: writing to a string does not fail.
    pub fn write(
        &self,
        comparison: &ComparisonRow<'_>,
        report: &CompareReport<'_>,
        text: &mut String,
    ) -> fmt::Result {
        let style = self.style;
        text.push_str(&style.width.wrapped(&answer(report, style.palette), 2));
        text.push('\n');
        text.push_str(&style.width.wrapped(&extent(comparison, report), 2));
        text.push('\n');
        let listed = report.groups.iter().take(self.groups);
        let shifts = listed.flat_map(|group| group.shifts.iter().map(move |shift| (group.key, shift)));
        let mut shifts = shifts
            .filter(|(_, shift)| {
                let is_minor =
                    shift.verdict == Verdict::TooFew || matches!(shift.measure, Measure::CloseReason(_));
                style.width.is_wide() || shift.verdict.is_claim() || !is_minor
            })
            .peekable();
        if shifts.peek().is_none() {
            return Ok(());
        }
        text.push('\n');
        append_line(text, style.width, |line| ShiftRow::header(line, style))?;
        for (key, shift) in shifts {
            let row = ShiftRow::new(key, shift);
            append_line(text, style.width, |line| row.line(line, style))?;
        }
        Ok(())
    }
}

/// Returns the answer: which groups became worse, and which better.
fn answer(report: &CompareReport<'_>, palette: Palette) -> String {
    let named = |verdict: Verdict| {
        let groups: Vec<&ComparedGroup<'_>> = report
            .groups
            .iter()
            .filter(|group| group.shifts.iter().any(|shift| shift.verdict == verdict))
            .collect();
        let mut names: Vec<String> = groups.iter().take(NAMED).map(|group| name(group, verdict)).collect();
        if groups.len() > NAMED {
            names.push(format!("and {} more", groups.len() - NAMED));
        }
        (!names.is_empty()).then(|| names.join(", "))
    };
    let parts: Vec<String> =
        [("Worse", Verdict::Worse), ("Better", Verdict::Better), ("Changed", Verdict::Changed)]
            .into_iter()
            .filter_map(|(word, verdict)| {
                let word = palette.painted(format!("{word}:"), verdict_mark(verdict));
                Some(format!("{word} {}", named(verdict)?))
            })
            .collect();
    if parts.is_empty() { palette.painted("No shift is proven", Mark::Good) } else { parts.join("; ") }
}

fn name(group: &ComparedGroup<'_>, verdict: Verdict) -> String {
    let measures: Vec<String> = group
        .shifts
        .iter()
        .filter(|shift| shift.verdict == verdict)
        .map(|shift| measure_text(shift.measure))
        .collect();
    format!("{} ({})", group_text(group.key), measures.join(", "))
}

/// Returns what was compared.
fn extent(comparison: &ComparisonRow<'_>, report: &CompareReport<'_>) -> String {
    let (before, after) = comparison.handshakes();
    let mut parts = vec![format!(
        "Handshakes: {before} before, {after} after; groups: {} in both, {} only before, {} only after; tests: {}",
        report.groups.len(),
        report.only_before,
        report.only_after,
        report.tests
    )];
    if comparison.beyond_limit() > 0 {
        parts.push(format!("beyond the limit and not compared: {}", comparison.beyond_limit()));
    }
    parts.join("; ")
}
