//! Collects rows in Arrow columns.

use std::{net::IpAddr, sync::Arc};

use arrow_array::{
    ArrayRef, ListArray, RecordBatch, StructArray,
    builder::{
        BinaryBuilder, BooleanBuilder, Float64Builder, StringBuilder, TimestampNanosecondBuilder,
        UInt8Builder, UInt16Builder, UInt32Builder, UInt64Builder,
    },
};
use arrow_buffer::{NullBufferBuilder, OffsetBufferBuilder};
use arrow_schema::{ArrowError, SchemaRef};

use crate::report::{
    export::schema::{Table, arrow_fields, list_item},
    fields::{Field, FieldKind, Fields, ValueWriter, address_text},
    text::wall_time::Rfc3339,
};

/// Rows of a table, until they make a batch.
pub(super) struct ExportColumns {
    schema: SchemaRef,
    columns: Columns,
    rows: usize,
}

impl ExportColumns {
    pub(super) fn new(table: Table) -> Self {
        Self { schema: table.schema(), columns: Columns::new(table.fields()), rows: 0 }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Returns how many rows are in the columns.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a row of this table.
    pub(super) fn push(&mut self, row: &impl Fields) {
        self.columns.push(row);
        self.rows += 1;
    }

    /// Returns the rows as a batch, and empties the columns.
    ///
    /// # Errors
    ///
    /// When the rows were not of this table.
    pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        RecordBatch::try_new(SchemaRef::clone(&self.schema), self.columns.finish()?)
    }
}

/// One column per field, and one more per address.
struct Columns {
    columns: Vec<Column>,
    /// Index of the column after the current one.
    next: usize,
}

/// The values of a field.
///
/// A value of another type is dropped, and the batch then fails, because its columns differ in length.
enum Column {
    Text(StringBuilder),
    Address(AddressColumns),
    Time(TimestampNanosecondBuilder),
    F64(Float64Builder),
    U64(UInt64Builder),
    U32(UInt32Builder),
    U16(UInt16Builder),
    U8(UInt8Builder),
    Bool(BooleanBuilder),
    List(ListColumn),
}

/// Addresses as text, and as the bytes by which they sort.
#[derive(Default)]
struct AddressColumns {
    text: StringBuilder,
    bytes: BinaryBuilder,
}

/// Lists of objects: the fields of all items, and the length of each list.
struct ListColumn {
    fields: &'static [Field],
    items: Columns,
    offsets: OffsetBufferBuilder<i32>,
    valid: NullBufferBuilder,
}

impl Columns {
    fn new(fields: &'static [Field]) -> Self {
        Self { columns: fields.iter().map(|field| Column::new(field.kind)).collect(), next: 0 }
    }

    fn push(&mut self, row: &impl Fields) {
        self.next = 0;
        row.write_fields(self);
    }

    /// Returns the columns in the order of [`arrow_fields`]: the bytes of addresses are last.
    fn finish(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        let mut arrays =
            self.columns.iter_mut().map(Column::finish).collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
        arrays.extend(self.columns.iter_mut().filter_map(Column::finish_bytes));
        Ok(arrays)
    }

    fn current(&mut self) -> Option<&mut Column> {
        self.columns.get_mut(self.next.wrapping_sub(1))
    }
}

impl ValueWriter for Columns {
    fn field(&mut self, _name: &'static str) {
        self.next += 1;
    }

    fn null(&mut self) {
        match self.current() {
            Some(Column::Text(column)) => column.append_null(),
            Some(Column::Address(column)) => {
                column.text.append_null();
                column.bytes.append_null();
            }
            Some(Column::Time(column)) => column.append_null(),
            Some(Column::F64(column)) => column.append_null(),
            Some(Column::U64(column)) => column.append_null(),
            Some(Column::U32(column)) => column.append_null(),
            Some(Column::U16(column)) => column.append_null(),
            Some(Column::U8(column)) => column.append_null(),
            Some(Column::Bool(column)) => column.append_null(),
            Some(Column::List(column)) => column.push_null(),
            None => {}
        }
    }

    fn bool(&mut self, value: bool) {
        if let Some(Column::Bool(column)) = self.current() {
            column.append_value(value);
        }
    }

    fn integer(&mut self, value: u64) {
        match self.current() {
            Some(Column::U64(column)) => column.append_value(value),
            Some(Column::U32(column)) => column.append_option(value.try_into().ok()),
            Some(Column::U16(column)) => column.append_option(value.try_into().ok()),
            Some(Column::U8(column)) => column.append_option(value.try_into().ok()),
            _ => {}
        }
    }

    fn float(&mut self, value: f64) {
        if let Some(Column::F64(column)) = self.current() {
            column.append_value(value);
        }
    }

    fn text(&mut self, value: &str) {
        if let Some(Column::Text(column)) = self.current() {
            column.append_value(value);
        }
    }

    fn address(&mut self, value: IpAddr) {
        if let Some(Column::Address(column)) = self.current() {
            column.text.append_value(address_text(value));
            column.bytes.append_value(sortable(value));
        }
    }

    fn time(&mut self, value: Rfc3339) {
        if let Some(Column::Time(column)) = self.current() {
            column.append_option(value.nanoseconds());
        }
    }

    fn list<T: Fields>(&mut self, items: &[T]) {
        if let Some(Column::List(column)) = self.current() {
            column.push(items);
        }
    }
}

impl Column {
    fn new(kind: FieldKind) -> Self {
        match kind {
            FieldKind::Text => Self::Text(StringBuilder::new()),
            FieldKind::Address => Self::Address(AddressColumns::default()),
            FieldKind::Time => Self::Time(TimestampNanosecondBuilder::new().with_timezone("UTC")),
            FieldKind::F64 => Self::F64(Float64Builder::new()),
            FieldKind::U64 => Self::U64(UInt64Builder::new()),
            FieldKind::U32 => Self::U32(UInt32Builder::new()),
            FieldKind::U16 => Self::U16(UInt16Builder::new()),
            FieldKind::U8 => Self::U8(UInt8Builder::new()),
            FieldKind::Bool => Self::Bool(BooleanBuilder::new()),
            FieldKind::List(fields) => Self::List(ListColumn {
                fields,
                items: Columns::new(fields),
                offsets: OffsetBufferBuilder::new(0),
                valid: NullBufferBuilder::new(0),
            }),
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Address(column) => Arc::new(column.text.finish()),
            Self::Time(column) => Arc::new(column.finish()),
            Self::F64(column) => Arc::new(column.finish()),
            Self::U64(column) => Arc::new(column.finish()),
            Self::U32(column) => Arc::new(column.finish()),
            Self::U16(column) => Arc::new(column.finish()),
            Self::U8(column) => Arc::new(column.finish()),
            Self::Bool(column) => Arc::new(column.finish()),
            Self::List(column) => Arc::new(column.finish()?),
        })
    }

    /// Returns the bytes of addresses; none of another column.
    fn finish_bytes(&mut self) -> Option<ArrayRef> {
        match self {
            Self::Address(column) => Some(Arc::new(column.bytes.finish())),
            _ => None,
        }
    }
}

/// Returns the 16 bytes of an IPv6 address, of an IPv4 address those of `::ffff:a.b.c.d`, so that all IPv4 addresses are
/// together.
fn sortable(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

impl ListColumn {
    fn push(&mut self, items: &[impl Fields]) {
        for item in items {
            self.items.push(item);
        }
        self.offsets.push_length(items.len());
        self.valid.append_non_null();
    }

    fn push_null(&mut self) {
        self.offsets.push_length(0);
        self.valid.append_null();
    }

    fn finish(&mut self) -> Result<ListArray, ArrowError> {
        let items = StructArray::try_new(arrow_fields(self.fields), self.items.finish()?, None)?;
        let offsets = std::mem::replace(&mut self.offsets, OffsetBufferBuilder::new(0)).finish();
        ListArray::try_new(list_item(self.fields), offsets, Arc::new(items), self.valid.finish())
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Array as _;

    use super::*;
    use crate::report::fields::fields;

    struct Row(Option<u16>);

    fields! { Row, |row| {
        /// Out of range for one byte above 255
        number: Option<u8> = row.0.map(|number| u8::try_from(number).unwrap_or(u8::MAX));
        /// A list
        list: Option<Vec<Item>> = row.0.map(|number| (0..number).map(Item).collect());
    }}

    struct Item(u16);

    fields! { Item, |item| {
        /// A number
        index: u16 = item.0;
    }}

    struct Peer(Option<&'static str>);

    fields! { Peer, |row| {
        /// An address
        address: Option<IpAddr> = row.0.map(|address| address.parse().unwrap());
        /// A number after it
        index: u16 = 7;
    }}

    #[test]
    fn addresses_have_bytes_that_sort() {
        let sorted = ["::1", "9.0.0.1", "10.0.0.2", "10.0.0.10", "192.0.2.1", "2001:db8::1", "fe80::1"];
        let mut columns = Columns::new(Peer::FIELDS);
        for address in sorted.map(Some).into_iter().chain([None]) {
            columns.push(&Peer(address));
        }
        let arrays = columns.finish().unwrap();
        let fields = arrow_fields(Peer::FIELDS);
        let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, ["address", "index", "address_bytes"]);
        for (field, array) in fields.iter().zip(&arrays) {
            assert_eq!((field.data_type(), array.len()), (array.data_type(), 8), "{}", field.name());
        }
        assert!(arrays[0].is_null(7) && arrays[2].is_null(7));
        let bytes = arrays[2].as_any().downcast_ref::<arrow_array::BinaryArray>().unwrap();
        let bytes: Vec<&[u8]> = bytes.iter().flatten().collect();
        assert!(bytes.is_sorted() && bytes.iter().all(|address| address.len() == 16), "{bytes:?}");
        let text = arrays[0].as_any().downcast_ref::<arrow_array::StringArray>().unwrap();
        assert_eq!(text.iter().flatten().collect::<Vec<_>>(), sorted);
    }

    #[test]
    fn nulls_and_lists_keep_the_columns_aligned() {
        let mut columns = Columns::new(Row::FIELDS);
        for row in [Row(Some(2)), Row(None), Row(Some(0)), Row(Some(1))] {
            columns.push(&row);
        }
        let arrays = columns.finish().unwrap();
        assert_eq!(arrays.iter().map(arrow_array::Array::len).collect::<Vec<_>>(), [4, 4]);
        let lists = arrays[1].as_any().downcast_ref::<ListArray>().unwrap();
        assert_eq!(lists.offsets().as_ref(), [0, 2, 2, 2, 3]);
        assert!(arrays.iter().all(|array| array.is_null(1) && array.null_count() == 1));
    }
}
