//! Rows as lines of comma-separated values (RFC 4180).

use std::io;

use csv::ByteRecord;

use crate::report::{
    fields::{Fields, ValueWriter},
    text::wall_time::Rfc3339,
};

/// Appends the header line of a row type.
///
/// # Errors
///
/// None: writing to a vector does not fail.
pub(super) fn append_header<R: Fields>(lines: &mut Vec<u8>) -> io::Result<()> {
    append_record(&R::FIELDS.iter().map(|field| field.name).collect(), lines)
}

/// Appends a row as a line.
///
/// # Errors
///
/// None: writing to a vector does not fail.
pub(super) fn append(row: &impl Fields, lines: &mut Vec<u8>) -> io::Result<()> {
    let mut cells = CsvCells::default();
    row.write_fields(&mut cells);
    append_record(&cells.0, lines)
}

fn append_record(record: &ByteRecord, lines: &mut Vec<u8>) -> io::Result<()> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(lines);
    writer.write_byte_record(record)?;
    writer.flush()
}

/// The cells of a line, before quoting.
#[derive(Default)]
struct CsvCells(ByteRecord);

impl ValueWriter for CsvCells {
    fn field(&mut self, _name: &'static str) {}

    /// Leaves the cell empty.
    fn null(&mut self) {
        self.0.push_field(b"");
    }

    fn bool(&mut self, value: bool) {
        self.0.push_field(if value { b"true" } else { b"false" });
    }

    fn integer(&mut self, value: u64) {
        self.0.push_field(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Writes the digits that JSON has.
    fn float(&mut self, value: f64) {
        match serde_json::Number::from_f64(value) {
            Some(number) => self.text(&number.to_string()),
            None => self.null(),
        }
    }

    fn text(&mut self, value: &str) {
        self.0.push_field(value.as_bytes());
    }

    fn time(&mut self, value: Rfc3339) {
        self.text(&value.to_text());
    }

    /// Joins the items by spaces, and the fields of each by colons: `established:1234.5:observed`.
    fn list<T: Fields>(&mut self, items: &[T]) {
        let mut cell = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                cell.push(b' ');
            }
            let mut fields = CsvCells::default();
            item.write_fields(&mut fields);
            cell.extend_from_slice(&fields.0.iter().collect::<Vec<_>>().join(&b':'));
        }
        self.0.push_field(&cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fields::fields;

    struct State(&'static str, Option<f64>);

    fields! { State, |state| {
        /// A text
        state: &'static str = state.0;
        /// A number
        us: Option<f64> = state.1;
    }}

    struct Sample(&'static str);

    fields! { Sample, |row| {
        /// A text
        a: &'static str = row.0;
        /// Unknown
        b: Option<u64> = None;
        /// Objects
        c: Vec<State> = vec![State("listen", None), State("closed", Some(2.0))];
    }}

    #[test]
    fn cells_are_quoted_where_needed() {
        let mut lines = Vec::new();
        append_header::<Sample>(&mut lines).unwrap();
        for text in ["x", "x,\"y\""] {
            append(&Sample(text), &mut lines).unwrap();
        }
        let expected = "a,b,c\nx,,listen: closed:2.0\n\"x,\"\"y\"\"\",,listen: closed:2.0\n";
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
    }
}
