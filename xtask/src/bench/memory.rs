//! Measures the memory of the idle program and of each open connection.

use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Result;
use serde::Deserialize;

use super::{
    Bench,
    load::{self, Load, Traffic},
    page::{Section, Table, Target},
    running::Running,
};

const MB: f64 = 1e6;
/// Target for the idle program.
const IDLE_MB: f64 = 20.0;
/// Target for each open connection.
const CONNECTION_BYTES: f64 = 250.0;
/// Target for a million connections.
const MILLION_MB: f64 = 300.0;

/// Connections of one load process. Each takes two of about 20,000 descriptors.
const EACH: u64 = 9_000;

/// Connections whose transitions take more space than the buffer has.
const WARM_UP: u64 = 5_000;

/// Result of the memory load.
#[derive(Deserialize)]
struct Filled {
    live: u64,
    resident_bytes: u64,
    allocated_bytes: u64,
}

/// Measures the idle program and the open connections.
#[expect(clippy::cast_precision_loss, reason = "counts of bytes")]
pub(super) fn measure(bench: &Bench) -> Result<Section> {
    let mut targets = Vec::new();
    let mut idle = Table::new(&["program", "resident (RSS), MB", "proportional (PSS), MB"]);
    for command in ["connections", "serve"].into_iter().filter(|command| bench.programs.has(command)) {
        let running = tracer(bench, command)?;
        thread::sleep(Duration::from_secs(1));
        let (rss, pss) = (running.memory("Rss:")? as f64 / MB, running.memory("Pss:")? as f64 / MB);
        running.interrupt()?;
        idle.row([format!("tcptrace-bpf {command}, idle"), format!("{rss:.1}"), format!("{pss:.1}")]);
        targets.push(Target::at_most(format!("resident memory, idle, {command}"), IDLE_MB, rss, "MB"));
    }

    let mut table = Table::new(&["open connections", "resident, MB", "bytes per connection"]);
    for live in [10_000_u32, 100_000, 1_000_000] {
        let mut load = Load::start(&bench.programs, &["memory", "--live", &format!("{live}")])?;
        let filled: Filled = load.receive()?;
        load.end()?;
        let each = filled.resident_bytes as f64 / filled.live as f64;
        table.row([
            format!("{live}, generated; the connection table alone"),
            format!("{:.1}", filled.resident_bytes as f64 / MB),
            format!("{each:.0} (allocated: {:.0})", filled.allocated_bytes as f64 / f64::from(live)),
        ]);
        targets.push(Target::at_most(
            format!("memory per connection, {live} connections"),
            CONNECTION_BYTES,
            each,
            "bytes",
        ));
        if live == 1_000_000 {
            let resident = filled.resident_bytes as f64 / MB;
            targets.push(Target::at_most("memory for a million connections", MILLION_MB, resident, "MB"));
        }
    }
    let (entries, grown) = real(bench)?;
    table.row([
        format!("{entries}, real, both ends on this host; the whole program"),
        format!("{:.1}", grown / MB),
        format!("{:.0}", grown / entries as f64),
    ]);
    Ok(Section {
        title: "Memory",
        text: "The first table shows the idle program, with its buffer mapped and the connections of the host. The \
               second shows the connection table, filled through the library, and the growth of the running program \
               while real connections are open. A real connection has both ends on this host and counts twice."
            .to_owned(),
        tables: vec![idle, table],
        targets,
    })
}

/// Opens real connections. Returns the number of sockets, and the growth of the program's memory in bytes.
#[expect(clippy::cast_precision_loss, reason = "counts of bytes")]
fn real(bench: &Bench) -> Result<(u64, f64)> {
    let running = tracer(bench, "connections")?;
    // Touches the whole buffer once, so that its pages do not count as memory of the connections.
    load::churn(&bench.programs, WARM_UP, None)?;
    running.cpu_time_when_idle()?;
    let before = running.memory("Rss:")?;
    let processes = bench.scale(5, 1);
    let mut loads =
        (0..processes).map(|_| Traffic::hold(&bench.programs, EACH)).collect::<Result<Vec<_>>>()?;
    let mut connections = 0;
    for load in &mut loads {
        load.begin()?;
        connections += load.done()?.connections;
    }
    running.cpu_time_when_idle()?;
    let grown = running.memory("Rss:")?.saturating_sub(before);
    for load in &mut loads {
        load.begin()?;
        load.done()?;
    }
    loads.into_iter().try_for_each(Traffic::end)?;
    running.interrupt()?;
    Ok((2 * connections, grown as f64))
}

fn tracer(bench: &Bench, command: &str) -> Result<Running> {
    let mut process = Command::new(&bench.programs.tracer);
    process.arg(command).stdin(Stdio::null()).stdout(Stdio::null());
    let mut running = Running::spawn(&mut process)?;
    running.wait_for("tracing TCP")?;
    Ok(running)
}
