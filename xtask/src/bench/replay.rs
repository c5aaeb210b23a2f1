//! Measures the speed of the library with events from memory on one core.

use anyhow::Result;
use serde::Deserialize;

use super::{
    Bench,
    load::Load,
    numbers::Sample,
    page::{Section, Table, Target},
};

/// Stage, its name in the table, and the target in millions of transitions a second, if any.
const STAGES: &[(&str, &str, Option<f64>)] = &[
    ("core", "table of connections", Some(5.0)),
    ("metrics", "and the metrics of `serve`", Some(2.0)),
    ("transitions-json", "and `transitions -o json`", None),
    ("connections-json", "and `connections -o json`", None),
    ("transitions-table", "and `transitions -o wide`", None),
    ("connections-table", "and `connections -o wide`", None),
];

/// Result of a replay.
#[derive(Deserialize)]
struct Taken {
    events: u64,
    seconds: f64,
    allocations: u64,
}

/// Measures every stage.
#[expect(clippy::cast_precision_loss, reason = "counts of some millions")]
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut table =
        Table::new(&["through", "million transitions per second", "ns for each", "allocations for each"]);
    let mut targets = Vec::new();
    for (stage, name, least) in STAGES {
        let (mut rate, mut time, mut allocations) = (Sample::default(), Sample::default(), Sample::default());
        for _ in 0..bench.scale(5, 2) {
            let events = bench.scale("3000000", "1000000");
            let mut load = Load::start(&bench.programs, &["replay", "--stage", stage, "--events", events])?;
            let taken: Taken = load.answer()?;
            load.end()?;
            let events = taken.events as f64;
            rate.push(events / taken.seconds / 1e6);
            time.push(taken.seconds / events * 1e9);
            allocations.push(taken.allocations as f64 / events);
        }
        table.row([(*name).to_owned(), rate.text(2), time.text(0), format!("{:.4}", allocations.median())]);
        if let Some(least) = least {
            let what = format!("transitions a second and core, {name}");
            targets.push(Target::at_least(what, *least, rate.median(), "million"));
        }
        let what = format!("allocations for each transition, {name}");
        targets.push(Target::at_most(what, 0.0, allocations.median(), ""));
    }
    Ok(Section {
        title: "Replay",
        text: "Whole lives of clients and servers, 10,000 open at once and chosen at random, and some 140,000 connections \
               in TIME_WAIT. The lines go nowhere. The time is the processor's, without that to make the events. Allocations are \
               those after everything has its final size."
            .to_owned(),
        tables: vec![table],
        targets,
    })
}
