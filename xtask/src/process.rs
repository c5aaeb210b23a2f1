//! Running other programs: said before it is done, and with an error that names the command.

use std::{io::ErrorKind, process::Command};

use anyhow::{Context as _, Result, bail};

/// Prints a command, runs it with this program's own input and output, and demands success.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = describe(command);
    eprintln!("+ {line}");
    let status = command.status().with_context(|| format!("could not start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed with {status}; its own message is above");
    }
    Ok(())
}

/// Runs a command quietly and returns its standard output; `None` when the program does not exist or
/// does not succeed.
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
        .with_context(|| format!("`{}` printed something that is not UTF-8", describe(command)))?;
    Ok(Some(text))
}

/// The program and its arguments, for people to read.
fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
