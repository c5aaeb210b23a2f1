//! The `tcptrace-bpf` program.

use std::process::ExitCode;

use tcptrace_bpf::{
    cli::{Cli, SettingsError},
    commands::{self, WrongUsage, error_text, print_message},
};

/// The exit status of an invalid command line or configuration.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(cli) => cli,
        Err(SettingsError::Usage(error)) => error.exit(),
        Err(error) => {
            print_message(format_args!("{error}"));
            return WRONG_USAGE.into();
        }
    };
    if let Err(error) = cli.check() {
        error.exit();
    }
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_message(format_args!("{}", error_text(&error)));
            if error.is::<WrongUsage>() { WRONG_USAGE.into() } else { ExitCode::FAILURE }
        }
    }
}
