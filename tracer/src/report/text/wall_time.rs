//! Wall-clock times: RFC 3339 for machines, times of day for tables.

use std::{
    cell::Cell,
    fmt::{self, Write as _},
};

use arrayvec::ArrayString;
use jiff::{Timestamp as WallTime, tz::TimeZone};
use tracer_core::event::{ClockOffset, Timestamp};

use crate::report::text::write::{Text, display_as_text, write_digits};

/// How tables show times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TimeStyle {
    /// The local time zone.
    #[default]
    Local,
    /// UTC.
    Utc,
    /// No times.
    None,
}

/// A wall-clock time, shown as RFC 3339 in UTC with nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339 {
    time: Timestamp,
    clock: ClockOffset,
}

/// Converts a monotonic time to a wall-clock time.
pub fn rfc3339(time: Timestamp, clock: ClockOffset) -> Rfc3339 {
    Rfc3339 { time, clock }
}

impl Rfc3339 {
    /// Formats the time without an allocation.
    pub(in crate::report) fn to_text(self) -> ArrayString<40> {
        // The longest, of the year -9999, has 37 characters.
        let mut text = ArrayString::new();
        let _ = self.write_to(&mut text);
        text
    }

    /// Returns nanoseconds since 1970-01-01T00:00:00Z, between the years 1677 and 2262.
    pub(in crate::report) fn nanoseconds(self) -> Option<i64> {
        i64::try_from(in_calendar(self).as_nanosecond()).ok()
    }
}

impl Text for Rfc3339 {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        let Some((second, nanosecond)) = in_i64(*self) else {
            return write!(text, "{:.9}", in_calendar(*self));
        };
        UTC.with(|seconds| seconds.write(second, text, |second| second.strftime("%Y-%m-%dT%H:%M:%S.")))?;
        write_digits(text, u64::from(nanosecond), 9)?;
        text.write_char('Z')
    }
}

display_as_text!(Rfc3339);

/// Formats a time in UTC to the second.
pub fn utc(time: Timestamp, clock: ClockOffset) -> String {
    in_calendar(rfc3339(time, clock)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Writes a time of day to the microsecond and a space, unless times are off.
pub(in crate::report) fn write_time_of_day(
    line: &mut String,
    time: Rfc3339,
    style: TimeStyle,
) -> fmt::Result {
    let (seconds, zone): (_, fn() -> TimeZone) = match style {
        TimeStyle::None => return Ok(()),
        TimeStyle::Utc => (&UTC_OF_DAY, || TimeZone::UTC),
        TimeStyle::Local => (&LOCAL_OF_DAY, TimeZone::system),
    };
    let Some((second, nanosecond)) = in_i64(time) else {
        let time = in_calendar(time).to_zoned(zone());
        return write!(line, "{} ", time.strftime("%H:%M:%S.%6f"));
    };
    seconds.with(|seconds| {
        seconds.write(second, line, |second| second.to_zoned(zone()).strftime("%H:%M:%S."))
    })?;
    write_digits(line, u64::from(nanosecond / 1_000), 6)?;
    line.push(' ');
    Ok(())
}

/// Returns the characters of the column that [`write_time_of_day`] fills, with the space behind it.
pub(in crate::report) fn time_width(style: TimeStyle) -> usize {
    if style == TimeStyle::None { 0 } else { 16 }
}

/// Writes the title of the column that [`write_time_of_day`] fills.
pub(in crate::report) fn write_time_title(line: &mut String, title: &str, style: TimeStyle) -> fmt::Result {
    match style {
        TimeStyle::None => Ok(()),
        _ => write!(line, "{title:<15} "),
    }
}

thread_local! {
    static UTC: SecondCache = const { SecondCache::new() };
    static UTC_OF_DAY: SecondCache = const { SecondCache::new() };
    static LOCAL_OF_DAY: SecondCache = const { SecondCache::new() };
}

/// Formatted seconds, so that most rows copy a text instead of computing a date.
///
/// One entry per second modulo 64, because a row may have two times that are some seconds apart.
struct SecondCache([Cell<Option<(i64, ArrayString<24>)>>; 64]);

impl SecondCache {
    const fn new() -> Self {
        Self([const { Cell::new(None) }; 64])
    }

    /// Writes the text of a second since 1970. `format` makes it on a cache miss.
    fn write<T: fmt::Display>(
        &self,
        second: i64,
        text: &mut impl fmt::Write,
        format: impl FnOnce(WallTime) -> T,
    ) -> fmt::Result {
        let entry = &self.0[usize::try_from(second.rem_euclid(64)).unwrap_or_default()];
        if let Some((cached, formatted)) = entry.get()
            && cached == second
        {
            return text.write_str(&formatted);
        }
        let mut formatted = ArrayString::new();
        write!(formatted, "{}", format(WallTime::from_second(second).unwrap_or(WallTime::UNIX_EPOCH)))?;
        entry.set(Some((second, formatted)));
        text.write_str(&formatted)
    }
}

/// Returns seconds since 1970 and nanoseconds, for a time between the years 1677 and 2262.
fn in_i64(Rfc3339 { time, clock }: Rfc3339) -> Option<(i64, u32)> {
    const SECOND_NS: i64 = 1_000_000_000;
    let ns = i64::try_from(i128::from(time.0) + clock.to_utc_ns).ok()?;
    let nanosecond = u32::try_from(ns.rem_euclid(SECOND_NS)).unwrap_or_default();
    Some((ns.div_euclid(SECOND_NS), nanosecond))
}

/// Returns the calendar time; the start of 1970 for times outside the calendar, as a damaged recording may have.
fn in_calendar(Rfc3339 { time, clock }: Rfc3339) -> WallTime {
    WallTime::from_nanosecond(i128::from(time.0) + clock.to_utc_ns).unwrap_or(WallTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_day(ns: u64, clock: ClockOffset, style: TimeStyle) -> String {
        let mut text = String::new();
        write_time_of_day(&mut text, rfc3339(Timestamp(ns), clock), style).unwrap();
        text
    }

    #[test]
    fn times_are_utc_with_nanoseconds() {
        let clock = ClockOffset { to_utc_ns: 1_700_000_000_000_000_000 };
        assert_eq!(rfc3339(Timestamp(123_456_789), clock).to_string(), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(of_day(123_456_789, clock, TimeStyle::Utc), "22:13:20.123456 ");
        assert_eq!(of_day(123_456_789, clock, TimeStyle::None), "");
        assert_eq!(utc(Timestamp(123_456_789), clock), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn seconds_in_the_same_cache_entry_are_distinguished() {
        let clock = ClockOffset { to_utc_ns: 0 };
        for second in [0, 64, 0, 128, 64, 64, 1] {
            let shown = rfc3339(Timestamp(second * 1_000_000_000 + 5), clock).to_string();
            let known = WallTime::new(i64::try_from(second).unwrap(), 5).unwrap();
            assert_eq!(shown, format!("{known:.9}"));
        }
    }

    proptest! {
        #[test]
        fn times_agree_with_the_calendar(ns: u64, offset in any_offset()) {
            let clock = ClockOffset { to_utc_ns: offset };
            let known = WallTime::from_nanosecond(i128::from(ns) + offset).unwrap_or(WallTime::UNIX_EPOCH);
            // The second time from the cache.
            for _ in 0..2 {
                prop_assert_eq!(rfc3339(Timestamp(ns), clock).to_string(), format!("{known:.9}"));
                prop_assert_eq!(of_day(ns, clock, TimeStyle::Utc), known.strftime("%H:%M:%S.%6f ").to_string());
                let local = known.to_zoned(TimeZone::system()).strftime("%H:%M:%S.%6f ").to_string();
                prop_assert_eq!(of_day(ns, clock, TimeStyle::Local), local);
            }
        }
    }

    /// Offsets within the range of `i64`, within the calendar, and beyond.
    fn any_offset() -> impl Strategy<Value = i128> {
        let within = |bits: u32| -1_i128 << bits..1_i128 << bits;
        prop_oneof![within(61), within(69), within(80)]
    }
}
