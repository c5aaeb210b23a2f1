//! Time in the kernel for each transition, by the kernel's own statistics of BPF programs.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{
    Bench,
    load::{self, Load},
    numbers::Sample,
    page::{Section, Table, Target},
    programs::Programs,
    running::{self, ProgramRuns, Running},
    tracers,
};

/// Above what an empty program costs on the same hook, nanoseconds.
const LIMIT_NS: f64 = 120.0;

/// A program that does nothing on the same tracepoint, and the kernel's statistics switched on with it.
pub(super) struct EmptyProgram(Load);

#[derive(Deserialize)]
struct Attached {
    attached: bool,
}

impl EmptyProgram {
    /// Attaches it.
    pub(super) fn attach(programs: &Programs) -> Result<Self> {
        let mut load = Load::start(programs, &["empty-program"])?;
        let Attached { attached } = load.answer()?;
        ensure!(attached, "the empty program is not attached");
        Ok(Self(load))
    }

    /// Its runs so far: every transition of the host is one, or is skipped.
    pub(super) fn runs(&self) -> Result<ProgramRuns> {
        running::programs_of(self.0.id()).first().copied().context("the empty program is not there any more")
    }
}

/// One tracer's figures.
#[derive(Default)]
struct Figures {
    per_transition: Sample,
    above_empty: Sample,
    skipped: Sample,
}

/// Measures every tracer.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let (own, missing) = tracers::own(&bench.programs);
    let mut empty = Sample::default();
    let mut table = Table::new(&["tracer", "ns per transition", "above empty", "skipped of a million"]);
    let mut targets = Vec::new();
    for tracer in own.iter().chain(tracers::PEERS) {
        let mut figures = Figures::default();
        for _ in 0..bench.scale(5, 2) {
            one(bench, &mut tracer.command(&bench.programs), &mut empty, &mut figures)?;
        }
        table.row([
            tracer.name.to_owned(),
            figures.per_transition.text(0),
            figures.above_empty.text(0),
            format!("{:.0}", figures.skipped.median()),
        ]);
        if tracer.ours {
            let what = format!("kernel time per transition above an empty program, {}", tracer.name);
            targets.push(Target::at_most(what, LIMIT_NS, figures.above_empty.median(), "ns"));
        }
    }
    targets.extend(missing.iter().map(|command| {
        let what = format!("kernel time per transition above an empty program, tcptrace-bpf {command}");
        Target::not_in_this_build(what, "at most 120 ns")
    }));
    table.row(["an empty program".to_owned(), empty.text(0), String::new(), String::new()]);
    Ok(Section {
        title: "Time in the kernel",
        text: "By the kernel's statistics of BPF programs (`run_time_ns`), all programs of a tracer together, for each \
             transition of the host. The statistics' own cost is in every figure, so each run has an empty program on \
             the same tracepoint beside the tracer, and what is above it counts."
            .to_owned(),
        tables: vec![table],
        targets,
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn one(bench: &Bench, command: &mut Command, empty: &mut Sample, figures: &mut Figures) -> Result<()> {
    let nothing = EmptyProgram::attach(&bench.programs)?;
    let running = Running::start(command)?;
    let (nothing_before, before) = (nothing.runs()?, total(&running)?);
    load::churn(&bench.programs, bench.scale(20_000, 5_000), None)?;
    let (nothing_after, after) = (nothing.runs()?, total(&running)?);
    running.interrupt()?;

    let transitions = (nothing_after.count - nothing_before.count) as f64;
    let nothing = (nothing_after.time - nothing_before.time) as f64 / transitions;
    let ours = (after.time - before.time) as f64 / transitions;
    empty.push(nothing);
    figures.per_transition.push(ours);
    figures.above_empty.push(ours - nothing);
    figures.skipped.push((after.skipped - before.skipped) as f64 / transitions * 1e6);
    Ok(())
}

fn total(running: &Running) -> Result<ProgramRuns> {
    Ok(running.programs()?.into_iter().fold(ProgramRuns::default(), |sum, one| ProgramRuns {
        time: sum.time + one.time,
        count: sum.count + one.count,
        skipped: sum.skipped + one.skipped,
    }))
}
