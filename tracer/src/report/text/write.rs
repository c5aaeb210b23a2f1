//! Formats values without the formatter's overhead.

use std::fmt;

/// A value that formats itself without [`fmt::Formatter`], whose overhead matters at 100,000 rows a second.
pub(in crate::report) trait Text {
    /// Writes the text, without padding.
    ///
    /// # Errors
    ///
    /// When `text` does not take it.
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

integers_are_text!(u8, u16, u32, u64, usize);

/// Implements [`fmt::Display`], with padding, for [`Text`]s of at most 64 bytes.
macro_rules! display_as_text {
    ($($name:ty),+) => {
        $(impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut text = arrayvec::ArrayString::<64>::new();
                self.write_to(&mut text)?;
                formatter.pad(&text)
            }
        })+
    };
}

pub(super) use display_as_text;

/// Writes a number of at most nine digits with exactly `digits` digits.
pub(super) fn write_digits(text: &mut impl fmt::Write, number: u64, digits: u32) -> fmt::Result {
    let mut buffer = itoa::Buffer::new();
    // A leading one keeps the zeros in front.
    let number = buffer.format(10_u64.pow(digits) + number);
    text.write_str(&number[1..])
}

/// A value, or `-` if it is unknown.
#[derive(Clone, Copy, Debug)]
pub(in crate::report) struct OrDash<T>(pub(in crate::report) Option<T>);

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
