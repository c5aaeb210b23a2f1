//! The text of an error.

/// Returns an error with its causes, from the outermost, separated by colons.
///
/// Skips a cause that the text before it contains already: the errors of this crate quote their cause in the middle of the
/// sentence, and have it as their source too.
pub fn error_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context as _;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open it: {0}; try again")]
    struct Quoting(#[source] io::Error);

    #[test]
    fn each_cause_is_said_once() {
        let quoting: Result<(), Quoting> = Err(Quoting(io::Error::other("full")));
        let error = quoting.context("it failed").unwrap_err();
        assert_eq!(error_text(&error), "it failed: cannot open it: full; try again");
        let plain: Result<(), io::Error> = Err(io::Error::other("full"));
        assert_eq!(error_text(&plain.context("it failed").unwrap_err()), "it failed: full");
    }
}
