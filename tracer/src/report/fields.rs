//! Declares the fields of rows once for every output.
//!
//! A row type lists its fields with [`fields!`]: name, Rust type, unit, meaning, and the expression that reads the
//! value. JSON, CSV and the exported files are [`ValueWriter`]s; docs/output.md and the man pages are written from
//! [`Fields::FIELDS`]. Tables for people have their own order and cells: see
//! [`table!`](crate::report::text::table::table).

use std::{borrow::Cow, net::IpAddr};

use arrayvec::{ArrayString, ArrayVec};
use tracer_core::event::{CgroupId, ConnectionId, KernelName, Netns};

use crate::report::text::{
    Text,
    endpoint::AddressText,
    name::{ConnectionText, EscapedText, ProcessName, SocketText},
    wall_time::Rfc3339,
};

/// A field of a row: a key of the JSON object, a column of CSV and of the exported files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The JSON key and column name.
    pub name: &'static str,
    /// The type of its values.
    pub kind: FieldKind,
    /// The unit of its values; empty if they have none.
    pub unit: &'static str,
    /// The description in docs/output.md and the man pages, in Markdown.
    pub meaning: &'static str,
}

/// The type of a field's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// UTF-8.
    Text,
    /// An IP address as text; exported files have its bytes beside it.
    Address,
    /// Nanoseconds since 1970-01-01T00:00:00Z; RFC 3339 in JSON and CSV.
    Time,
    /// A floating-point number of 64 bits.
    F64,
    /// An unsigned integer of 64 bits.
    U64,
    /// An unsigned integer of 32 bits.
    U32,
    /// An unsigned integer of 16 bits.
    U16,
    /// An unsigned integer of 8 bits.
    U8,
    /// True or false.
    Bool,
    /// A list of objects with these fields.
    List(&'static [Field]),
}

impl FieldKind {
    /// The name in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text | Self::Address => "text",
            Self::Time => "time",
            Self::F64 => "double",
            Self::U64 => "uint64",
            Self::U32 => "uint32",
            Self::U16 => "uint16",
            Self::U8 => "uint8",
            Self::Bool => "boolean",
            Self::List(_) => "list",
        }
    }
}

/// A row, or an object in a list, with declared fields. Implemented by [`fields!`].
pub trait Fields {
    /// The fields, in order.
    const FIELDS: &'static [Field];

    /// Passes every field to `writer`, in order: [`ValueWriter::field`], then one value.
    fn write_fields(&self, writer: &mut impl ValueWriter);
}

/// Receives the fields of a row.
pub trait ValueWriter {
    /// Begins a field; one value follows.
    fn field(&mut self, name: &'static str);
    /// Takes an unknown value.
    fn null(&mut self);
    /// Takes a boolean.
    fn bool(&mut self, value: bool);
    /// Takes an unsigned integer of any size.
    fn integer(&mut self, value: u64);
    /// Takes a floating-point number.
    fn float(&mut self, value: f64);
    /// Takes a text.
    fn text(&mut self, value: &str);
    /// Takes an IP address, by default as its text.
    fn address(&mut self, value: IpAddr) {
        self.text(&address_text(value));
    }
    /// Takes a wall-clock time.
    fn time(&mut self, value: Rfc3339);
    /// Takes a list of objects.
    fn list<T: Fields>(&mut self, items: &[T]);
}

/// Implements [`Fields`] for a row type.
///
/// The doc comment of a field is its meaning. A unit stands in brackets after the type.
macro_rules! fields {
    ($row_type:ty, |$row:ident| {
        $($(#[doc = $meaning:literal])+ $name:ident: $type:ty $([$unit:literal])? = $value:expr;)+
    }) => {
        impl $crate::report::fields::Fields for $row_type {
            const FIELDS: &'static [$crate::report::fields::Field] = &[$($crate::report::fields::Field {
                name: stringify!($name),
                kind: <$type as $crate::report::fields::FieldValue>::KIND,
                unit: concat!($($unit)?),
                meaning: concat!($($meaning),+).trim_ascii(),
            }),+];

            fn write_fields(&self, writer: &mut impl $crate::report::fields::ValueWriter) {
                let $row = self;
                $(
                    writer.field(stringify!($name));
                    let value: $type = $value;
                    $crate::report::fields::FieldValue::write(&value, writer);
                )+
            }
        }
    };
}

pub(crate) use fields;

/// A Rust type that a field may have.
pub(crate) trait FieldValue {
    /// Its type in the outputs.
    const KIND: FieldKind;

    /// Passes the value to `writer`.
    fn write(&self, writer: &mut impl ValueWriter);
}

impl<T: FieldValue> FieldValue for Option<T> {
    const KIND: FieldKind = T::KIND;

    fn write(&self, writer: &mut impl ValueWriter) {
        match self {
            Some(value) => value.write(writer),
            None => writer.null(),
        }
    }
}

/// Implements [`FieldValue`] for `$type`, converting `$value` to what `$method` takes.
macro_rules! field_value {
    ($($type:ty => $kind:ident, $method:ident(|$value:ident| $converted:expr);)+) => {
        $(impl FieldValue for $type {
            const KIND: FieldKind = FieldKind::$kind;

            #[inline]
            fn write(&self, writer: &mut impl ValueWriter) {
                let $value = self;
                writer.$method($converted);
            }
        })+
    };
}

field_value! {
    bool => Bool, bool(|value| *value);
    u8 => U8, integer(|value| u64::from(*value));
    u16 => U16, integer(|value| u64::from(*value));
    u32 => U32, integer(|value| u64::from(*value));
    u64 => U64, integer(|value| *value);
    usize => U64, integer(|value| *value as u64);
    f64 => F64, float(|value| *value);
    Netns => U32, integer(|value| u64::from(value.0));
    CgroupId => U64, integer(|value| value.0);
    KernelName => Text, text(|value| value.text());
    &str => Text, text(|value| value);
    String => Text, text(|value| value);
    Cow<'_, str> => Text, text(|value| value);
    Rfc3339 => Time, time(|value| *value);
    IpAddr => Address, address(|value| *value);
    ProcessName => Text, text(|value| &short(value));
    SocketText => Text, text(|value| &short(value));
    ConnectionId => Text, text(|value| &short(&ConnectionText(*value)));
    EscapedText<'_> => Text, text(|value| &value.to_text());
}

/// Formats an address.
pub(super) fn address_text(address: IpAddr) -> ArrayString<64> {
    short(&AddressText(address))
}

/// Formats a text of at most 64 bytes without an allocation.
fn short(value: &impl Text) -> ArrayString<64> {
    let mut text = ArrayString::new();
    // A longer text, which none of these types has, would be cut.
    let _ = value.write_to(&mut text);
    text
}

impl<T: Fields> FieldValue for Vec<T> {
    const KIND: FieldKind = FieldKind::List(T::FIELDS);

    fn write(&self, writer: &mut impl ValueWriter) {
        writer.list(self);
    }
}

impl<T: Fields, const N: usize> FieldValue for ArrayVec<T, N> {
    const KIND: FieldKind = FieldKind::List(T::FIELDS);

    fn write(&self, writer: &mut impl ValueWriter) {
        writer.list(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Item;

    fields! { Item, |_item| {
        /// The item of a list
        item: bool = true;
    }}

    struct Sample(u8);

    fields! { Sample, |row| {
        /// The first line of a meaning
        /// and the second
        number: Option<u8> ["segments"] = Some(row.0);
        /// Without a unit
        type: &'static str = "sample";
        /// The rest
        list: Vec<Item> = Vec::new();
    }}

    #[test]
    fn fields_have_the_kind_of_their_type_and_the_text_of_their_comment() {
        let [number, kind, list] = Sample::FIELDS else { panic!("{:?}", Sample::FIELDS.len()) };
        assert_eq!((number.name, number.kind, number.unit), ("number", FieldKind::U8, "segments"));
        assert_eq!(number.meaning, "The first line of a meaning and the second");
        assert_eq!((kind.name, kind.kind, kind.unit), ("type", FieldKind::Text, ""));
        assert!(matches!(list.kind, FieldKind::List([Field { kind: FieldKind::Bool, .. }])));
    }
}
