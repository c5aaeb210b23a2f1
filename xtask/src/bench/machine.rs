//! Describes the machine and the measured versions.

use std::{fs, process::Command, thread};

use anyhow::Result;

use super::{page::Table, programs::Programs};
use crate::process;

/// The load above which other programs compete for the processors.
const BUSY: f64 = 1.0;

/// Returns a table of the machine and the versions. `load` is the result of [`load`], taken before the build.
pub(super) fn describe(programs: &Programs, load: String) -> Result<Table> {
    let mut table = Table::new(&["", ""]);
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("processor", format!("{} × {}", processors(), first(&read("/proc/cpuinfo"), "model name")));
    row("memory", first(&read("/proc/meminfo"), "MemTotal"));
    let system = rustix::system::uname();
    row("kernel", format!("{} {}", system.release().to_string_lossy(), system.machine().to_string_lossy()));
    row("1-minute load average before the run", load);
    row("tcptrace-bpf", version(Command::new(&programs.tracer).arg("--version"))?);
    row("bpftrace", version(Command::new("bpftrace").arg("--version"))?);
    let package = ["--show", "--showformat=${Version}", "libbpf-tools"];
    row("libbpf-tools", version(Command::new("dpkg-query").args(package))?);
    Ok(table)
}

/// Returns the number of processors.
pub(super) fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn version(command: &mut Command) -> Result<String> {
    let text = process::probe(command)?.unwrap_or_else(|| "unknown".to_owned());
    Ok(text.split_whitespace().last().unwrap_or("unknown").to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn first(text: &str, name: &str) -> String {
    let found = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split(':').nth(1));
    found.unwrap_or("unknown").trim().to_owned()
}

/// Returns the machine's 1-minute load average.
pub(super) fn load() -> String {
    let text = read("/proc/loadavg");
    let load = text.split_whitespace().next().unwrap_or("unknown");
    if load.parse::<f64>().is_ok_and(|load| load > BUSY) {
        return format!("{load}: other programs were busy, so the times below are unreliable");
    }
    load.to_owned()
}
