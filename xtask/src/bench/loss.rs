//! Measures lost transitions under load, and checks that every transition is accounted for.
//!
//! Seen, lost and skipped transitions must add up to the generated ones. An empty program on the same
//! tracepoint is the witness. It also counts the transitions of other connections on the host, and shows how many
//! transitions reached no program, a rare case (docs/limitations.md, "Loss").

use std::{process::Stdio, thread, time::Duration};

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::{
    Bench,
    kernel::BareProgram,
    load::{LISTENER_TRANSITIONS, Traffic},
    page::{Section, Table, Target},
    programs::Programs,
    running::{Running, Summary},
};

/// A load.
struct Scenario {
    name: &'static str,
    /// Connections of each process of the load. A process has a limited number of descriptors.
    connections: Vec<u64>,
    load: Kind,
}

enum Kind {
    /// Connections one after the other.
    Churn,
    /// Connections one after the other, while the tracer is stopped for a second.
    Paused,
    /// All connections open, then all close at once.
    Burst,
}

/// Result of a load.
struct LossResult {
    generated: u64,
    missed_by_all: u64,
    summary: Summary,
}

/// Runs every load.
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let scenarios = [
        Scenario { name: "churn", connections: vec![bench.scale(100_000, 20_000)], load: Kind::Churn },
        Scenario {
            name: "four churns at once",
            connections: vec![bench.scale(50_000, 15_000); 4],
            load: Kind::Churn,
        },
        Scenario { name: "10,000 connections close at once", connections: vec![5_000; 2], load: Kind::Burst },
        Scenario {
            name: "the tracer is stopped for 1 s",
            connections: vec![bench.scale(100_000, 20_000)],
            load: Kind::Paused,
        },
    ];
    let mut table = Table::new(&["load", "generated", "seen", "lost", "skipped", "reached no program"]);
    let mut targets = Vec::new();
    for scenario in &scenarios {
        for command in ["connections", "transitions"] {
            let outcome = run(bench, scenario, command)?;
            let LossResult { generated, missed_by_all, summary } = &outcome;
            let numbers = [*generated, summary.seen, summary.lost, summary.skipped, *missed_by_all];
            let mut cells = vec![format!("{}, {command}", scenario.name)];
            cells.extend(numbers.map(|number| number.to_string()));
            table.row(cells);
            if matches!(scenario.load, Kind::Churn) {
                #[expect(clippy::cast_precision_loss, reason = "a count")]
                let lost = summary.lost as f64;
                let what = format!("transitions lost, {}, {command}", scenario.name);
                targets.push(Target::at_most(what, 0.0, lost, ""));
            }
        }
    }
    Ok(Section {
        title: "Loss",
        text: "With the default buffer and JSON output, which is discarded. The summary line reports seen, lost and \
               skipped transitions. The benchmark fails unless their sum is the number of generated transitions minus \
               those that reached no program on the tracepoint (docs/limitations.md, \"Loss\"). The sum may also \
               include transitions of other connections on the host."
            .to_owned(),
        tables: vec![table],
        targets,
    })
}

fn run(bench: &Bench, scenario: &Scenario, command: &str) -> Result<LossResult> {
    // The witness starts before the tracer and stops after it.
    let witness = BareProgram::empty(&bench.programs)?;
    let before = witness.runs()?;
    let mut running = tracer(&bench.programs, command)?;
    let generated = make(bench, scenario, &mut running)?;
    let summary = running.summary()?;
    let after = witness.runs()?;
    let witnessed = after.count + after.skipped - before.count - before.skipped;

    let missed_by_all = generated.saturating_sub(witnessed);
    let strangers = witnessed.saturating_sub(generated);
    let least = generated - missed_by_all;
    ensure!(
        (least..=least + strangers).contains(&summary.total()),
        "{}, {command}: the sum of {summary:?} is {}, expected {least}, or up to {strangers} more",
        scenario.name,
        summary.total()
    );
    Ok(LossResult { generated, missed_by_all, summary })
}

fn tracer(programs: &Programs, command: &str) -> Result<Running> {
    let mut process = std::process::Command::new(&programs.tracer);
    process.args([command, "-o", "json"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut running = Running::spawn(&mut process)?;
    running.wait_for("tracing TCP")?;
    Ok(running)
}

/// Runs the load. Returns the number of transitions.
fn make(bench: &Bench, scenario: &Scenario, running: &mut Running) -> Result<u64> {
    let prepare = |connections: &u64| match scenario.load {
        Kind::Burst => Traffic::hold(&bench.programs, *connections),
        Kind::Churn | Kind::Paused => Traffic::churn(&bench.programs, *connections, None),
    };
    let mut loads: Vec<Traffic> = scenario.connections.iter().map(prepare).collect::<Result<_>>()?;
    let begin_all = |loads: &mut Vec<Traffic>| loads.iter_mut().try_for_each(Traffic::begin);
    begin_all(&mut loads)?;
    match scenario.load {
        Kind::Churn => {}
        Kind::Paused => {
            running.signal(Signal::STOP)?;
            thread::sleep(Duration::from_secs(1));
            running.signal(Signal::CONT)?;
        }
        Kind::Burst => {
            for load in &mut loads {
                load.done()?;
            }
            begin_all(&mut loads)?;
        }
    }
    let mut transitions = 0;
    for load in &mut loads {
        transitions += load.done()?.transitions + LISTENER_TRANSITIONS;
    }
    loads.into_iter().try_for_each(Traffic::end)?;
    Ok(transitions)
}
