//! Measures the start time, the latency from a transition to its row, and the program size.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{ChildStdout, Command, Stdio},
    thread,
    time::SystemTime,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Bench,
    load::Traffic,
    numbers::Sample,
    page::{Section, Table, Target},
    running::Running,
};

const START_MS: f64 = 300.0;
const SIZE_MB: f64 = 12.0;
/// Target of the 99th percentile of latency.
const LATENCY_MS: f64 = 60.0;

/// Measures the start time, the latency and the program size.
#[expect(clippy::cast_precision_loss, reason = "a size of some millions")]
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut start = Sample::default();
    for _ in 0..bench.scale(11, 5) {
        let mut command = Command::new(&bench.programs.tracer);
        command.arg("connections").stdin(Stdio::null()).stdout(Stdio::null());
        let mut running = Running::spawn(&mut command)?;
        start.push(running.wait_for("tracing TCP")?.as_secs_f64() * 1e3);
        running.interrupt()?;
    }
    let size =
        fs::metadata(&bench.programs.tracer).context("the program file cannot be read")?.len() as f64 / 1e6;
    let mut sizes = Table::new(&["", ""]);
    sizes.row(["from exec to \"tracing TCP\", ms".to_owned(), start.text(0)]);
    sizes.row(["program size, MB".to_owned(), format!("{size:.1}")]);
    let mut targets = vec![
        Target::at_most("start time", START_MS, start.median(), "ms"),
        Target::at_most("program size", SIZE_MB, size, "MB"),
    ];

    let mut table = Table::new(&["latency", "p50, ms", "p99, ms", "maximum, ms"]);
    for (name, options) in [("default", &[][..]), ("`--latency 5ms`", &["--latency", "5ms"])] {
        let sample = latencies(bench, options)?;
        table.row(
            std::iter::once(name.to_owned())
                .chain([0.5, 0.99, 1.0].map(|share| format!("{:.1}", sample.quantile(share)))),
        );
        let what = format!("latency, p99, {name}");
        targets.push(Target::at_most(what, LATENCY_MS, sample.quantile(0.99), "ms"));
    }
    Ok(Section {
        title: "Start, latency and size",
        text: "Latency is the time from the kernel's timestamp of a transition until a reader of \
               `transitions -o json` has received its line. The load makes a connection every few milliseconds."
            .to_owned(),
        tables: vec![sizes, table],
        targets,
    })
}

/// Measures the latency in milliseconds of each transition of paced connections.
fn latencies(bench: &Bench, options: &[&str]) -> Result<Sample> {
    let connections = bench.scale(1_000, 200);
    let mut traffic = Traffic::paced(&bench.programs, connections, 3)?;
    let netns = traffic.netns().to_string();
    let mut command = Command::new(&bench.programs.tracer);
    command.args(["transitions", "-o", "json", "--netns", &netns]).args(options);
    let mut running = Running::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let stdout = running.child().stdout.take().context("standard output is piped")?;
    let reader = thread::spawn(move || read(stdout));
    running.wait_for("tracing TCP")?;
    traffic.begin()?;
    let done = traffic.done()?;
    running.cpu_time_when_idle()?;
    running.interrupt()?;
    traffic.end()?;
    let sample = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let (lines, transitions) = (sample.len(), done.transitions);
    ensure!(
        lines as u64 * 100 >= transitions * 99,
        "the tracer wrote {lines} lines for {transitions} transitions"
    );
    Ok(sample.into_iter().collect())
}

/// Returns the time from each row's timestamp to its arrival, in milliseconds.
fn read(stdout: ChildStdout) -> Result<Vec<f64>> {
    let mut found = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.context("the tracer's output cannot be read")?;
        let now = jiff::Timestamp::try_from(SystemTime::now()).context("the clock is out of range")?;
        let row: serde_json::Value = serde_json::from_str(&line).context("a line is not JSON")?;
        let time = row["time"].as_str().context("a line has no time")?;
        let time: jiff::Timestamp = time.parse().context("a line's time is invalid")?;
        found.push(now.duration_since(time).as_secs_f64() * 1e3);
    }
    Ok(found)
}
