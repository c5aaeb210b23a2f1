//! The loads, as `cargo xtask bench` starts them. Each prints one line of JSON when it is done.

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
    /// Feeds generated events through the library
    Replay {
        /// How far they go
        #[arg(long, value_enum)]
        stage: Stage,
        /// Events that are measured
        #[arg(long)]
        events: u64,
        /// Connections open at once
        #[arg(long, default_value_t = 10_000)]
        live: usize,
        /// Microseconds between two events; the less, the more connections are in TIME_WAIT
        #[arg(long, default_value_t = 50)]
        spacing: u64,
    },
    /// Fills the table of connections and says what memory that takes
    Memory {
        /// Connections open at once
        #[arg(long)]
        live: usize,
    },
    /// Writes a recording of generated events
    Recording {
        /// Where to
        file: PathBuf,
        /// So many
        #[arg(long)]
        transitions: u64,
        /// Connections open at once
        #[arg(long, default_value_t = 10_000)]
        live: usize,
    },
    /// Connections that are opened and closed one after the other, in a network namespace of their own
    Churn {
        /// At most so many
        #[arg(long)]
        connections: u64,
        /// For at most so long
        #[arg(long, value_parser = milliseconds)]
        milliseconds: Option<Duration>,
        /// Time between two, varied around this
        #[arg(long, value_parser = milliseconds)]
        pause: Option<Duration>,
    },
    /// Connections that are open together and closed together, in a network namespace of their own
    Hold {
        /// So many
        #[arg(long)]
        connections: u64,
    },
    /// Switches the kernel's statistics of BPF programs on, and attaches one that does nothing
    EmptyProgram {
        /// Leave the statistics off
        #[arg(long)]
        uncounted: bool,
    },
    /// The same with one that passes a record through a ring buffer
    RecordProgram,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().load {
        Load::Replay { stage, events, live, spacing } => {
            let spacing = Duration::from_micros(spacing);
            let mut replay = Replay::new(live, spacing, stage);
            replay.settle(spacing)?;
            let taken = replay.run(events)?;
            print(&json!({
                "events": taken.events,
                "seconds": taken.time.as_secs_f64(),
                "allocations": taken.allocations,
                "rows": taken.rows,
            }));
        }
        Load::Memory { live } => print(&memory::fill(live)?),
        Load::Recording { file, transitions, live } => print(&recording::write(&file, live, transitions)?),
        Load::Churn { connections, milliseconds, pause } => {
            traffic::churn(connections, milliseconds, pause)?;
        }
        Load::Hold { connections } => traffic::hold(connections)?,
        Load::EmptyProgram { uncounted } => bare_program::nothing(!uncounted)?,
        Load::RecordProgram => bare_program::record()?,
    }
    Ok(())
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}

/// One line for the program that started this one.
#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn print(value: &serde_json::Value) {
    println!("{value}");
}
