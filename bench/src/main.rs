//! The loads that `cargo xtask bench` starts. Each prints one line of JSON when it is done.

mod bare_program;
mod memory;
mod recording;
mod traffic;

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};
use serde_json::json;
use tcptrace_bench::{
    allocations::Counting,
    replay::{Replay, Stage},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The loads of `cargo xtask bench`.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Passes generated events through the library
    Replay {
        /// Last stage that the events reach
        #[arg(long, value_enum)]
        stage: Stage,
        /// Number of measured events
        #[arg(long)]
        events: u64,
        /// Connections open at once
        #[arg(long, default_value_t = 10_000)]
        live: usize,
        /// Microseconds between two events; fewer mean more connections in TIME_WAIT
        #[arg(long, default_value_t = 50)]
        spacing: u64,
    },
    /// Fills the table of connections and prints its memory use
    Memory {
        /// Connections open at once
        #[arg(long)]
        live: usize,
    },
    /// Writes a recording of generated events
    Recording {
        /// Output file
        file: PathBuf,
        /// Number of transitions
        #[arg(long)]
        transitions: u64,
        /// Connections open at once
        #[arg(long, default_value_t = 10_000)]
        live: usize,
    },
    /// Opens and closes connections one after the other, in a new network namespace
    Churn {
        /// Maximum number of connections
        #[arg(long)]
        connections: u64,
        /// Maximum duration
        #[arg(long, value_parser = milliseconds)]
        milliseconds: Option<Duration>,
        /// Average time between two connections; varies from half to one and a half
        #[arg(long, value_parser = milliseconds)]
        pause: Option<Duration>,
    },
    /// Holds connections open at the same time and closes them together, in a new network namespace
    Hold {
        /// Number of connections
        #[arg(long)]
        connections: u64,
    },
    /// Enables the kernel's statistics of BPF programs and attaches a program that does nothing
    EmptyProgram {
        /// Do not enable the statistics
        #[arg(long)]
        uncounted: bool,
    },
    /// Enables the statistics and attaches a program that submits a record to a ring buffer
    RecordProgram,
    /// Counts the transitions of the loads with ftrace until the next line on stdin
    Witness {
        /// Maximum number of transitions
        #[arg(long)]
        transitions: u64,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().load {
        Load::Replay { stage, events, live, spacing } => {
            let spacing = Duration::from_micros(spacing);
            let mut replay = Replay::new(live, spacing, stage);
            replay.settle(spacing)?;
            let result = replay.run(events)?;
            print(&json!({
                "events": result.events,
                "seconds": result.time.as_secs_f64(),
                "allocations": result.allocations,
                "rows": result.rows,
            }));
        }
        Load::Memory { live } => print(&memory::fill(live)?),
        Load::Recording { file, transitions, live } => print(&recording::write(&file, live, transitions)?),
        Load::Churn { connections, milliseconds, pause } => {
            traffic::churn(connections, milliseconds, pause)?;
        }
        Load::Hold { connections } => traffic::hold(connections)?,
        Load::EmptyProgram { uncounted } => bare_program::empty(!uncounted)?,
        Load::RecordProgram => bare_program::record()?,
        Load::Witness { transitions } => traffic::witness(transitions)?,
    }
    Ok(())
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}

/// Prints one line of JSON for the parent process.
#[expect(clippy::print_stdout, reason = "the parent process reads the results from stdout")]
fn print(value: &serde_json::Value) {
    println!("{value}");
}
