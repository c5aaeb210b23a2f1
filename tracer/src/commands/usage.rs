//! Errors that the user's command line or configuration causes.

use crate::commands::error_text;

/// An invalid configuration, found after the command line was parsed. The exit status is that of wrong usage, so that
/// systemd does not restart the service.
#[derive(Debug, thiserror::Error)]
#[error("{}", error_text(.0))]
pub struct WrongUsage(anyhow::Error);

impl WrongUsage {
    /// Marks an error of the configuration.
    pub(super) fn of(error: impl Into<anyhow::Error>) -> anyhow::Error {
        Self(error.into()).into()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn an_error_keeps_its_text_and_is_recognized() {
        let inner: anyhow::Result<()> = Err(anyhow::anyhow!("cause")).context("failure");
        let error = WrongUsage::of(inner.unwrap_err());
        assert_eq!(format!("{error:#}"), "failure: cause");
        assert!(error.is::<WrongUsage>());
    }
}
