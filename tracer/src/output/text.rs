//! Text for people and machines: escaping, times, durations, endpoints.

use std::fmt::{self, Write as _};

use jiff::{Timestamp as WallTime, tz::TimeZone};
use serde::{Serialize, Serializer};

use crate::{
    event::{Endpoint, Process, SocketId, Timestamp},
    source::ClockOffset,
};

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

/// Makes text from outside safe for a terminal and a log: whatever is not a printable character of valid
/// UTF-8 becomes `\xNN`, and a backslash is doubled, so that nothing can be mistaken.
pub fn escape(bytes: &[u8]) -> String {
    Escaped(bytes).to_string()
}

/// As [`escape`], written without a string in between.
#[derive(Clone, Copy, Debug)]
pub(super) struct Escaped<'a>(pub(super) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(self.0, formatter)
    }
}

fn write_escaped(bytes: &[u8], text: &mut impl fmt::Write) -> fmt::Result {
    if is_plain(bytes) {
        return text.write_str(str::from_utf8(bytes).map_err(|_| fmt::Error)?);
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' {
                text.write_str("\\\\")?;
            } else if is_printable(character) {
                text.write_char(character)?;
            } else {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    write!(text, "\\x{byte:02x}")?;
                }
            }
        }
        for &byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// Printable ASCII without a backslash, as nearly everything is.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| matches!(byte, b' '..=b'~') && byte != b'\\')
}

/// The name of a process, escaped.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessName(pub(super) Process);

impl fmt::Display for ProcessName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Each of the 16 bytes becomes four characters at most.
        let mut text = arrayvec::ArrayString::<64>::new();
        write_escaped(self.0.name(), &mut text)?;
        formatter.pad(&text)
    }
}

/// A socket's identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketText(pub(super) SocketId);

impl fmt::Display for SocketText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0.0)
    }
}

/// What is known, or a dash.
#[derive(Clone, Copy, Debug)]
pub(super) struct OrDash<T>(pub(super) Option<T>);

impl<T: fmt::Display> fmt::Display for OrDash<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(formatter),
            None => formatter.pad("-"),
        }
    }
}

/// Serialises as the text that is displayed.
macro_rules! serialize_as_displayed {
    ($($name:ty),+) => {
        $(impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        })+
    };
}

serialize_as_displayed!(Escaped<'_>, ProcessName, SocketText, Rfc3339);

/// Control characters move cursors; direction marks reorder what is read.
fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A time as RFC 3339 in UTC with nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339 {
    pub(super) time: Timestamp,
    pub(super) clock: ClockOffset,
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.9}", wall(self.time, self.clock))
    }
}

/// A time as RFC 3339 in UTC with nanoseconds.
pub fn rfc3339(time: Timestamp, clock: ClockOffset) -> Rfc3339 {
    Rfc3339 { time, clock }
}

/// A time in UTC to the second.
pub fn utc(time: Timestamp, clock: ClockOffset) -> String {
    wall(time, clock).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
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
        _ => write!(line, "{} ", time_of_day(time, clock, style)),
    }
}

/// Begins the head of such lines.
pub(super) fn write_time_head(line: &mut String, name: &str, style: TimeStyle) -> fmt::Result {
    match style {
        TimeStyle::None => Ok(()),
        _ => write!(line, "{name:<15} "),
    }
}

/// A time of day with microseconds.
fn time_of_day(time: Timestamp, clock: ClockOffset, style: TimeStyle) -> impl fmt::Display {
    let zone = match style {
        TimeStyle::Local => TimeZone::system(),
        TimeStyle::Utc | TimeStyle::None => TimeZone::UTC,
    };
    wall(time, clock).to_zoned(zone).datetime().strftime("%H:%M:%S.%6f")
}

fn wall(time: Timestamp, clock: ClockOffset) -> WallTime {
    WallTime::from_nanosecond(i128::from(time.0) + clock.to_utc_ns).unwrap_or(WallTime::UNIX_EPOCH)
}

/// Nanoseconds as microseconds with their fraction.
#[expect(clippy::cast_precision_loss, reason = "exact up to 104 days, and then to the microsecond")]
pub(super) fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

/// A duration for people: three digits or more, in the unit that suits it.
pub(super) fn duration(nanoseconds: Option<u64>) -> OrDash<DurationText> {
    OrDash(nanoseconds.map(DurationText))
}

/// A duration that is known, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct DurationText(u64);

impl fmt::Display for DurationText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The longest, of 584 years, has 11 characters.
        let mut text = arrayvec::ArrayString::<16>::new();
        let us = microseconds(self.0);
        match us {
            ..1e3 => write!(text, "{us:.1}us"),
            1e3..1e6 => write!(text, "{:.2}ms", us / 1e3),
            1e6..6e7 => write!(text, "{:.2}s", us / 1e6),
            _ => {
                let seconds = self.0 / 1_000_000_000;
                if seconds < 3600 {
                    write!(text, "{}m{:02}s", seconds / 60, seconds % 60)
                } else {
                    write!(text, "{}h{:02}m", seconds / 3600, seconds / 60 % 60)
                }
            }
        }?;
        formatter.pad(&text)
    }
}

/// A duration for people, or `-`.
pub fn duration_text(nanoseconds: Option<u64>) -> String {
    duration(nanoseconds).to_string()
}

/// A round duration in as few characters as it has digits: `50us`, `2ms`, `15s`.
pub(super) fn short_duration(nanoseconds: u64) -> String {
    match nanoseconds {
        ..1_000_000 => format!("{}us", nanoseconds / 1_000),
        1_000_000..1_000_000_000 => format!("{}ms", nanoseconds / 1_000_000),
        _ => format!("{}s", nanoseconds / 1_000_000_000),
    }
}

/// A count of bytes for people.
pub(super) fn bytes(count: Option<u64>) -> OrDash<ByteCount> {
    OrDash(count.map(ByteCount))
}

/// A count of bytes that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByteCount(u64);

impl fmt::Display for ByteCount {
    #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The longest, of 2^64 bytes, has 11 characters.
        let mut text = arrayvec::ArrayString::<16>::new();
        let mut value = self.0 as f64;
        let mut units = ["B", "K", "M", "G"].into_iter();
        let unit = loop {
            match units.next() {
                None => break "T",
                Some(unit) if value < 1000.0 => break unit,
                Some(_) => value /= 1024.0,
            }
        };
        if unit == "B" { write!(text, "{}B", self.0) } else { write!(text, "{value:.1}{unit}") }?;
        formatter.pad(&text)
    }
}

/// An endpoint as `address:port`, IPv6 in brackets, an unknown port as `*`.
pub(super) struct EndpointText(pub(super) Endpoint);

impl fmt::Display for EndpointText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { address, port } = self.0;
        let mut text = arrayvec::ArrayString::<64>::new();
        // The longest IPv6 endpoint has 47 characters.
        let _ = if address.is_ipv6() { write!(text, "[{address}]:") } else { write!(text, "{address}:") };
        let _ = if port == 0 { text.write_char('*') } else { write!(text, "{port}") };
        formatter.pad(&text)
    }
}

/// An endpoint as `address:port`, IPv6 in brackets, an unknown port as `*`.
pub fn endpoint_text(endpoint: Endpoint) -> String {
    EndpointText(endpoint).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_bytes_are_escaped() {
        assert_eq!(escape(b"nginx: worker"), "nginx: worker");
        assert_eq!(escape(b"\x1b[31mred\x07"), "\\x1b[31mred\\x07");
        assert_eq!(escape("\u{9b}31m".as_bytes()), "\\xc2\\x9b31m");
        assert_eq!(escape(b"\xff\xfe"), "\\xff\\xfe");
        assert_eq!(escape(b"a\\x1b"), "a\\\\x1b");
        assert_eq!(escape("caf\u{e9}\u{202e}".as_bytes()), "caf\u{e9}\\xe2\\x80\\xae");
    }

    #[test]
    fn durations_suit_their_size() {
        let shown: Vec<_> = [12_300, 1_234_000, 79_123_000, 3_020_000_000, 75_000_000_000, 7_380_000_000_000]
            .map(|ns| duration(Some(ns)).to_string())
            .into();
        assert_eq!(shown, ["12.3us", "1.23ms", "79.12ms", "3.02s", "1m15s", "2h03m"]);
        assert_eq!(format!("{:>3}", duration(None)), "  -");
    }

    #[test]
    fn sizes_suit_theirs() {
        let shown: Vec<_> =
            [0, 999, 1_000, 1_536, 5 << 20, 3 << 40].map(|count| bytes(Some(count)).to_string()).into();
        assert_eq!(shown, ["0B", "999B", "1.0K", "1.5K", "5.0M", "3.0T"]);
    }

    #[test]
    fn the_longest_texts_fit() {
        assert_eq!(duration(Some(u64::MAX)).to_string(), "5124095h34m");
        assert_eq!(bytes(Some(u64::MAX)).to_string(), "16777216.0T");
        let process = Process { pid: 1, uid: 0, comm: [0xff; 16] };
        assert_eq!(ProcessName(process).to_string(), "\\xff".repeat(16));
    }

    #[test]
    fn endpoints() {
        let text = |address: &str, port| {
            EndpointText(Endpoint { address: address.parse().unwrap(), port }).to_string()
        };
        assert_eq!(text("192.0.2.1", 80), "192.0.2.1:80");
        assert_eq!(text("2001:db8::1", 443), "[2001:db8::1]:443");
        assert_eq!(text("192.0.2.1", 0), "192.0.2.1:*");
        let longest = text("1111:2222:3333:4444:5555:6666:7777:8888", 65535);
        assert_eq!(longest, "[1111:2222:3333:4444:5555:6666:7777:8888]:65535");
    }

    #[test]
    fn times_are_utc_with_nanoseconds() {
        let clock = ClockOffset { to_utc_ns: 1_700_000_000_000_000_000 };
        assert_eq!(rfc3339(Timestamp(123_456_789), clock).to_string(), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(time_of_day(Timestamp(123_456_789), clock, TimeStyle::Utc).to_string(), "22:13:20.123456");
    }

    proptest! {
        #[test]
        fn escaped_text_is_printable_and_ascii_stays(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(escape(&bytes).chars().all(is_printable));
        }

        #[test]
        fn any_time_is_some_text(ns: u64, offset in -1i128 << 80..1i128 << 80) {
            let shown = rfc3339(Timestamp(ns), ClockOffset { to_utc_ns: offset }).to_string();
            prop_assert!(shown.ends_with('Z'));
        }
    }
}
