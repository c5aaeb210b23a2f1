//! Measures the speed and the memory of reading recordings.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{
    Bench,
    load::Load,
    numbers::Sample,
    page::{Section, Table, Target},
    running::{Running, Summary},
};

/// Measured commands: name in the table, arguments.
const COMMANDS: &[(&str, &[&str])] = &[
    ("connections -o json", &["connections", "-o", "json"]),
    ("transitions -o json", &["transitions", "-o", "json"]),
    ("handshakes", &["handshakes"]),
];

/// Ratio of the events of the second recording to those of the first.
const TIMES: u64 = 5;
/// Target of the memory ratio.
const GROWTH: f64 = 1.1;

const MB: f64 = 1e6;

/// Result of the load that writes a recording.
#[derive(Deserialize)]
struct Written {
    transitions: u64,
    bytes: u64,
}

/// A generated recording; removed on drop.
struct Recording {
    path: PathBuf,
    transitions: u64,
    bytes: u64,
}

impl Recording {
    fn generate(bench: &Bench, transitions: u64) -> Result<Self> {
        let path = bench.folder.join(format!("bench-{}-{transitions}.arrows", std::process::id()));
        let name = path.to_str().context("the target folder's path is not UTF-8")?;
        let mut load =
            Load::start(&bench.programs, &["recording", name, "--transitions", &transitions.to_string()])?;
        let written = load.receive::<Written>();
        let recording = Self { path, transitions, bytes: written.as_ref().map_or(0, |it| it.bytes) };
        load.end()?;
        ensure!(written?.transitions == transitions, "the load wrote a different number of transitions");
        Ok(recording)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // The file may not exist, if writing failed.
        let _ = fs::remove_file(&self.path);
    }
}

/// Measures every command with two recordings. The shorter one already reaches a steady number of connections in
/// TIME_WAIT.
#[expect(clippy::cast_precision_loss, reason = "counts of some millions")]
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let short = Recording::generate(bench, bench.scale(2_000_000, 100_000))?;
    let long = Recording::generate(bench, TIMES * short.transitions)?;
    let mut table =
        Table::new(&["command", "transitions", "million transitions per second", "peak memory, MB"]);
    let mut targets = Vec::new();
    for (name, arguments) in COMMANDS {
        let mut peaks = Vec::new();
        for recording in [&short, &long] {
            let (mut rate, mut peak) = (Sample::default(), Sample::default());
            for _ in 0..bench.scale(3, 1) {
                let (seconds, bytes) = read(bench, &recording.path, arguments, recording.transitions)?;
                rate.push(recording.transitions as f64 / seconds / 1e6);
                peak.push(bytes / MB);
            }
            table.row([
                format!("`{name}`"),
                recording.transitions.to_string(),
                rate.text(2),
                format!("{:.0}", peak.median()),
            ]);
            peaks.push(peak.median());
        }
        let what = format!("peak memory for a recording {TIMES} times as long, {name}");
        targets.push(Target::at_most(what, GROWTH, peaks[1] / peaks[0], "times"));
    }
    Ok(Section {
        title: "Recordings",
        text: format!(
            "Generated recordings of a host with 20,000 transitions per second and 10,000 open connections. A \
             transition takes {:.1} bytes in the file. The whole program reads them with `--input`, and its output is \
             discarded. The rate is measured in wall-clock time from exec to exit.",
            long.bytes as f64 / long.transitions as f64
        ),
        tables: vec![table],
        targets,
    })
}

/// Reads a recording to its end. Returns the duration in seconds, and the peak resident memory in bytes.
fn read(bench: &Bench, file: &Path, arguments: &[&str], transitions: u64) -> Result<(f64, f64)> {
    let mut command = Command::new(&bench.programs.tracer);
    command.args(arguments).arg("--input").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    let mut running = Running::spawn(&mut command)?;
    let mut peak = 0.0;
    while running.child().try_wait().context("the tracer cannot be waited for")?.is_none() {
        // The process has exited if the value cannot be read.
        peak = running.peak_memory().unwrap_or(peak);
        thread::sleep(Duration::from_millis(5));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let Summary { seen, .. } = running.summary()?;
    ensure!(seen == transitions, "{arguments:?} read {seen} of {transitions} transitions");
    Ok((seconds, peak))
}
