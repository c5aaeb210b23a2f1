//! The columns of the exported files: the fields of the JSON output, with types.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Metadata, Schema, SchemaRef, TimeUnit};

/// The version of the exported schema. ExportColumns may be added without a new one.
pub const SCHEMA_VERSION: u32 = 1;

/// How a column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportType {
    /// UTF-8.
    Text,
    /// A moment, nanoseconds, marked as UTC.
    Time,
    /// A number with a fraction.
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
    /// A list of `{state, duration_us, source}`.
    States,
}

impl ExportType {
    /// The name in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Time => "timestamp (ns, UTC)",
            Self::F64 => "double",
            Self::U64 => "uint64",
            Self::U32 => "uint32",
            Self::U16 => "uint16",
            Self::U8 => "uint8",
            Self::Bool => "bool",
            Self::States => "list of states",
        }
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            Self::F64 => DataType::Float64,
            Self::U64 => DataType::UInt64,
            Self::U32 => DataType::UInt32,
            Self::U16 => DataType::UInt16,
            Self::U8 => DataType::UInt8,
            Self::Bool => DataType::Boolean,
            Self::States => DataType::List(state_item()),
        }
    }
}

/// The fields of one state in the list.
pub(super) fn state_fields() -> Fields {
    let unit = Metadata::from([("unit", "us")]);
    Fields::from(vec![
        Field::new("state", DataType::Utf8, true),
        Field::new("duration_us", DataType::Float64, true).with_metadata(unit),
        Field::new("source", DataType::Utf8, true),
    ])
}

/// The item of the list.
pub(super) fn state_item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Struct(state_fields()), true))
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportColumn {
    /// The name, that of the JSON field.
    pub name: &'static str,
    /// How it is stored.
    pub kind: ExportType,
    /// The unit of its numbers, empty where there is none.
    pub unit: &'static str,
}

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Table {
    /// A row per connection that ended
    Connections,
    /// A row per transition
    Transitions,
}

impl Table {
    /// The name of its folder.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Transitions => "transitions",
        }
    }

    /// The field whose hour decides the folder.
    pub(super) const fn time_column(self) -> &'static str {
        match self {
            Self::Connections => "closed",
            Self::Transitions => "time",
        }
    }

    /// Its columns, in order.
    pub const fn columns(self) -> &'static [ExportColumn] {
        match self {
            Self::Connections => CONNECTIONS,
            Self::Transitions => TRANSITIONS,
        }
    }

    /// Its schema.
    pub fn schema(self) -> SchemaRef {
        let fields: Vec<Field> = self
            .columns()
            .iter()
            .map(|column| {
                let field = Field::new(column.name, column.kind.data_type(), true);
                match column.unit {
                    "" => field,
                    unit => field.with_metadata(Metadata::from([("unit", unit)])),
                }
            })
            .collect();
        let metadata = Metadata::from([
            ("tcptrace.export", SCHEMA_VERSION.to_string()),
            ("tcptrace.tool_version", env!("CARGO_PKG_VERSION").to_owned()),
        ]);
        Arc::new(Schema::new_with_metadata(fields, metadata))
    }
}

const fn column(name: &'static str, kind: ExportType, unit: &'static str) -> ExportColumn {
    ExportColumn { name, kind, unit }
}

use ExportType::{Bool, F64, States, Text, Time, U8, U16, U32, U64};

const CONNECTIONS: &[ExportColumn] = &[
    column("type", Text, ""),
    column("role", Text, ""),
    column("network_type", Text, ""),
    column("local_address", Text, ""),
    column("local_port", U16, ""),
    column("remote_address", Text, ""),
    column("remote_port", U16, ""),
    column("opened", Time, "ns"),
    column("closed", Time, "ns"),
    column("duration_us", F64, "us"),
    column("states", States, ""),
    column("handshake_us", F64, "us"),
    column("handshake_source", Text, ""),
    column("handshake_caveat", Text, ""),
    column("handshake_rtt_us", U32, "us"),
    column("syn_retransmits", U8, "segments"),
    column("close_reason", Text, ""),
    column("closed_by", Text, ""),
    column("error", Text, ""),
    column("bytes_sent", U64, "bytes"),
    column("bytes_received", U64, "bytes"),
    column("segments_sent", U32, "segments"),
    column("segments_received", U32, "segments"),
    column("retransmits", U32, "segments"),
    column("srtt_us", U32, "us"),
    column("min_rtt_us", U32, "us"),
    column("mss", U32, "bytes"),
    column("accept_queue", U32, "connections"),
    column("accept_queue_limit", U32, "connections"),
    column("pid", U32, ""),
    column("process", Text, ""),
    column("uid", U32, ""),
    column("owner_source", Text, ""),
    column("cgroup_id", U64, ""),
    column("cgroup", Text, ""),
    column("container_id", Text, ""),
    column("container_runtime", Text, ""),
    column("pod_uid", Text, ""),
    column("unit", Text, ""),
    column("netns", U32, ""),
    column("time_wait_reused", Bool, ""),
    column("incomplete", Bool, ""),
    column("gap", Bool, ""),
];

const TRANSITIONS: &[ExportColumn] = &[
    column("type", Text, ""),
    column("time", Time, "ns"),
    column("socket", Text, ""),
    column("network_type", Text, ""),
    column("local_address", Text, ""),
    column("local_port", U16, ""),
    column("remote_address", Text, ""),
    column("remote_port", U16, ""),
    column("from", Text, ""),
    column("to", Text, ""),
    column("duration_us", F64, "us"),
    column("pid", U32, ""),
    column("comm", Text, ""),
    column("owner_source", Text, ""),
    column("cgroup_id", U64, ""),
    column("netns", U32, ""),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ConnectionRow, Row as _, TransitionRow};

    #[test]
    fn columns_are_the_fields_of_the_output() {
        let names = |table: Table| table.columns().iter().map(|column| column.name).collect::<Vec<_>>();
        assert_eq!(names(Table::Connections), ConnectionRow::COLUMNS);
        assert_eq!(names(Table::Transitions), TransitionRow::COLUMNS);
        for table in [Table::Connections, Table::Transitions] {
            let time = table.columns().iter().find(|column| column.name == table.time_column());
            assert_eq!(time.map(|column| column.kind), Some(Time));
        }
    }
}
