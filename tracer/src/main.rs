//! The `tcptrace-bpf` program.

use std::process::ExitCode;

use tcptrace_bpf::{
    cli::{Cli, SettingsError},
    commands,
};

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(cli) => cli,
        Err(SettingsError::Usage(error)) => error.exit(),
        Err(error) => {
            print_error(format_args!("{error}"));
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = cli.check() {
        error.exit();
    }
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints an error on stderr. Ignores errors, because stderr may be closed.
fn print_error(error: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "tcptrace-bpf: {error}");
}
