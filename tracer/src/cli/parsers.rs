//! Parsers of option values. Each error names the value and shows valid ones.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use clap::builder::{PossibleValue, TypedValueParser};
use tracer_core::event::{Nanos, Netns, TcpState};

use crate::{host::parse_spec, recording::Rotation, report::parse_state, sources::live::Hook};

/// Parses a duration such as `100ms`, `10s`, `1m30s` or `2h`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("`{text}` is not a duration above zero: use 100ms, 10s, 1m30s or 2h"))
}

/// Parses the duration of a run: a duration, or a number of seconds as `sleep` takes it.
pub(super) fn parse_run_duration(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => parse_duration(text),
    }
}

/// A parser of names that also lists them, for the help, man pages and completions.
#[derive(Clone)]
pub(super) struct Named<T> {
    parse: fn(&str) -> Result<T, String>,
    names: Vec<&'static str>,
}

impl<T> Named<T> {
    /// Uses `parse`, which accepts `names` and perhaps other forms of them.
    pub(super) fn new(parse: fn(&str) -> Result<T, String>, names: impl Into<Vec<&'static str>>) -> Self {
        Self { parse, names: names.into() }
    }
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Named<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        option: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        self.parse.parse_ref(command, option, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.names.iter().map(PossibleValue::new)))
    }
}

/// Parses a size such as `100M` or a time such as `1h`. Sizes end in a capital letter or digit, times in a lowercase
/// letter.
pub(super) fn parse_rotation(text: &str) -> Result<Rotation, String> {
    let error = || {
        format!(
            "`{text}` is neither a size of at least 64K, such as 100M or 2G, nor a time of at least 1s, such as 10m \
             or 1h"
        )
    };
    if text.ends_with(|last: char| last.is_ascii_lowercase()) {
        let age = parse_duration(text).map_err(|_| error())?;
        if age < Duration::from_secs(1) {
            return Err(error());
        }
        return Ok(Rotation { age: Some(Nanos::from_duration(age)), ..Rotation::default() });
    }
    let bytes = parse_size::Config::new().with_binary().parse_size(text).map_err(|_| error())?;
    if bytes < 64 << 10 {
        return Err(error());
    }
    Ok(Rotation { bytes: Some(bytes), ..Rotation::default() })
}

/// The thresholds that shells complete: the defaults, and one for a state without.
pub(super) const THRESHOLDS: [&str; 8] = [
    "syn_sent=3s",
    "syn_received=3s",
    "established=1h",
    "fin_wait_1=10s",
    "fin_wait_2=60s",
    "close_wait=60s",
    "closing=10s",
    "last_ack=10s",
];

/// Parses a state and its threshold, such as `close_wait=60s`.
pub(super) fn parse_threshold(text: &str) -> Result<(TcpState, Nanos), String> {
    let (state, time) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not a threshold: use STATE=TIME, as in close_wait=60s"))?;
    let time = parse_duration(time)?;
    Ok((parse_state(state)?, Nanos::from_duration(time)))
}

/// Parses a network namespace and returns its inode.
pub(super) fn parse_netns(text: &str) -> Result<Netns, String> {
    parse_spec(text).inode().map_err(|error| error.to_string())
}

/// Parses a buffer size such as `4M`, `512KiB` or `65536`.
pub(super) fn parse_buffer(text: &str) -> Result<u32, String> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .ok()
        .and_then(|size| u32::try_from(size).ok())
        .filter(|size| (4096..=1 << 30).contains(size))
        .ok_or_else(|| format!("`{text}` is not a buffer size from 4K to 1G: use 512K, 4M or 64M"))
}

/// Parses the host's root directory, which must exist.
pub(super) fn parse_host_root(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() {
        Ok(path)
    } else {
        Err(format!(
            "`{text}` is not a directory: mount the host's root there, as with `docker run -v /:/host:ro`"
        ))
    }
}

/// Parses the name of an optional hook.
pub(super) fn parse_hook(text: &str) -> Result<Hook, String> {
    Hook::parse(text).ok_or_else(|| {
        let names = Hook::ALL.map(Hook::name).join(", ");
        format!("`{text}` is not an optional hook: use one of {names}")
    })
}

#[cfg(test)]
mod tests {
    use tracer_core::lifecycle::Thresholds;

    use super::*;

    #[test]
    fn completed_thresholds_are_the_defaults() {
        let defaults = Thresholds::default();
        let completed = THRESHOLDS.map(|text| parse_threshold(text).unwrap());
        for state in TcpState::ALL {
            let limit = completed.iter().find(|(completed, _)| *completed == state).map(|(_, limit)| *limit);
            if state == TcpState::Established {
                assert!(defaults.of(state).is_none() && limit.is_some());
            } else {
                assert_eq!(limit, defaults.of(state), "{state:?}");
            }
        }
    }

    #[test]
    fn a_wrong_hook_shows_the_right_ones() {
        assert_eq!(parse_hook("drop"), Ok(Hook::Drop));
        let error = parse_hook("kprobe").unwrap_err();
        assert!(Hook::ALL.into_iter().all(|hook| error.contains(hook.name())), "{error}");
    }

    #[test]
    fn a_run_may_have_a_number_of_seconds() {
        assert_eq!(parse_run_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_run_duration("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["0", "-1", "0s", "soon", ""] {
            assert!(parse_run_duration(text).unwrap_err().contains("10s"), "{text}");
        }
    }

    #[test]
    fn rotation_is_by_size_or_by_time() {
        let rotation = |text| parse_rotation(text).map(|rotation| (rotation.bytes, rotation.age));
        assert_eq!(rotation("100M"), Ok((Some(100 << 20), None)));
        assert_eq!(rotation("65536"), Ok((Some(1 << 16), None)));
        assert_eq!(rotation("1h"), Ok((None, Some(Nanos::from_secs(3_600)))));
        assert_eq!(rotation("10m"), Ok((None, Some(Nanos::from_secs(600)))));
        for text in ["1K", "10ms", "soon", "", "M", "-1h"] {
            assert!(rotation(text).unwrap_err().contains("100M"), "{text}");
        }
    }
}
