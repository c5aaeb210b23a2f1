//! The exported tables and their Arrow schemas, from the declared fields of their rows.

use std::sync::Arc;

use arrow_schema::{
    DataType, Field as ArrowField, Fields as ArrowFields, Metadata, Schema, SchemaRef, TimeUnit,
};

use crate::report::{
    fields::{Field, FieldKind, Fields as _},
    row::Row,
    rows::{connection::ConnectionRow, open_connection::OpenConnectionRow, transition::TransitionRow},
    text::wall_time::Rfc3339,
};

/// The version of the exported schema. New columns do not change it.
const SCHEMA_VERSION: u32 = 1;

/// An exported table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Table {
    /// A row per closed connection
    Connections,
    /// A row per transition
    Transitions,
    /// A row per connection that is open at the end of the recording
    #[value(name = "open_connections")]
    OpenConnections,
}

impl Table {
    /// The name of its folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Transitions => "transitions",
            Self::OpenConnections => "open_connections",
        }
    }

    /// The fields of its rows.
    pub(super) const fn fields(self) -> &'static [Field] {
        match self {
            Self::Connections => ConnectionRow::FIELDS,
            Self::Transitions => TransitionRow::FIELDS,
            Self::OpenConnections => OpenConnectionRow::FIELDS,
        }
    }

    /// The Arrow schema.
    pub(super) fn schema(self) -> SchemaRef {
        let metadata = Metadata::from([
            ("tcptrace.export", SCHEMA_VERSION.to_string()),
            ("tcptrace.tool_version", env!("CARGO_PKG_VERSION").to_owned()),
        ]);
        Arc::new(Schema::new_with_metadata(arrow_fields(self.fields()), metadata))
    }
}

/// A row that can be exported.
pub trait ExportRow: Row {
    /// Returns the time that selects the file, if known.
    fn partition_time(&self) -> Option<Rfc3339>;
}

impl ExportRow for ConnectionRow<'_> {
    fn partition_time(&self) -> Option<Rfc3339> {
        self.closed()
    }
}

impl ExportRow for TransitionRow {
    fn partition_time(&self) -> Option<Rfc3339> {
        Some(self.time())
    }
}

impl ExportRow for OpenConnectionRow<'_> {
    fn partition_time(&self) -> Option<Rfc3339> {
        Some(self.time())
    }
}

/// Returns the Arrow fields of declared fields, and after them the bytes of each address. All are nullable, and units are
/// metadata.
pub(super) fn arrow_fields(fields: &[Field]) -> ArrowFields {
    let arrow = |field: &Field| {
        let arrow = ArrowField::new(field.name, data_type(field.kind), true);
        match field.unit {
            "" => arrow,
            unit => arrow.with_metadata(Metadata::from([("unit", unit)])),
        }
    };
    let addresses = fields.iter().filter(|field| field.kind == FieldKind::Address);
    let bytes =
        addresses.map(|field| ArrowField::new(format!("{}_bytes", field.name), DataType::Binary, true));
    fields.iter().map(arrow).chain(bytes).collect()
}

/// Returns the Arrow field of a list's items.
pub(super) fn list_item(fields: &[Field]) -> Arc<ArrowField> {
    Arc::new(ArrowField::new("item", DataType::Struct(arrow_fields(fields)), true))
}

fn data_type(kind: FieldKind) -> DataType {
    match kind {
        FieldKind::Text | FieldKind::Address => DataType::Utf8,
        FieldKind::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        FieldKind::F64 => DataType::Float64,
        FieldKind::U64 => DataType::UInt64,
        FieldKind::U32 => DataType::UInt32,
        FieldKind::U16 => DataType::UInt16,
        FieldKind::U8 => DataType::UInt8,
        FieldKind::Bool => DataType::Boolean,
        FieldKind::List(fields) => DataType::List(list_item(fields)),
    }
}
