//! Durations and sizes.

use std::fmt;

use tracer_core::event::Nanos;

use crate::report::text::write::{OrDash, Text, display_as_text, write_digits};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// Converts a duration to microseconds with a fraction.
#[expect(clippy::cast_precision_loss, reason = "exact up to 104 days, then to the microsecond")]
pub(crate) fn microseconds(duration: Nanos) -> f64 {
    duration.0 as f64 / 1000.0
}

/// Returns a duration in a unit that suits it, with three digits or more, or `-`.
pub(in crate::report) fn duration(duration: Option<Nanos>) -> OrDash<DurationText> {
    OrDash(duration.map(DurationText))
}

/// Formats a duration as [`duration`] does.
pub fn duration_text(duration: Option<Nanos>) -> String {
    self::duration(duration).to_string()
}

/// A duration.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct DurationText(Nanos);

impl Text for DurationText {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        // The longest, 584 years, has 11 characters.
        match self.0.0 {
            ns @ ..MS => {
                rounded(text, 1, ns, 1_000)?;
                text.write_str("us")
            }
            ns @ MS..SECOND => {
                rounded(text, 2, ns, MS)?;
                text.write_str("ms")
            }
            ns @ ..60_000_000_000 => {
                rounded(text, 2, ns, SECOND)?;
                text.write_char('s')
            }
            ns => {
                let seconds = ns / SECOND;
                let (whole, unit, rest, unit_of_rest) = match seconds {
                    ..3600 => (seconds / 60, 'm', seconds % 60, 's'),
                    _ => (seconds / 3600, 'h', seconds / 60 % 60, 'm'),
                };
                whole.write_to(text)?;
                text.write_char(unit)?;
                write_digits(text, rest, 2)?;
                text.write_char(unit_of_rest)
            }
        }
    }
}

/// Writes `count / parts` with so many decimals; rounds half up.
fn rounded(text: &mut impl fmt::Write, decimals: u32, count: u64, parts: u64) -> fmt::Result {
    let scale = 10_u64.pow(decimals);
    // `parts` is at most 2^40, so this does not overflow.
    let fraction = (count % parts * scale + parts / 2) / parts;
    (count / parts + fraction / scale).write_to(text)?;
    text.write_char('.')?;
    write_digits(text, fraction % scale, decimals)
}

/// Formats a round duration without a fraction: `50us`, `2ms`, `15s`.
pub(in crate::report) fn short_duration(duration: Nanos) -> String {
    let Nanos(nanoseconds) = duration;
    match nanoseconds {
        ..MS => format!("{}us", nanoseconds / 1_000),
        MS..SECOND => format!("{}ms", nanoseconds / MS),
        _ => format!("{}s", nanoseconds / SECOND),
    }
}

/// Formats a duration for a sentence, with a space before the unit: `40 ms`, `3.02 s`.
pub(in crate::report) fn spaced_duration(duration: Nanos) -> String {
    let Nanos(nanoseconds) = duration;
    let (value, unit) = match nanoseconds {
        ..MS => (three_digits(nanoseconds, 1_000), "µs"),
        MS..SECOND => (three_digits(nanoseconds, MS), "ms"),
        _ if nanoseconds < 60 * SECOND => (three_digits(nanoseconds, SECOND), "s"),
        _ => return duration_text(Some(duration)),
    };
    format!("{value} {unit}")
}

/// Formats `nanoseconds / unit` with three significant digits, without trailing zeros.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn three_digits(nanoseconds: u64, unit: u64) -> String {
    let value = nanoseconds as f64 / unit as f64;
    let text = match value {
        ..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => return format!("{value:.0}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns a number of bytes in a binary unit that suits it, or `-`.
pub(in crate::report) fn bytes(count: Option<u64>) -> OrDash<ByteCount> {
    OrDash(count.map(ByteCount))
}

/// Formats a number of bytes as [`bytes`] does.
pub fn bytes_text(count: Option<u64>) -> String {
    bytes(count).to_string()
}

/// A number of bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct ByteCount(u64);

impl Text for ByteCount {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        // The longest, 2^64 bytes, has 11 characters.
        let mut size = 1_u64;
        for unit in ['B', 'K', 'M', 'G', 'T'] {
            // At most three digits before the point.
            if self.0 / size < 1000 || unit == 'T' {
                if unit == 'B' {
                    self.0.write_to(text)?;
                } else {
                    rounded(text, 1, self.0, size)?;
                }
                return text.write_char(unit);
            }
            size <<= 10;
        }
        Ok(())
    }
}

display_as_text!(DurationText, ByteCount);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_suitable_unit() {
        let shown: Vec<_> = [12_300, 1_234_000, 79_123_000, 3_020_000_000, 75_000_000_000, 7_380_000_000_000]
            .map(|ns| duration(Some(Nanos(ns))).to_string())
            .into();
        assert_eq!(shown, ["12.3us", "1.23ms", "79.12ms", "3.02s", "1m15s", "2h03m"]);
        assert_eq!(format!("{:>3}", duration(None)), "  -");
    }

    #[test]
    fn halves_are_rounded_up() {
        let shown = [250, 1_150, 1_005_000, 999_949, 999_950].map(|ns| duration(Some(Nanos(ns))).to_string());
        assert_eq!(shown, ["0.3us", "1.2us", "1.01ms", "999.9us", "1000.0us"]);
        assert_eq!(bytes(Some(1_280)).to_string(), "1.3K");
    }

    #[test]
    fn sizes_have_a_suitable_unit() {
        let shown: Vec<_> =
            [0, 999, 1_000, 1_536, 5 << 20, 3 << 40].map(|count| bytes(Some(count)).to_string()).into();
        assert_eq!(shown, ["0B", "999B", "1.0K", "1.5K", "5.0M", "3.0T"]);
    }

    #[test]
    fn the_longest_texts_fit() {
        assert_eq!(duration(Some(Nanos::MAX)).to_string(), "5124095h34m");
        assert_eq!(bytes(Some(u64::MAX)).to_string(), "16777216.0T");
    }
}
