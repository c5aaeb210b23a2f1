//! Measures the speed of the library on one core, with events from memory.

use anyhow::Result;
use serde::Deserialize;

use super::{
    Bench,
    load::Load,
    numbers::Sample,
    page::{Section, Table, Target},
};

/// The stage that allocates: each minute of the page has tables of its own.
const PAGE: &str = "page";

/// Stages: argument, name in the table, and the target in millions of transitions per second, if any.
const STAGES: &[(&str, &str, Option<f64>)] = &[
    ("core", "connection table", Some(5.0)),
    ("metrics", "connection table, metrics of `serve --no-page`", Some(2.0)),
    (PAGE, "connection table, metrics and page of `serve`", Some(1.0)),
    ("transitions-json", "connection table, `transitions -o json`", None),
    ("connections-json", "connection table, `connections -o json`", None),
    ("transitions-table", "connection table, `transitions -o wide`", None),
    ("connections-table", "connection table, `connections -o wide`", None),
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
    let mut table = Table::new(&[
        "stage",
        "million transitions per second",
        "ns per transition",
        "allocations per transition",
    ]);
    let mut targets = Vec::new();
    for (stage, name, least) in STAGES {
        let (mut rate, mut time, mut allocations) = (Sample::default(), Sample::default(), Sample::default());
        for _ in 0..bench.scale(5, 2) {
            let events = bench.scale("3000000", "1000000");
            let mut load = Load::start(&bench.programs, &["replay", "--stage", stage, "--events", events])?;
            let taken: Taken = load.receive()?;
            load.end()?;
            let events = taken.events as f64;
            rate.push(events / taken.seconds / 1e6);
            time.push(taken.seconds / events * 1e9);
            allocations.push(taken.allocations as f64 / events);
        }
        table.row([(*name).to_owned(), rate.text(2), time.text(0), format!("{:.4}", allocations.median())]);
        if let Some(least) = least {
            let what = format!("transitions per second and core, {name}");
            targets.push(Target::at_least(what, *least, rate.median(), "million"));
        }
        if *stage != PAGE {
            let what = format!("allocations per transition, {name}");
            targets.push(Target::at_most(what, 0.0, allocations.median(), ""));
        }
    }
    Ok(Section {
        title: "Replay",
        text: "Complete connection lifetimes of clients and servers. 10,000 connections are open at once, each event \
               belongs to a random one of them, and about 140,000 connections are in TIME_WAIT. Output is discarded. \
               The rate is measured in processor time, without the time to generate the events. Allocations count \
               once all data structures have reached their final size."
            .to_owned(),
        tables: vec![table],
        targets,
    })
}
