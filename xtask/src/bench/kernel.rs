//! Measures the run time of each tracer's BPF programs per transition, with the kernel's statistics.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{
    Bench,
    costs::Costs,
    load::{self, Load},
    numbers::Sample,
    page::{Section, Table, Target},
    programs::Programs,
    running::{self, ProgramRuns, Running},
    tracers,
};

/// Target, in nanoseconds above an empty program on the same hook.
const LIMIT_NS: f64 = 120.0;

/// A minimal BPF program on the same tracepoint, usually with the kernel's statistics enabled.
pub(super) struct BareProgram(Load);

#[derive(Deserialize)]
struct Attached {
    attached: bool,
}

impl BareProgram {
    /// Attaches a program that does nothing.
    pub(super) fn empty(programs: &Programs) -> Result<Self> {
        Self::attach(programs, &["empty-program"])
    }

    /// Attaches a program that does nothing, without the kernel's statistics.
    pub(super) fn uncounted(programs: &Programs) -> Result<Self> {
        Self::attach(programs, &["empty-program", "--uncounted"])
    }

    /// Attaches a program that only submits a record to a ring buffer.
    fn record(programs: &Programs) -> Result<Self> {
        Self::attach(programs, &["record-program"])
    }

    fn attach(programs: &Programs, load: &[&str]) -> Result<Self> {
        let mut load = Load::start(programs, load)?;
        let Attached { attached } = load.receive()?;
        ensure!(attached, "the program is not attached");
        Ok(Self(load))
    }

    /// Detaches the program.
    pub(super) fn end(self) -> Result<()> {
        self.0.end()
    }

    /// Returns the program's runs so far. Every transition of the host is a run or a skipped run.
    pub(super) fn runs(&self) -> Result<ProgramRuns> {
        running::programs_of(self.0.id()).first().copied().context("the program is no longer loaded")
    }
}

/// Results of one tracer.
#[derive(Default)]
struct Figures {
    per_transition: Sample,
    above_empty: Sample,
    skipped: Sample,
}

/// Measures every tracer.
pub(super) fn measure(bench: &Bench, costs: &mut Costs) -> Result<Section> {
    let (own, missing) = tracers::own(&bench.programs);
    let mut empty = Sample::default();
    let mut table = Table::new(&[
        "tracer",
        "ns per transition",
        "above an empty program, ns",
        "skipped runs per million transitions",
    ]);
    let mut targets = Vec::new();
    for tracer in own.iter().chain(tracers::PEERS) {
        let mut figures = Figures::default();
        for _ in 0..bench.scale(5, 2) {
            let running = || Running::start(&mut tracer.command(&bench.programs));
            one(bench, running, total, Running::interrupt, &mut empty, &mut figures)?;
        }
        table.row([
            tracer.name.to_owned(),
            figures.per_transition.text(0),
            figures.above_empty.text(0),
            format!("{:.0}", figures.skipped.median()),
        ]);
        costs.kernel(tracer.name, figures.per_transition.median());
        if tracer.ours {
            let what = format!("kernel time per transition above an empty program, {}", tracer.name);
            targets.push(Target::at_most(what, LIMIT_NS, figures.above_empty.median(), "ns"));
        }
    }
    targets.extend(missing.iter().map(|command| {
        let what = format!("kernel time per transition above an empty program, tcptrace-bpf {command}");
        Target::not_in_this_build(what, "at most 120 ns")
    }));
    let mut floor = Figures::default();
    for _ in 0..bench.scale(5, 2) {
        let record = || BareProgram::record(&bench.programs);
        one(bench, record, BareProgram::runs, BareProgram::end, &mut empty, &mut floor)?;
    }
    table.row([
        "a program that submits an empty record to a ring buffer".to_owned(),
        floor.per_transition.text(0),
        floor.above_empty.text(0),
        format!("{:.0}", floor.skipped.median()),
    ]);
    table.row(["an empty program".to_owned(), empty.text(0), String::new(), String::new()]);
    Ok(Section {
        title: "Time in the kernel",
        text: "Run time of all BPF programs of a tracer per transition of the host, from the kernel's statistics \
               (`run_time_ns`). The statistics add their own cost to every figure. Each run therefore also has an \
               empty program on the same tracepoint, and the target applies to the difference. The program that \
               submits an empty record to a ring buffer shows the cost of a BPF ring buffer alone: its lock, and \
               memory that another processor has last read. This project's tracer writes to a lane per program and \
               CPU instead (ARCHITECTURE.md), which has no lock. Skipped runs are those of all programs of a tracer. \
               This project's twin program records the transitions for which the kernel skips the first program."
            .to_owned(),
        tables: vec![table],
        targets,
    })
}

/// Measures a tracer and an empty program on the same tracepoint.
#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
fn one<T, E>(
    bench: &Bench,
    start: impl FnOnce() -> Result<T>,
    runs: impl Fn(&T) -> Result<ProgramRuns>,
    end: impl FnOnce(T) -> Result<E>,
    empty: &mut Sample,
    figures: &mut Figures,
) -> Result<()> {
    let nothing = BareProgram::empty(&bench.programs)?;
    let running = start()?;
    let (nothing_before, before) = (nothing.runs()?, runs(&running)?);
    load::churn(&bench.programs, bench.scale(20_000, 5_000), None)?;
    let (nothing_after, after) = (nothing.runs()?, runs(&running)?);
    end(running)?;

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
