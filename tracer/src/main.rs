//! The `tcptrace-bpf` program.

use std::process::ExitCode;

use clap::Parser as _;
use tcptrace_bpf::{cli::Cli, commands};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(wrong) = cli.check() {
        wrong.exit();
    }
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tcptrace-bpf: {error:#}");
            ExitCode::FAILURE
        }
    }
}
