//! Times of the wall clock, as tables and machines read them.

use std::{
    cell::Cell,
    fmt::{self, Write as _},
};

use arrayvec::ArrayString;
use jiff::{Timestamp as WallTime, tz::TimeZone};
use serde::{Serialize, Serializer};

use super::text::{Text, display_as_text, write_digits};
use crate::{event::Timestamp, source::ClockOffset};

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
        let (second, nanosecond) = wall(self.time, self.clock);
        UTC.with(|seconds| seconds.write(second, text, |second| second.strftime("%Y-%m-%dT%H:%M:%S.")))?;
        write_digits(text, u64::from(nanosecond), 9)?;
        text.write_char('Z')
    }
}

display_as_text!(Rfc3339);

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // It has 30 characters: its year has four digits (`wall`).
        let mut text = ArrayString::<40>::new();
        self.write_to(&mut text).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

/// A time in UTC to the second.
pub fn utc(time: Timestamp, clock: ClockOffset) -> String {
    let mut text = rfc3339(time, clock).to_string();
    // Without the fraction: the point and nine digits.
    text.replace_range(19..29, "");
    text
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
    let (second, nanosecond) = wall(time, clock);
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

/// A time as seconds since 1970 and nanoseconds; the beginning of 1970 where the calendar has no such time.
fn wall(time: Timestamp, clock: ClockOffset) -> (i64, u32) {
    const SECOND_NS: i64 = 1_000_000_000;
    let ns = i128::from(time.0) + clock.to_utc_ns;
    match i64::try_from(ns) {
        Ok(ns) => {
            // Less than a second.
            let nanosecond = u32::try_from(ns.rem_euclid(SECOND_NS)).unwrap_or_default();
            (ns.div_euclid(SECOND_NS), nanosecond)
        }
        // Beyond the year 2262, or before 1677: no clock of a host, but perhaps one of a recording.
        Err(_) => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        fn any_time_is_some_text(ns: u64, offset in -1i128 << 80..1i128 << 80) {
            let shown = rfc3339(Timestamp(ns), ClockOffset { to_utc_ns: offset }).to_string();
            prop_assert!(shown.ends_with('Z'));
        }

        #[test]
        fn times_are_those_of_the_calendar(ns: u64, offset in -1i64 << 62..1i64 << 62) {
            let clock = ClockOffset { to_utc_ns: i128::from(offset) };
            let ns = ns >> 2;
            let known = WallTime::from_nanosecond(i128::from(ns) + i128::from(offset)).unwrap();
            for _ in 0..2 {
                prop_assert_eq!(rfc3339(Timestamp(ns), clock).to_string(), format!("{known:.9}"));
                prop_assert_eq!(of_day(ns, clock, TimeStyle::Utc), known.strftime("%H:%M:%S.%6f ").to_string());
                let local = known.to_zoned(TimeZone::system()).strftime("%H:%M:%S.%6f ").to_string();
                prop_assert_eq!(of_day(ns, clock, TimeStyle::Local), local);
            }
        }
    }
}
