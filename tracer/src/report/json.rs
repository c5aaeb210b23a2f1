//! Rows as JSON objects (RFC 8259).
//!
//! Of a row's bytes two thirds are keys, which are known, and most others are names and addresses, in which nothing has
//! to be escaped. So keys are copied as they are, and a text once it has been looked through; a text that needs an
//! escape is left to `serde_json`. For what rows have the result is the same as that crate's, in half of the time.

use std::fmt;

use serde::{
    Serialize, Serializer,
    ser::{Impossible, SerializeSeq, SerializeStruct},
};

/// Appends a row to a line.
///
/// # Errors
///
/// When the row has parts that rows do not have: maps, tuples, bytes, short floats, variants with content.
pub(super) fn append(row: &impl Serialize, line: &mut String) -> Result<(), NotARow> {
    row.serialize(Json(line))
}

/// Why something cannot be a row.
#[derive(Debug, thiserror::Error)]
#[error("a row cannot be written as JSON: {0}")]
pub(super) struct NotARow(String);

impl serde::ser::Error for NotARow {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Appends one value.
struct Json<'a>(&'a mut String);

impl Json<'_> {
    fn unknown<T>(kind: &str) -> Result<T, NotARow> {
        Err(NotARow(format!("it has {kind}")))
    }
}

/// Whether there is a control character, a quotation mark or a backslash (RFC 8259 section 7), eight bytes at a time.
fn needs_escape(text: &[u8]) -> bool {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let found = |bytes: [u8; 8]| {
        let bytes = u64::from_ne_bytes(bytes);
        // The highest bit of the first byte that is less becomes set, and perhaps those of others.
        let less = |bytes: u64, limit: u8| bytes.wrapping_sub(EACH * u64::from(limit)) & !bytes;
        let equal = |byte: u8| less(bytes ^ (EACH * u64::from(byte)), 1);
        (less(bytes, b' ') | equal(b'"') | equal(b'\\')) & EACH << 7 != 0
    };
    let (chunks, rest) = text.as_chunks();
    // What is left is looked at together with what is before it, or with blanks.
    let last = text.last_chunk().copied().unwrap_or_else(|| {
        let mut last = [b' '; 8];
        last[..rest.len()].copy_from_slice(rest);
        last
    });
    chunks.iter().copied().any(found) || found(last)
}

macro_rules! integers {
    ($($method:ident($type:ty)),+) => {
        $(#[inline]
        fn $method(self, value: $type) -> Result<(), NotARow> {
            self.0.push_str(itoa::Buffer::new().format(value));
            Ok(())
        })+
    };
}

impl<'a> Serializer for Json<'a> {
    type Ok = ();
    type Error = NotARow;
    type SerializeSeq = List<'a>;
    type SerializeTuple = Impossible<(), NotARow>;
    type SerializeTupleStruct = Impossible<(), NotARow>;
    type SerializeTupleVariant = Impossible<(), NotARow>;
    type SerializeMap = Impossible<(), NotARow>;
    type SerializeStruct = List<'a>;
    type SerializeStructVariant = Impossible<(), NotARow>;

    integers! {
        serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64)
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), NotARow> {
        self.0.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    fn serialize_f32(self, _value: f32) -> Result<(), NotARow> {
        Self::unknown("a short float")
    }

    fn serialize_f64(self, value: f64) -> Result<(), NotARow> {
        if value.is_finite() {
            self.0.push_str(zmij::Buffer::new().format_finite(value));
            Ok(())
        } else {
            self.serialize_unit()
        }
    }

    fn serialize_char(self, value: char) -> Result<(), NotARow> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), NotARow> {
        if needs_escape(value.as_bytes()) {
            let quoted = serde_json::to_string(value).map_err(serde::ser::Error::custom)?;
            self.0.push_str(&quoted);
        } else {
            self.0.push('"');
            self.0.push_str(value);
            self.0.push('"');
        }
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result<(), NotARow> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), NotARow> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), NotARow> {
        self.0.push_str("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), NotARow> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), NotARow> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), NotARow> {
        value.serialize(self)
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<List<'a>, NotARow> {
        Ok(List::begin(self.0))
    }

    #[inline]
    fn serialize_struct(self, _name: &'static str, _length: usize) -> Result<List<'a>, NotARow> {
        Ok(List::begin(self.0))
    }

    fn serialize_bytes(self, _value: &[u8]) -> Result<(), NotARow> {
        Self::unknown("bytes")
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _value: &T,
    ) -> Result<(), NotARow> {
        Self::unknown("a variant with content")
    }

    fn serialize_tuple(self, _length: usize) -> Result<Self::SerializeTuple, NotARow> {
        Self::unknown("a tuple")
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleStruct, NotARow> {
        Self::unknown("a tuple")
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleVariant, NotARow> {
        Self::unknown("a variant with content")
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Self::SerializeMap, NotARow> {
        Self::unknown("a map")
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        _variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeStructVariant, NotARow> {
        Self::unknown("a variant with content")
    }
}

/// An object or an array that is being written.
struct List<'a> {
    line: &'a mut String,
    /// Whether nothing is in it yet.
    empty: bool,
}

impl<'a> List<'a> {
    #[inline]
    fn begin(line: &'a mut String) -> Self {
        Self { line, empty: true }
    }
}

impl SerializeStruct for List<'_> {
    type Ok = ();
    type Error = NotARow;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), NotARow> {
        self.line.push_str(if self.empty { "{\"" } else { ",\"" });
        self.empty = false;
        self.line.push_str(key);
        self.line.push_str("\":");
        value.serialize(Json(self.line))
    }

    #[inline]
    fn end(self) -> Result<(), NotARow> {
        self.line.push_str(if self.empty { "{}" } else { "}" });
        Ok(())
    }
}

impl SerializeSeq for List<'_> {
    type Ok = ();
    type Error = NotARow;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotARow> {
        self.line.push(if self.empty { '[' } else { ',' });
        self.empty = false;
        value.serialize(Json(self.line))
    }

    #[inline]
    fn end(self) -> Result<(), NotARow> {
        self.line.push_str(if self.empty { "[]" } else { "]" });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Serialize)]
    struct Whole {
        text: String,
        name: &'static str,
        character: char,
        address: IpAddr,
        truth: bool,
        small: (),
        none: Option<u8>,
        some: Option<u64>,
        negative: i64,
        number: f64,
        part: Part,
        parts: Vec<Part>,
        empty: Empty,
    }

    #[derive(Clone, Debug, Serialize)]
    struct Part {
        wrapped: Wrapped,
        variant: Variant,
    }

    #[derive(Clone, Debug, Serialize)]
    struct Wrapped(u16);

    #[derive(Clone, Debug, Serialize)]
    enum Variant {
        Plain,
    }

    #[derive(Debug, Serialize)]
    struct Empty {}

    fn json(row: &impl Serialize) -> Result<String, String> {
        let mut line = "> ".to_owned();
        append(row, &mut line).map_err(|error| error.to_string())?;
        Ok(line.strip_prefix("> ").expect("it is appended").to_owned())
    }

    proptest! {
        #[test]
        fn rows_are_what_serde_json_makes_of_them(
            text: String, character: char, address: IpAddr, truth: bool, some: Option<u64>, negative: i64, number: f64,
            parts in proptest::collection::vec(any::<u16>(), 0..3),
        ) {
            let part = |number| Part { wrapped: Wrapped(number), variant: Variant::Plain };
            let row = Whole {
                text, name: "a \"name\"\n", character, address, truth, small: (), none: None, some, negative, number,
                part: part(7), parts: parts.into_iter().map(part).collect(), empty: Empty {},
            };
            prop_assert_eq!(json(&row).unwrap(), serde_json::to_string(&row).unwrap());
        }
    }

    #[test]
    fn every_byte_at_every_place_is_looked_at() {
        for length in 0..20 {
            for place in 0..length {
                for byte in 0..=255 {
                    let mut text = vec![b'a'; length];
                    text[place] = byte;
                    let escaped = byte < b' ' || byte == b'"' || byte == b'\\';
                    assert_eq!(needs_escape(&text), escaped, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_is_null() {
        assert_eq!(json(&f64::NAN).unwrap(), "null");
        assert_eq!(json(&[f64::INFINITY].as_slice()).unwrap(), "[null]");
    }

    #[test]
    fn what_rows_do_not_have_is_an_error() {
        let error = json(&std::collections::BTreeMap::from([(1, 2)])).unwrap_err();
        assert_eq!(error, "a row cannot be written as JSON: it has a map");
        assert!(json(&(1, 2)).is_err());
    }
}
