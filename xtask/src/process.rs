//! Runs other programs, with errors that name the command.

use std::{io::ErrorKind, process::Command};

use anyhow::{Context as _, Result, bail};

/// Prints a command, runs it with inherited stdio, and returns an error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    eprintln!("+ {line}");
    let status = command.status().with_context(|| format!("could not start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed with {status}; its message is above");
    }
    Ok(())
}

/// Runs a command and returns its stdout; `None` if the program does not exist or fails.
pub(crate) fn probe(command: &mut Command) -> Result<Option<String>> {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("could not start `{}`", describe(command)));
        }
    };
    if !output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed output that is not UTF-8", describe(command)))?;
    Ok(Some(text))
}

/// Returns the program and its arguments for messages.
fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
