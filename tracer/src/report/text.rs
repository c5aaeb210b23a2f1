//! Text for people and machines: escaping, identities, durations, endpoints.

use std::{fmt, net::IpAddr};

use serde::{Serialize, Serializer};
use tracer_core::{
    escape::{is_plain, write_escaped},
    event::{Endpoint, Process, SocketId},
};

/// What writes itself piece by piece, without the formatter's help: rows are written by the hundred thousand a second.
pub(super) trait Text {
    /// Writes it, without padding.
    ///
    /// # Errors
    ///
    /// When the text does not take it.
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result;
}

impl Text for &str {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        text.write_str(self)
    }
}

macro_rules! integers_are_text {
    ($($type:ty),+) => {
        $(impl Text for $type {
            fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
                text.write_str(itoa::Buffer::new().format(*self))
            }
        })+
    };
}

integers_are_text!(u8, u16, u32, u64);

/// Displays, with padding, what is written as [`Text`]; none is longer than 64 bytes.
macro_rules! display_as_text {
    ($($name:ty),+) => {
        $(impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut text = arrayvec::ArrayString::<64>::new();
                self.write_to(&mut text)?;
                formatter.pad(&text)
            }
        })+
    };
}

pub(super) use display_as_text;

/// Writes a number below 10 to the `digits` with that many digits.
pub(super) fn write_digits(text: &mut impl fmt::Write, number: u64, digits: u32) -> fmt::Result {
    let mut buffer = itoa::Buffer::new();
    // One digit more keeps the zeros at the front.
    let number = buffer.format(10_u64.pow(digits) + number);
    text.write_str(&number[1..])
}

/// The name of a process, escaped.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessName(pub(super) Process);

impl Text for ProcessName {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        // Each of the 16 bytes becomes four characters at most.
        write_escaped(self.0.name(), text)
    }
}

impl Serialize for ProcessName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = arrayvec::ArrayString::<64>::new();
        self.write_to(&mut text).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

/// A socket's identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketText(pub(super) SocketId);

impl SocketText {
    fn digits(self) -> [u8; 16] {
        let mut digits = self.0.0.to_be_bytes().map(|byte| [byte >> 4, byte & 15]);
        for digit in digits.as_flattened_mut() {
            *digit = b"0123456789abcdef"[usize::from(*digit)];
        }
        let mut text = [0; 16];
        text.copy_from_slice(digits.as_flattened());
        text
    }
}

impl Text for SocketText {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        text.write_str(str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

impl Serialize for SocketText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(str::from_utf8(&self.digits()).unwrap_or_default())
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

impl<T: Text> Text for OrDash<T> {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        match &self.0 {
            Some(value) => value.write_to(text),
            None => text.write_char('-'),
        }
    }
}

/// Text from outside, escaped as [`escape`](tracer_core::escape::escape) does.
#[derive(Clone, Copy, Debug)]
pub(super) struct EscapedText<'a>(pub(super) &'a [u8]);

impl fmt::Display for EscapedText<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(self.0, formatter)
    }
}

impl Serialize for EscapedText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match str::from_utf8(self.0) {
            Ok(text) if is_plain(self.0) => serializer.serialize_str(text),
            _ => serializer.collect_str(self),
        }
    }
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

impl Text for DurationText {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        // The longest, of 584 years, has 11 characters.
        match self.0 {
            ns @ ..1_000_000 => {
                rounded(text, 1, ns, 1_000)?;
                text.write_str("us")
            }
            ns @ ..1_000_000_000 => {
                rounded(text, 2, ns, 1_000_000)?;
                text.write_str("ms")
            }
            ns @ ..60_000_000_000 => {
                rounded(text, 2, ns, 1_000_000_000)?;
                text.write_char('s')
            }
            ns => {
                let seconds = ns / 1_000_000_000;
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

/// A count of which `parts` are one unit, in units with so many decimals; half a decimal is rounded up.
fn rounded(text: &mut impl fmt::Write, decimals: u32, count: u64, parts: u64) -> fmt::Result {
    let scale = 10_u64.pow(decimals);
    // The largest unit has 2^40 parts, so this fits.
    let fraction = (count % parts * scale + parts / 2) / parts;
    (count / parts + fraction / scale).write_to(text)?;
    text.write_char('.')?;
    write_digits(text, fraction % scale, decimals)
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

impl Text for ByteCount {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        // The longest, of 2^64 bytes, has 11 characters.
        let mut size = 1_u64;
        for unit in ['B', 'K', 'M', 'G', 'T'] {
            // Three digits before the point.
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

/// An endpoint as `address:port`, IPv6 in brackets, an unknown port as `*`.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndpointText(pub(super) Endpoint);

impl Text for EndpointText {
    fn write_to(&self, text: &mut impl fmt::Write) -> fmt::Result {
        let Endpoint { address, port } = self.0;
        match address {
            IpAddr::V4(address) => {
                let [first, others @ ..] = address.octets();
                first.write_to(text)?;
                for octet in others {
                    text.write_char('.')?;
                    octet.write_to(text)?;
                }
                text.write_char(':')?;
            }
            // The longest IPv6 endpoint has 47 characters.
            IpAddr::V6(address) => write!(text, "[{address}]:")?,
        }
        if port == 0 { text.write_char('*') } else { port.write_to(text) }
    }
}

display_as_text!(ProcessName, SocketText, DurationText, ByteCount, EndpointText);

/// An endpoint as `address:port`, IPv6 in brackets, an unknown port as `*`.
pub fn endpoint_text(endpoint: Endpoint) -> String {
    EndpointText(endpoint).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_suit_their_size() {
        let shown: Vec<_> = [12_300, 1_234_000, 79_123_000, 3_020_000_000, 75_000_000_000, 7_380_000_000_000]
            .map(|ns| duration(Some(ns)).to_string())
            .into();
        assert_eq!(shown, ["12.3us", "1.23ms", "79.12ms", "3.02s", "1m15s", "2h03m"]);
        assert_eq!(format!("{:>3}", duration(None)), "  -");
    }

    #[test]
    fn what_is_between_two_texts_is_the_greater() {
        let shown = [250, 1_150, 1_005_000, 999_949, 999_950].map(|ns| duration(Some(ns)).to_string());
        assert_eq!(shown, ["0.3us", "1.2us", "1.01ms", "999.9us", "1000.0us"]);
        assert_eq!(bytes(Some(1_280)).to_string(), "1.3K");
    }

    #[test]
    fn sockets_have_sixteen_digits() {
        assert_eq!(SocketText(SocketId(0x00ab_cdef_0123_4567)).to_string(), "00abcdef01234567");
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
}
