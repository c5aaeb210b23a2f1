//! Validates a message before arrow decodes it, because arrow trusts its lengths and counts.

use arrow_ipc::{DictionaryBatch, RecordBatch};
use arrow_schema::{DataType, Schema};

/// Most rows of a batch. More than this program writes.
const MAX_ROWS: i64 = 1 << 20;
/// Maximum uncompressed size of a column, bytes.
const MAX_COLUMN: i64 = 64 << 20;
/// Maximum uncompressed size of all columns of a batch, and of all dictionaries, bytes.
pub(super) const MAX_ALL: i64 = 256 << 20;
/// Most columns of a file. Many more than this version writes.
pub(super) const MAX_COLUMNS: usize = 1_000;
/// Maximum compression ratio. LZ4 reaches 255; the difference allows for very short columns.
const MAX_RATIO: i64 = 256;

/// Returns how many buffers a column of this type has in a batch; `None` for types that no recording has.
pub(super) fn buffers(kind: &DataType) -> Option<usize> {
    match kind {
        DataType::Utf8 | DataType::Binary => Some(3),
        DataType::Dictionary(keys, values) if keys.is_dictionary_key_type() && **values == DataType::Utf8 => {
            Some(2)
        }
        DataType::FixedSizeBinary(width) if (1..=64).contains(width) => Some(2),
        DataType::Boolean | DataType::Timestamp(..) => Some(2),
        kind if kind.is_integer() || kind.is_floating() => Some(2),
        _ => None,
    }
}

/// Validates a batch with the columns of the schema.
pub(super) fn batch(batch: &RecordBatch<'_>, schema: &Schema, body: &[u8]) -> Result<(), &'static str> {
    let buffers: Vec<Content> =
        schema.fields().iter().flat_map(|field| contents(field.data_type())).collect();
    let rows = batch.length();
    check(batch, schema.fields().len(), &buffers, body)?;
    let same = batch.nodes().is_some_and(|nodes| nodes.iter().all(|node| node.length() == rows));
    if same { Ok(()) } else { Err("its columns have different lengths") }
}

/// Validates a dictionary of text.
pub(super) fn dictionary(dictionary: &DictionaryBatch<'_>, body: &[u8]) -> Result<(), &'static str> {
    if dictionary.isDelta() {
        return Err("it adds to a dictionary");
    }
    let data = dictionary.data().ok_or("a dictionary is empty")?;
    check(&data, 1, &contents(&DataType::Utf8), body)
}

/// The content of a buffer, as far as its length depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Offsets or indices of this many bytes each. Arrow casts the buffer before it checks that its length is a
    /// multiple.
    Numbers(i64),
    /// Other content, whose length arrow checks.
    Other,
}

fn contents(kind: &DataType) -> Vec<Content> {
    let width = match kind {
        DataType::Utf8 | DataType::Binary => Some(size_of::<i32>()),
        DataType::Dictionary(keys, _) => keys.primitive_width(),
        _ => None,
    };
    let numbers = width.and_then(|width| i64::try_from(width).ok()).map_or(Content::Other, Content::Numbers);
    let content = |index| if index == 1 { numbers } else { Content::Other };
    (0..buffers(kind).unwrap_or(0)).map(content).collect()
}

fn check(
    batch: &RecordBatch<'_>,
    columns: usize,
    wanted: &[Content],
    body: &[u8],
) -> Result<(), &'static str> {
    let (nodes, buffers) = (batch.nodes(), batch.buffers());
    let (Some(nodes), Some(buffers)) = (nodes, buffers) else { return Err("it has no columns") };
    if nodes.len() != columns || buffers.len() != wanted.len() {
        return Err("its columns are not those of the schema");
    }
    if batch.variadicBufferCounts().is_some_and(|counts| !counts.is_empty()) {
        return Err("its columns are not those of the schema");
    }
    if !(0..=MAX_ROWS).contains(&batch.length()) {
        return Err("its number of rows is invalid");
    }
    for node in nodes {
        if !(0..=MAX_ROWS).contains(&node.length()) || !(0..=node.length()).contains(&node.null_count()) {
            return Err("the length of a column is invalid");
        }
    }
    let mut all: i64 = 0;
    for (buffer, content) in buffers.iter().zip(wanted) {
        // Arrow reads the numbers in place.
        if buffer.offset() % 8 != 0 {
            return Err("a column is not aligned");
        }
        let bytes = usize::try_from(buffer.offset())
            .ok()
            .zip(usize::try_from(buffer.length()).ok())
            .and_then(|(offset, length)| body.get(offset..offset.checked_add(length)?))
            .ok_or("a column is outside of it")?;
        let mut length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        if batch.compression().is_some() && !bytes.is_empty() {
            let (prefix, compressed) =
                bytes.split_first_chunk().ok_or("a compressed column has no length")?;
            let uncompressed = i64::from_le_bytes(*prefix);
            let compressed = i64::try_from(compressed.len()).unwrap_or(i64::MAX);
            let limit = compressed.saturating_mul(MAX_RATIO).min(MAX_COLUMN);
            if !(-1..=limit).contains(&uncompressed) {
                return Err("the uncompressed length of a column is invalid");
            }
            // -1 means that the bytes are not compressed.
            length = if uncompressed < 0 { compressed } else { uncompressed };
        }
        all = all.saturating_add(length);
        if all > MAX_ALL {
            return Err("its columns are larger than any recording's");
        }
        if let Content::Numbers(width) = content
            && length % width != 0
        {
            return Err("a column of text ends within a number");
        }
    }
    Ok(())
}
