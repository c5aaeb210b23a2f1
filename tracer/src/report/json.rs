//! Rows as JSON objects (RFC 8259).
//!
//! Keys, which need no escape, are copied; `serde_json` writes the values. Two thirds of the bytes of a row are keys:
//! serializing whole rows, which scans keys as well, takes 35 % (transitions) to 40 % (connections) more processor time
//! in a replay from memory. Writing the values by hand instead saves 1 %, and `sonic-rs` 4 %.

use serde::Serialize;

use crate::report::{
    fields::{Fields, ValueWriter},
    text::wall_time::Rfc3339,
};

/// Appends a row to `line`.
pub(super) fn append(row: &impl Fields, line: &mut Vec<u8>) {
    let mut object = JsonObject { line, has_fields: false };
    row.write_fields(&mut object);
    line.push(b'}');
}

/// Returns a row as a line.
pub(crate) fn json_line(row: &impl Fields) -> Vec<u8> {
    let mut line = Vec::new();
    append(row, &mut line);
    line.push(b'\n');
    line
}

/// The fields of an object, without the closing brace.
struct JsonObject<'a> {
    line: &'a mut Vec<u8>,
    has_fields: bool,
}

impl JsonObject<'_> {
    #[inline]
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) {
        // Writing to a vector does not fail.
        let _ = serde_json::to_writer(&mut *self.line, value);
    }
}

impl ValueWriter for JsonObject<'_> {
    #[inline]
    fn field(&mut self, name: &'static str) {
        self.line.extend_from_slice(if self.has_fields { b",\"" } else { b"{\"" });
        self.has_fields = true;
        self.line.extend_from_slice(name.as_bytes());
        self.line.extend_from_slice(b"\":");
    }

    #[inline]
    fn null(&mut self) {
        self.line.extend_from_slice(b"null");
    }

    #[inline]
    fn bool(&mut self, value: bool) {
        self.value(&value);
    }

    #[inline]
    fn integer(&mut self, value: u64) {
        self.value(&value);
    }

    #[inline]
    fn float(&mut self, value: f64) {
        self.value(&value);
    }

    #[inline]
    fn text(&mut self, value: &str) {
        self.value(value);
    }

    /// Needs no escape either.
    #[inline]
    fn time(&mut self, value: Rfc3339) {
        self.line.push(b'"');
        self.line.extend_from_slice(value.to_text().as_bytes());
        self.line.push(b'"');
    }

    fn list<T: Fields>(&mut self, items: &[T]) {
        self.line.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.line.push(b',');
            }
            append(item, self.line);
        }
        self.line.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fields::fields;

    struct Sample(f64, &'static str);

    fields! { Sample, |row| {
        /// A number
        number: f64 = row.0;
        /// A text
        text: &'static str = row.1;
    }}

    struct Samples(Vec<(f64, &'static str)>);

    fields! { Samples, |row| {
        /// Objects
        list: Vec<Sample> = row.0.iter().map(|&(number, text)| Sample(number, text)).collect();
        /// Unknown
        none: Option<u32> = None;
    }}

    #[test]
    fn values_are_json() {
        let row = Samples(vec![(1.5, "a\"b\n"), (f64::NAN, "")]);
        let mut line = Vec::new();
        append(&row, &mut line);
        append(&Samples(Vec::new()), &mut line);
        let expected = r#"{"list":[{"number":1.5,"text":"a\"b\n"},{"number":null,"text":""}],"none":null}{"list":[],"none":null}"#;
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }
}
