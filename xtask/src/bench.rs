//! `cargo xtask bench`: measures the cost of tracing on this machine, next to other tracers.
//!
//! Other load distorts timing, so compared programs run in turns, close together, and the results are medians
//! with their spread. The loads are in `bench/`; each part has a file here.

mod churn;
mod costs;
mod cpu;
mod daemon;
mod kernel;
mod load;
mod loss;
mod machine;
mod memory;
mod numbers;
mod page;
mod programs;
mod recordings;
mod replay;
mod running;
mod startup;
mod tracers;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use self::{costs::Costs, page::Section, programs::Programs};
use crate::{packages, workspace::Workspace};

/// Required Debian packages, and their use.
const PACKAGES: &[(&str, &str)] = &[
    ("iproute2", "brings up the loopback interface of the load's namespace"),
    ("libbpf-tools", "tcpstates and tcplife, for comparison"),
    ("bpftrace", "for comparison"),
    ("bsdutils", "script, the terminal that tcpstates writes to"),
    ("util-linux", "unshare, for a tracefs that only the other tracers see"),
];

/// Measures the cost of tracing next to other tracers; requires root
#[derive(Args)]
pub(crate) struct Arguments {
    /// Fewer and shorter runs, with less reliable results
    #[arg(long)]
    quick: bool,

    /// Measure only these parts
    #[arg(long, value_enum, value_name = "PARTS", value_delimiter = ',')]
    only: Vec<Part>,

    /// Write docs/performance.md from the results
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    write: bool,
}

/// One subject of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Time in the kernel for each transition
    Kernel,
    /// The rate of connections with each tracer
    Churn,
    /// Processor time of the program
    Cpu,
    /// Losses, and whether every loss is counted
    Loss,
    /// Memory
    Memory,
    /// Speed of the library
    Replay,
    /// Speed and memory of reading recordings
    Recordings,
    /// Time to start, latency, size
    Startup,
    /// `serve` for minutes of full load, with scrapes
    Daemon,
}

/// Context of every part.
struct Bench {
    programs: Programs,
    /// Folder for temporary files: the target folder.
    folder: PathBuf,
    quick: bool,
}

impl Bench {
    /// Returns the first value, or the second with `--quick`.
    fn scale<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Runs the subcommand.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "measuring requires root: run `sudo -E cargo xtask bench`");
    let workspace = Workspace::find()?;
    let names: Vec<&str> = PACKAGES.iter().map(|(name, _)| *name).collect();
    packages::ensure(&names)?;
    let load = machine::load();
    let bench = Bench {
        programs: Programs::build(&workspace)?,
        folder: workspace.root().join("target"),
        quick: arguments.quick,
    };
    let machine = machine::describe(&bench.programs, load)?;

    let mut sections = Vec::new();
    let mut costs = Costs::default();
    for part in Part::value_variants() {
        if arguments.only.is_empty() || arguments.only.contains(part) {
            eprintln!("measuring {part:?}");
            let section = measure(&bench, *part, &mut costs);
            sections.push(section.with_context(|| format!("{part:?} could not be measured"))?);
        }
    }
    sections.extend(costs.section(machine::processors()));
    let page = page::write(&machine, &sections);
    print(&page);
    if arguments.write {
        let path = workspace.root().join("docs/performance.md");
        fs::write(&path, page).with_context(|| format!("could not write {}", path.display()))?;
    }
    Ok(())
}

fn measure(bench: &Bench, part: Part, costs: &mut Costs) -> Result<Section> {
    match part {
        Part::Kernel => kernel::measure(bench, costs),
        Part::Churn => churn::measure(bench, costs),
        Part::Cpu => cpu::measure(bench, costs),
        Part::Loss => loss::measure(bench),
        Part::Memory => memory::measure(bench),
        Part::Replay => replay::measure(bench),
        Part::Recordings => recordings::measure(bench),
        Part::Startup => startup::measure(bench),
        Part::Daemon => daemon::measure(bench),
    }
}

#[expect(clippy::print_stdout, reason = "the report is the command's output")]
fn print(page: &str) {
    println!("{page}");
}
