//! Times of the wall clock, as tables and machines read them.

use std::{
    cell::Cell,
    fmt::{self, Write as _},
};

use arrayvec::ArrayString;
use jiff::{Timestamp as WallTime, tz::TimeZone};
use serde::{Serialize, Serializer};
use tracer_core::event::{ClockOffset, Timestamp};

use crate::report::text::{Text, display_as_text, write_digits};

/// How times are shown in tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TimeStyle {
    /// The local time zone.
    #[default]
    Local,
    /// UTC.
    Utc,
    /// Not at all.
    None,
}

/// A time as RFC 3339 in UTC with nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339 {
    pub(super) time: Timestamp,
    pub(super) clock: ClockOffset,
}

/// A time as RFC 3339 in UTC with nanoseconds.
pub fn rfc3339(time: Timestamp, clock: ClockOffset) -> Rfc3339 {
    Rfc3339 { time, clock }
}

impl Text for Rfc3339 {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        let Some((second, nanosecond)) = near(self.time, self.clock) else {
            return write!(text, "{:.9}", any(self.time, self.clock));
        };
        UTC.with(|seconds| seconds.write(second, text, |second| second.strftime("%Y-%m-%dT%H:%M:%S.")))?;
        write_digits(text, u64::from(nanosecond), 9)?;
        text.write_char('Z')
    }
}

display_as_text!(Rfc3339);

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The longest, of the year -9999, has 37 characters.
        let mut text = ArrayString::<40>::new();
        self.write_to(&mut text).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

/// A time in UTC to the second.
pub fn utc(time: Timestamp, clock: ClockOffset) -> String {
    any(time, clock).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Begins a line with a time of day to the microsecond, where times are shown.
pub(super) fn write_time(
    line: &mut String,
    time: Timestamp,
    clock: ClockOffset,
    style: TimeStyle,
) -> fmt::Result {
    let (seconds, zone): (_, fn() -> TimeZone) = match style {
        TimeStyle::None => return Ok(()),
        TimeStyle::Utc => (&UTC_OF_DAY, || TimeZone::UTC),
        TimeStyle::Local => (&LOCAL_OF_DAY, TimeZone::system),
    };
    let Some((second, nanosecond)) = near(time, clock) else {
        let time = any(time, clock).to_zoned(zone());
        return write!(line, "{} ", time.strftime("%H:%M:%S.%6f"));
    };
    seconds.with(|seconds| {
        seconds.write(second, line, |second| second.to_zoned(zone()).strftime("%H:%M:%S."))
    })?;
    write_digits(line, u64::from(nanosecond / 1_000), 6)?;
    line.push(' ');
    Ok(())
}

/// Begins the head of such lines.
pub(super) fn write_time_head(line: &mut String, name: &str, style: TimeStyle) -> fmt::Result {
    match style {
        TimeStyle::None => Ok(()),
        _ => write!(line, "{name:<15} "),
    }
}

thread_local! {
    static UTC: Seconds = const { Seconds::none() };
    static UTC_OF_DAY: Seconds = const { Seconds::none() };
    static LOCAL_OF_DAY: Seconds = const { Seconds::none() };
}

/// Texts of seconds that were written lately: of a hundred thousand rows of a busy second, all but one only need a
/// copy. There is one of each remainder, as the beginning of a connection is of another second than its end.
struct Seconds([Cell<Option<(i64, ArrayString<24>)>>; 64]);

impl Seconds {
    const fn none() -> Self {
        Self([const { Cell::new(None) }; 64])
    }

    /// Writes the text of a second since 1970, which `make` makes.
    fn write<T: fmt::Display>(
        &self,
        second: i64,
        text: &mut impl fmt::Write,
        make: impl FnOnce(WallTime) -> T,
    ) -> fmt::Result {
        let place = &self.0[usize::try_from(second.rem_euclid(64)).unwrap_or_default()];
        if let Some((kept, known)) = place.get()
            && kept == second
        {
            return text.write_str(&known);
        }
        let mut made = ArrayString::new();
        write!(made, "{}", make(WallTime::from_second(second).unwrap_or(WallTime::UNIX_EPOCH)))?;
        place.set(Some((second, made)));
        text.write_str(&made)
    }
}

/// Seconds since 1970 and nanoseconds, of a time between the years 1677 and 2262, as those of all clocks are.
fn near(time: Timestamp, clock: ClockOffset) -> Option<(i64, u32)> {
    const SECOND_NS: i64 = 1_000_000_000;
    let ns = i64::try_from(i128::from(time.0) + clock.to_utc_ns).ok()?;
    let nanosecond = u32::try_from(ns.rem_euclid(SECOND_NS)).unwrap_or_default();
    Some((ns.div_euclid(SECOND_NS), nanosecond))
}

/// Any time of a damaged recording; the beginning of 1970 where the calendar has no such time.
fn any(time: Timestamp, clock: ClockOffset) -> WallTime {
    WallTime::from_nanosecond(i128::from(time.0) + clock.to_utc_ns).unwrap_or(WallTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_day(ns: u64, clock: ClockOffset, style: TimeStyle) -> String {
        let mut text = String::new();
        write_time(&mut text, Timestamp(ns), clock, style).unwrap();
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
    fn seconds_with_one_remainder_are_told_apart() {
        let clock = ClockOffset { to_utc_ns: 0 };
        for second in [0, 64, 0, 128, 64, 64, 1] {
            let shown = rfc3339(Timestamp(second * 1_000_000_000 + 5), clock).to_string();
            let known = WallTime::new(i64::try_from(second).unwrap(), 5).unwrap();
            assert_eq!(shown, format!("{known:.9}"));
        }
    }

    proptest! {
        #[test]
        fn times_are_those_of_the_calendar(ns: u64, offset in any_offset()) {
            let clock = ClockOffset { to_utc_ns: offset };
            let known = WallTime::from_nanosecond(i128::from(ns) + offset).unwrap_or(WallTime::UNIX_EPOCH);
            // The second time from what is kept.
            for _ in 0..2 {
                prop_assert_eq!(rfc3339(Timestamp(ns), clock).to_string(), format!("{known:.9}"));
                prop_assert_eq!(of_day(ns, clock, TimeStyle::Utc), known.strftime("%H:%M:%S.%6f ").to_string());
                let local = known.to_zoned(TimeZone::system()).strftime("%H:%M:%S.%6f ").to_string();
                prop_assert_eq!(of_day(ns, clock, TimeStyle::Local), local);
            }
        }
    }

    /// Of this century, of any that the calendar has, and beyond.
    fn any_offset() -> impl Strategy<Value = i128> {
        let within = |bits: u32| -1_i128 << bits..1_i128 << bits;
        prop_oneof![within(61), within(69), within(80)]
    }
}
