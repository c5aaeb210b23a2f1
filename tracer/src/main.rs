//! The `tcptrace-bpf` program.

use std::process::ExitCode;

use clap::Parser as _;
use tcptrace_bpf::{cli::Cli, commands};

fn main() -> ExitCode {
    match commands::run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcptrace-bpf: {error:#}");
            ExitCode::FAILURE
        }
    }
}
