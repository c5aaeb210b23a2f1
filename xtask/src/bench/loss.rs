//! Measures lost transitions under load, and checks that every transition is accounted for.
//!
//! Seen, lost and skipped transitions must add up to those that ftrace recorded, the witness. It uses no BPF and also
//! counts the transitions of other connections on the host. Where the kernel hides process 1 from BPF programs, it
//! counts the transitions that reach no program (docs/limitations.md, "Loss").

use std::{process::Stdio, thread, time::Duration};

use anyhow::{Result, ensure};
use rustix::process::Signal;

use super::{
    Bench,
    load::{Traffic, Witness, Witnessed},
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
    witnessed: Witnessed,
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
    let mut table = Table::new(&[
        "load",
        "recorded by ftrace",
        "seen",
        "lost",
        "skipped",
        "while process 1 was current",
        "of other connections",
    ]);
    let mut targets = Vec::new();
    for scenario in &scenarios {
        for command in ["connections", "transitions"] {
            let outcome = run(bench, scenario, command)?;
            let LossResult { witnessed, summary } = &outcome;
            let Witnessed { own, under_first_process, strangers } = *witnessed;
            let numbers = [own, summary.seen, summary.lost, summary.skipped, under_first_process, strangers];
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
               skipped transitions. ftrace records the same tracepoint without BPF, and the benchmark fails unless the \
               sum is the number of transitions that it recorded of the load. Some virtual machines' kernels run no BPF \
               program while process 1 is current (docs/limitations.md, \"Loss\"); the sum may lack those transitions. \
               It may include transitions of other connections on the host, and after losses the twin program's duplicates \
               of lost records."
            .to_owned(),
        tables: vec![table],
        targets,
    })
}

fn run(bench: &Bench, scenario: &Scenario, command: &str) -> Result<LossResult> {
    // The witness starts before the tracer and stops after it.
    let witness = Witness::start(&bench.programs, most(scenario))?;
    let mut running = tracer(&bench.programs, command)?;
    make(bench, scenario, &mut running)?;
    let summary = running.summary()?;
    let witnessed = witness.end()?;
    let Witnessed { own, under_first_process, strangers } = witnessed;
    // The twin's duplicate of a record that was lost cannot be recognized: the bound of the accounting scenarios.
    let twice = summary.lost / 100;
    ensure!(
        (own - under_first_process..=own + strangers + twice).contains(&summary.total()),
        "{}, {command}: the sum of {summary:?} is {}, but ftrace recorded {witnessed:?}",
        scenario.name,
        summary.total()
    );
    Ok(LossResult { witnessed, summary })
}

/// Returns more transitions than the load and the other connections of a quiet host make.
fn most(scenario: &Scenario) -> u64 {
    scenario.connections.iter().sum::<u64>() * 12 + 10_000
}

fn tracer(programs: &Programs, command: &str) -> Result<Running> {
    let mut process = std::process::Command::new(&programs.tracer);
    process.args([command, "-o", "json"]).stdin(Stdio::null()).stdout(Stdio::null());
    let mut running = Running::spawn(&mut process)?;
    running.wait_for("tracing TCP")?;
    Ok(running)
}

/// Runs the load.
fn make(bench: &Bench, scenario: &Scenario, running: &mut Running) -> Result<()> {
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
    for load in &mut loads {
        load.done()?;
    }
    loads.into_iter().try_for_each(Traffic::end)
}
