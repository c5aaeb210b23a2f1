//! The options of the flight recorder, which `record` and `serve` have.

use std::time::Duration;

use clap::Args;
use tracer_core::{
    analysis::{FreezeCondition, FreezeCount, FreezeMeasure, FreezeTriggerOptions},
    event::Nanos,
    lifecycle::Thresholds,
};

use crate::cli::parsers::parse_duration;

/// Length of the window of conditions, unless it is given.
const DEFAULT_WINDOW: Duration = Duration::from_secs(10);
/// Shortest time between two files, unless it is given.
const DEFAULT_PAUSE: Duration = Duration::from_secs(300);
/// Files that are kept, unless it is given.
const DEFAULT_FILES: u32 = 10;
/// Smallest ring, bytes.
const MIN_RING: u64 = 1 << 20;
/// Largest ring, bytes.
const MAX_RING: u64 = 64 << 30;

/// The heading in the help.
const HEADING: &str = "Flight recorder";

/// Options of the flight recorder.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlightArguments {
    /// Keep the last events in this much memory, such as 64M, and write them to a file only when a condition holds, on
    /// SIGUSR1, or on a request over HTTP
    #[arg(long, value_name = "SIZE", help_heading = HEADING, value_parser = parse_ring)]
    pub(crate) ring: Option<u64>,
    /// Condition that writes a file, such as 'handshake_p99>1s' or 'failures>100'; repeat for more
    #[arg(long, value_name = "CONDITION", help_heading = HEADING, value_delimiter = ',', value_parser = parse_condition)]
    pub(crate) freeze_on: Vec<FreezeCondition>,
    /// Length of the window that conditions look at, from 1s to 10m [default: 10s]
    #[arg(long, value_name = "TIME", help_heading = HEADING, value_parser = parse_window)]
    pub(crate) freeze_window: Option<Duration>,
    /// Shortest time between two files that conditions write [default: 5m]
    #[arg(long, value_name = "TIME", help_heading = HEADING, value_parser = parse_duration)]
    pub(crate) freeze_pause: Option<Duration>,
    /// Keep this many frozen files and remove the oldest, those of earlier runs included [default: 10]
    #[arg(long, value_name = "N", help_heading = HEADING, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) freeze_files: Option<u32>,
}

impl FlightArguments {
    /// Returns when a file is written.
    pub(crate) fn trigger(&self, thresholds: Thresholds) -> FreezeTriggerOptions {
        FreezeTriggerOptions {
            conditions: self.freeze_on.clone(),
            window: Nanos::from_duration(self.freeze_window.unwrap_or(DEFAULT_WINDOW)),
            pause: Nanos::from_duration(self.freeze_pause.unwrap_or(DEFAULT_PAUSE)),
            thresholds,
        }
    }

    /// Returns how many files are kept.
    pub(crate) fn files(&self) -> usize {
        usize::try_from(self.freeze_files.unwrap_or(DEFAULT_FILES)).unwrap_or(usize::MAX)
    }

    /// Returns the line that says what is kept and when it is written.
    pub(crate) fn announcement(&self, files: &str) -> Option<String> {
        let mebibytes = self.ring? >> 20;
        let conditions: Vec<&str> = self.freeze_on.iter().map(|condition| condition.text.as_str()).collect();
        let when = match conditions.as_slice() {
            [] => String::new(),
            conditions => format!("{} or ", conditions.join(" or ")),
        };
        Some(format!(
            "the last {mebibytes} MiB of events are kept in memory; {when}SIGUSR1 writes them to {files}"
        ))
    }

    /// Returns the error of options that have no use without the ring.
    pub(super) fn conflict(&self) -> Option<&'static str> {
        if self.ring.is_some() {
            None
        } else if !self.freeze_on.is_empty() {
            Some("--freeze-on needs --ring, the memory for the last events; add --ring 64M")
        } else if self.freeze_window.is_some() || self.freeze_pause.is_some() || self.freeze_files.is_some() {
            Some(
                "--freeze-window, --freeze-pause and --freeze-files need --ring, the memory for the last events; add --ring \
                 64M",
            )
        } else {
            None
        }
    }
}

/// Parses the size of the ring, such as `64M`.
fn parse_ring(text: &str) -> Result<u64, String> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .ok()
        .filter(|size| (MIN_RING..=MAX_RING).contains(size))
        .ok_or_else(|| format!("`{text}` is not a size from 1M to 64G: use 16M, 64M or 1G"))
}

/// Parses the length of the window, such as `10s`.
fn parse_window(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .ok()
        .filter(|window| (Duration::from_secs(1)..=Duration::from_secs(600)).contains(window))
        .ok_or_else(|| format!("`{text}` is not a duration from 1s to 10m: use 10s, 30s or 1m"))
}

/// Parses a condition, such as `handshake_p99>1s` or `failures>100`.
fn parse_condition(text: &str) -> Result<FreezeCondition, String> {
    let wrong = |what: &str| {
        let counts = FreezeCount::ALL.map(FreezeCount::name).join(", ");
        format!(
            "`{text}` {what}: use handshake_p1 to handshake_p99 or handshake_max with a duration, as in \
             'handshake_p99>1s', or {counts} or stuck with a number, as in 'failures>100'"
        )
    };
    let Some((name, limit)) = text.split_once('>').map(|(name, limit)| (name.trim(), limit.trim())) else {
        return Err(wrong("is not a condition, it has no `>`, which a shell takes unless it is quoted"));
    };
    let text = format!("{name}>{limit}");
    let measure =
        FreezeMeasure::parse(name).ok_or_else(|| wrong(&format!("has the unknown measure `{name}`")))?;
    let limit = if measure.is_duration() {
        let duration = parse_duration(limit).ok().filter(|_| limit.parse::<u64>().is_err());
        duration
            .map(|duration| Nanos::from_duration(duration).0)
            .ok_or_else(|| wrong(&format!("compares a duration with `{limit}`")))?
    } else {
        limit.parse().map_err(|_| wrong(&format!("compares a number with `{limit}`")))?
    };
    Ok(FreezeCondition { measure, limit, text })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> (FreezeMeasure, u64, String) {
        let FreezeCondition { measure, limit, text } = parse_condition(text).unwrap();
        (measure, limit, text)
    }

    #[test]
    fn conditions_have_a_measure_and_a_limit() {
        let second = 1_000_000_000;
        let slow = FreezeMeasure::HandshakePercentile(99);
        assert_eq!(parsed("handshake_p99>1s"), (slow, second, "handshake_p99>1s".to_owned()));
        assert_eq!(parsed(" handshake_p99 > 1m30s "), (slow, 90 * second, "handshake_p99>1m30s".to_owned()));
        assert_eq!(parsed("handshake_max>250ms").1, second / 4);
        for count in FreezeCount::ALL {
            let text = format!("{}>7", count.name());
            assert_eq!(parsed(&text), (FreezeMeasure::Count(count), 7, text));
        }
        assert_eq!(parsed("stuck>0").0, FreezeMeasure::Stuck);
    }

    #[test]
    fn an_invalid_condition_lists_what_may_be_used() {
        for (text, part) in [
            ("", "has no `>`"),
            ("handshake_p99", "which a shell takes unless it is quoted"),
            ("p99>1s", "the unknown measure `p99`"),
            ("handshake_p100>1s", "the unknown measure `handshake_p100`"),
            ("handshake_p99>=1s", "compares a duration with `=1s`"),
            ("handshake_p99>1", "compares a duration with `1`"),
            ("handshake_p99>", "compares a duration with ``"),
            ("failures>1s", "compares a number with `1s`"),
            ("failures>-1", "compares a number with `-1`"),
            ("failures>5%", "compares a number with `5%`"),
            ("stuck>>5", "compares a number with `>5`"),
        ] {
            let error = parse_condition(text).unwrap_err();
            let names = FreezeCount::ALL.map(FreezeCount::name);
            let others = ["handshake_p99", "handshake_max", "stuck", part];
            for word in names.into_iter().chain(others) {
                assert!(error.contains(word), "{word} not in: {error}");
            }
        }
    }

    #[test]
    fn sizes_and_windows_have_bounds() {
        assert_eq!((parse_ring("1M"), parse_ring("64M")), (Ok(1 << 20), Ok(64 << 20)));
        for text in ["512K", "65G", "much", ""] {
            assert!(parse_ring(text).unwrap_err().contains("64M"), "{text}");
        }
        assert_eq!(parse_window("10m"), Ok(Duration::from_secs(600)));
        for text in ["999ms", "11m", "5", ""] {
            assert!(parse_window(text).unwrap_err().contains("10s"), "{text}");
        }
    }

    #[test]
    fn options_without_a_ring_are_refused() {
        let mut arguments = FlightArguments::default();
        assert_eq!((arguments.conflict(), arguments.announcement("x")), (None, None));
        arguments.freeze_files = Some(3);
        assert!(arguments.conflict().unwrap().contains("--freeze-files"));
        arguments.freeze_on = vec![parse_condition("failures>1").unwrap()];
        assert!(arguments.conflict().unwrap().starts_with("--freeze-on needs --ring"));
        arguments.ring = Some(64 << 20);
        assert_eq!(arguments.conflict(), None);
        assert_eq!(
            arguments.announcement("a.TIME.arrows").unwrap(),
            "the last 64 MiB of events are kept in memory; failures>1 or SIGUSR1 writes them to a.TIME.arrows"
        );
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_parsed_parses_again(text in "[a-z_0-9 >.,%-]{0,24}|(handshake_p[0-9]{1,3}|stuck|failures) ?> ?[0-9]{1,21}(ms|s|)") {
            if let Ok(condition) = parse_condition(&text) {
                prop_assert_eq!(parse_condition(&condition.text), Ok(condition));
            }
        }
    }
}
