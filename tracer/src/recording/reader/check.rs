//! What is checked of a message before arrow reads it, which takes lengths and counts on trust.

use arrow_ipc::{DictionaryBatch, RecordBatch};
use arrow_schema::{DataType, Schema};

/// More rows than a batch of this program has.
const MAX_ROWS: i64 = 1 << 20;
/// More than a column of a batch takes when it is unpacked, bytes.
const MAX_COLUMN: i64 = 64 << 20;
/// More than all columns of a batch take when they are unpacked, and all dictionaries, bytes.
pub(super) const MAX_ALL: i64 = 256 << 20;
/// More columns than a recording has: 52 when this was written.
pub(super) const MAX_COLUMNS: usize = 1_000;
/// LZ4 makes at most 255 bytes of one; the rest is for the shortest.
const MAX_RATIO: i64 = 256;

/// How many buffers a column of this type has in a batch; none for types that no recording has.
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

/// Checks a batch of the schema's columns.
pub(super) fn batch(batch: &RecordBatch<'_>, schema: &Schema, body: &[u8]) -> Result<(), &'static str> {
    let buffers: Vec<Content> =
        schema.fields().iter().flat_map(|field| contents(field.data_type())).collect();
    let rows = batch.length();
    check(batch, schema.fields().len(), &buffers, body)?;
    let same = batch.nodes().is_some_and(|nodes| nodes.iter().all(|node| node.length() == rows));
    if same { Ok(()) } else { Err("its columns have different lengths") }
}

/// Checks a dictionary of text.
pub(super) fn dictionary(dictionary: &DictionaryBatch<'_>, body: &[u8]) -> Result<(), &'static str> {
    if dictionary.isDelta() {
        return Err("it adds to a dictionary");
    }
    let data = dictionary.data().ok_or("a dictionary is empty")?;
    check(&data, 1, &contents(&DataType::Utf8), body)
}

/// What a buffer holds, as far as its length depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// Numbers of so many bytes that lead elsewhere: where a text begins, or which one it is. Arrow takes their bytes for
    /// whole numbers before it has counted them.
    Numbers(i64),
    /// Anything else, whose length arrow checks.
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
        return Err("its number of rows is not plausible");
    }
    for node in nodes {
        if !(0..=MAX_ROWS).contains(&node.length()) || !(0..=node.length()).contains(&node.null_count()) {
            return Err("the length of a column is not plausible");
        }
    }
    let mut all: i64 = 0;
    for (buffer, content) in buffers.iter().zip(wanted) {
        // Arrow takes the numbers from where they are.
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
            let (prefix, packed) = bytes.split_first_chunk().ok_or("a packed column has no length")?;
            let unpacked = i64::from_le_bytes(*prefix);
            let packed = i64::try_from(packed.len()).unwrap_or(i64::MAX);
            let most = packed.saturating_mul(MAX_RATIO).min(MAX_COLUMN);
            if !(-1..=most).contains(&unpacked) {
                return Err("the length of a packed column is not plausible");
            }
            // -1 stands for bytes that are not packed after all.
            length = if unpacked < 0 { packed } else { unpacked };
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
