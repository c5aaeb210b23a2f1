//! Text for people and machines: escaping, times, durations, endpoints.

use std::fmt::{self, Write as _};

use jiff::{Timestamp as WallTime, tz::TimeZone};

use crate::{
    event::{Endpoint, Timestamp},
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
    let mut escaped = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' {
                escaped.push_str("\\\\");
            } else if is_printable(character) {
                escaped.push(character);
            } else {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    push_byte(&mut escaped, byte);
                }
            }
        }
        for &byte in chunk.invalid() {
            push_byte(&mut escaped, byte);
        }
    }
    escaped
}

fn push_byte(text: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\\x{byte:02x}");
}

/// Control characters move cursors; direction marks reorder what is read.
fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A time as RFC 3339 in UTC with nanoseconds.
pub fn rfc3339(time: Timestamp, clock: ClockOffset) -> String {
    format!("{:.9}", wall(time, clock))
}

/// A time of day with microseconds, and the date only where the reader cannot guess it.
pub(super) fn time_of_day(time: Timestamp, clock: ClockOffset, style: TimeStyle) -> String {
    let zone = match style {
        TimeStyle::Local => TimeZone::system(),
        TimeStyle::Utc | TimeStyle::None => TimeZone::UTC,
    };
    wall(time, clock).to_zoned(zone).strftime("%H:%M:%S.%6f").to_string()
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
pub fn duration(nanoseconds: Option<u64>) -> String {
    let Some(nanoseconds) = nanoseconds else { return "-".to_owned() };
    let us = microseconds(nanoseconds);
    match us {
        ..1e3 => format!("{us:.1}us"),
        1e3..1e6 => format!("{:.2}ms", us / 1e3),
        1e6..6e7 => format!("{:.2}s", us / 1e6),
        _ => {
            let seconds = nanoseconds / 1_000_000_000;
            if seconds < 3600 {
                format!("{}m{:02}s", seconds / 60, seconds % 60)
            } else {
                format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60)
            }
        }
    }
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
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn bytes(count: Option<u64>) -> String {
    let Some(count) = count else { return "-".to_owned() };
    let mut value = count as f64;
    for unit in ["B", "K", "M", "G"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{count}B") } else { format!("{value:.1}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1}T")
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
            .map(|ns| duration(Some(ns)))
            .into();
        assert_eq!(shown, ["12.3us", "1.23ms", "79.12ms", "3.02s", "1m15s", "2h03m"]);
        assert_eq!(duration(None), "-");
    }

    #[test]
    fn sizes_suit_theirs() {
        let shown: Vec<_> = [0, 999, 1_000, 1_536, 5 << 20, 3 << 40].map(|count| bytes(Some(count))).into();
        assert_eq!(shown, ["0B", "999B", "1.0K", "1.5K", "5.0M", "3.0T"]);
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
        assert_eq!(rfc3339(Timestamp(123_456_789), clock), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(time_of_day(Timestamp(123_456_789), clock, TimeStyle::Utc), "22:13:20.123456");
    }

    proptest! {
        #[test]
        fn escaped_text_is_printable_and_ascii_stays(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(escape(&bytes).chars().all(is_printable));
        }

        #[test]
        fn any_time_is_some_text(ns: u64, offset in -1i128 << 80..1i128 << 80) {
            let shown = rfc3339(Timestamp(ns), ClockOffset { to_utc_ns: offset });
            prop_assert!(shown.ends_with('Z'));
        }
    }
}
