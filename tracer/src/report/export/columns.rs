//! Rows of the JSON output into columns.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{
        ArrayBuilder, BooleanBuilder, Float64Builder, ListBuilder, PrimitiveBuilder, StringBuilder,
        StructBuilder, TimestampNanosecondBuilder,
    },
    types::{ArrowPrimitiveType, UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};
use arrow_schema::{ArrowError, SchemaRef};
use serde_json::Value;

use crate::report::export::schema::{ExportType, Table, state_fields, state_item};

enum Column {
    Text(StringBuilder),
    Time(TimestampNanosecondBuilder),
    F64(Float64Builder),
    U64(PrimitiveBuilder<UInt64Type>),
    U32(PrimitiveBuilder<UInt32Type>),
    U16(PrimitiveBuilder<UInt16Type>),
    U8(PrimitiveBuilder<UInt8Type>),
    Bool(BooleanBuilder),
    States(ListBuilder<StructBuilder>),
}

impl Column {
    fn new(kind: ExportType) -> Self {
        match kind {
            ExportType::Text => Self::Text(StringBuilder::new()),
            ExportType::Time => Self::Time(TimestampNanosecondBuilder::new().with_timezone("UTC")),
            ExportType::F64 => Self::F64(Float64Builder::new()),
            ExportType::U64 => Self::U64(PrimitiveBuilder::new()),
            ExportType::U32 => Self::U32(PrimitiveBuilder::new()),
            ExportType::U16 => Self::U16(PrimitiveBuilder::new()),
            ExportType::U8 => Self::U8(PrimitiveBuilder::new()),
            ExportType::Bool => Self::Bool(BooleanBuilder::new()),
            ExportType::States => {
                let state = StructBuilder::from_fields(state_fields(), 0);
                Self::States(ListBuilder::new(state).with_field(state_item()))
            }
        }
    }

    fn push(&mut self, value: &Value) {
        match self {
            Self::Text(column) => column.append_option(value.as_str()),
            Self::Time(column) => column.append_option(value.as_str().and_then(nanoseconds)),
            Self::F64(column) => column.append_option(value.as_f64()),
            Self::U64(column) => push_integer(column, value),
            Self::U32(column) => push_integer(column, value),
            Self::U16(column) => push_integer(column, value),
            Self::U8(column) => push_integer(column, value),
            Self::Bool(column) => column.append_option(value.as_bool()),
            Self::States(column) => push_states(column, value),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => Arc::new(column.finish()),
            Self::Time(column) => Arc::new(column.finish()),
            Self::F64(column) => Arc::new(column.finish()),
            Self::U64(column) => Arc::new(column.finish()),
            Self::U32(column) => Arc::new(column.finish()),
            Self::U16(column) => Arc::new(column.finish()),
            Self::U8(column) => Arc::new(column.finish()),
            Self::Bool(column) => Arc::new(column.finish()),
            Self::States(column) => ArrayBuilder::finish(column),
        }
    }
}

fn push_integer<T: ArrowPrimitiveType>(column: &mut PrimitiveBuilder<T>, value: &Value)
where
    T::Native: TryFrom<u64>,
{
    column.append_option(value.as_u64().and_then(|value| value.try_into().ok()));
}

fn push_states(column: &mut ListBuilder<StructBuilder>, value: &Value) {
    let Some(states) = value.as_array() else { return column.append_null() };
    for state in states {
        let builder = column.values();
        // The fields are those that the builder was made with.
        for (index, name) in [(0, "state"), (2, "source")] {
            if let Some(text) = builder.field_builder::<StringBuilder>(index) {
                text.append_option(state[name].as_str());
            }
        }
        if let Some(duration) = builder.field_builder::<Float64Builder>(1) {
            duration.append_option(state["duration_us"].as_f64());
        }
        builder.append(true);
    }
    column.append(true);
}

/// Nanoseconds since 1970-01-01T00:00:00Z of a time as the JSON output has it.
pub(super) fn nanoseconds(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().and_then(|time| i64::try_from(time.as_nanosecond()).ok())
}

/// Rows on their way into a file.
pub(super) struct ExportColumns {
    table: Table,
    schema: SchemaRef,
    builders: Vec<Column>,
    rows: usize,
}

impl ExportColumns {
    pub(super) fn new(table: Table) -> Self {
        let builders = table.columns().iter().map(|column| Column::new(column.kind)).collect();
        Self { table, schema: table.schema(), builders, rows: 0 }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn push(&mut self, row: &Value) {
        for (column, builder) in self.table.columns().iter().zip(&mut self.builders) {
            builder.push(&row[column.name]);
        }
        self.rows += 1;
    }

    pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        let arrays = self.builders.iter_mut().map(Column::finish).collect();
        RecordBatch::try_new(SchemaRef::clone(&self.schema), arrays)
    }
}
