//! Times as text.

use std::{
    cell::Cell,
    fmt::{self, Write as _},
};

use arrayvec::ArrayString;
use jiff::{Timestamp as WallTime, tz::TimeZone};
use serde::{Serialize, Serializer};

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

impl Rfc3339 {
    fn text(&self) -> ArrayString<40> {
        thread_local!(static LAST: Cell<Option<Second>> = const { Cell::new(None) });
        let (second, nanoseconds) = second_of(self.time, self.clock);
        let mut text = ArrayString::new();
        let prefix = kept(&LAST, second, TimeStyle::Utc, |second, text| {
            write!(text, "{}", second.strftime("%Y-%m-%dT%H:%M:%S"))
        });
        let _ = write!(text, "{prefix}.{nanoseconds:09}Z");
        text
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.text())
    }
}

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// A time as RFC 3339 in UTC with nanoseconds.
pub fn rfc3339(time: Timestamp, clock: ClockOffset) -> Rfc3339 {
    Rfc3339 { time, clock }
}

/// A time in UTC to the second.
pub fn utc(time: Timestamp, clock: ClockOffset) -> String {
    second_of(time, clock).0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Begins a line with a time, where times are shown.
pub(super) fn write_time(
    line: &mut String,
    time: Timestamp,
    clock: ClockOffset,
    style: TimeStyle,
) -> fmt::Result {
    match style {
        TimeStyle::None => Ok(()),
        TimeStyle::Local | TimeStyle::Utc => write_time_of_day(line, time, clock, style),
    }
}

/// Begins the head of such lines.
pub(super) fn write_time_head(line: &mut String, name: &str, style: TimeStyle) -> fmt::Result {
    match style {
        TimeStyle::None => Ok(()),
        TimeStyle::Local | TimeStyle::Utc => write!(line, "{name:<15} "),
    }
}

/// A time of day with microseconds, and a space.
fn write_time_of_day(
    line: &mut String,
    time: Timestamp,
    clock: ClockOffset,
    style: TimeStyle,
) -> fmt::Result {
    thread_local!(static LAST: Cell<Option<Second>> = const { Cell::new(None) });
    let (second, nanoseconds) = second_of(time, clock);
    let prefix = kept(&LAST, second, style, |second, text| {
        let zone = if style == TimeStyle::Local { TimeZone::system() } else { TimeZone::UTC };
        write!(text, "{}", second.to_zoned(zone).strftime("%H:%M:%S"))
    });
    write!(line, "{prefix}.{:06} ", nanoseconds / 1_000)
}

/// The second that a time lies in, and the nanoseconds from its beginning; those of 1970 where no calendar has it.
fn second_of(time: Timestamp, clock: ClockOffset) -> (WallTime, u32) {
    const NANOSECONDS: i128 = 1_000_000_000;
    let utc_ns = i128::from(time.0) + clock.to_utc_ns;
    let second = i64::try_from(utc_ns.div_euclid(NANOSECONDS)).ok();
    match second.and_then(|second| WallTime::from_second(second).ok()) {
        Some(second) => (second, u32::try_from(utc_ns.rem_euclid(NANOSECONDS)).unwrap_or_default()),
        None => (WallTime::UNIX_EPOCH, 0),
    }
}

/// A second and its text, which takes longer to make than the rest of a line and is the same for most lines: no time
/// zone changes within a second.
#[derive(Clone, Copy)]
struct Second {
    begins: WallTime,
    style: TimeStyle,
    text: ArrayString<24>,
}

/// The text of a second: the one of last time, or what `write` makes.
fn kept(
    last: &'static std::thread::LocalKey<Cell<Option<Second>>>,
    second: WallTime,
    style: TimeStyle,
    write: impl FnOnce(WallTime, &mut ArrayString<24>) -> fmt::Result,
) -> ArrayString<24> {
    if let Some(known) = last.get()
        && known.begins == second
        && known.style == style
    {
        return known.text;
    }
    let mut text = ArrayString::new();
    let _ = write(second, &mut text);
    last.set(Some(Second { begins: second, style, text }));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of_day(time: Timestamp, clock: ClockOffset, style: TimeStyle) -> String {
        let mut line = String::new();
        write_time(&mut line, time, clock, style).unwrap();
        line
    }

    #[test]
    fn times_are_utc_with_nanoseconds() {
        let clock = ClockOffset { to_utc_ns: 1_700_000_000_000_000_000 };
        let time = Timestamp(123_456_789);
        assert_eq!(rfc3339(time, clock).to_string(), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(of_day(time, clock, TimeStyle::Utc), "22:13:20.123456 ");
        assert_eq!(of_day(time, clock, TimeStyle::None), "");
        assert_eq!(utc(time, clock), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn each_style_has_its_own_text_of_a_second() {
        let clock = ClockOffset { to_utc_ns: 1_700_000_000_000_000_000 };
        let local = WallTime::from_second(1_700_000_000).unwrap().to_zoned(TimeZone::system());
        for _ in 0..2 {
            assert_eq!(of_day(Timestamp(0), clock, TimeStyle::Utc), "22:13:20.000000 ");
            let expected = format!("{}.000000 ", local.strftime("%H:%M:%S"));
            assert_eq!(of_day(Timestamp(0), clock, TimeStyle::Local), expected);
        }
    }

    proptest! {
        /// Against the library's own text of the whole time.
        #[test]
        fn every_time_is_the_librarys(ns in 0u64..1 << 40, offset in -1i128 << 62..1i128 << 62) {
            let shown = rfc3339(Timestamp(ns), ClockOffset { to_utc_ns: offset }).to_string();
            let expected = WallTime::from_nanosecond(i128::from(ns) + offset).unwrap();
            prop_assert_eq!(shown, format!("{expected:.9}"));
        }

        #[test]
        fn any_time_is_some_text(ns: u64, offset in -1i128 << 80..1i128 << 80) {
            let shown = rfc3339(Timestamp(ns), ClockOffset { to_utc_ns: offset }).to_string();
            prop_assert!(shown.ends_with('Z'));
        }
    }
}
