//! Encodes record batches and dictionaries as messages of an Arrow IPC stream.

use arrow_ipc::{
    BodyCompressionBuilder, BodyCompressionMethod, Buffer, CompressionType, DictionaryBatchBuilder,
    FieldNode, MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder,
};
use flatbuffers::FlatBufferBuilder;

use crate::recording::writer::{
    compression::{Backoff, Compressor},
    validity::{BodyRange, Validity},
};

/// Alignment of messages and their buffers, bytes.
const ALIGNMENT: usize = 8;

/// Encodes one message after another. A message has columns, and a column has a validity buffer followed by its values.
#[derive(Default)]
pub(super) struct Batches {
    rows: usize,
    nodes: Vec<FieldNode>,
    buffers: Vec<Buffer>,
    body: Vec<u8>,
    /// The buffers of zeros in the body, by their uncompressed length.
    zeros: Vec<(usize, BodyRange)>,
    /// Zeros to compress.
    zero_bytes: Vec<u8>,
    compressor: Compressor,
    builder: FlatBufferBuilder<'static>,
}

impl Batches {
    /// Starts a message with this number of rows.
    pub(super) fn begin(&mut self, rows: usize) {
        self.rows = rows;
        self.nodes.clear();
        self.buffers.clear();
        self.body.clear();
        self.zeros.clear();
    }

    /// Returns the number of rows of the message.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Starts a column in which every row has a value.
    pub(super) fn all_valid(&mut self) {
        self.node(self.rows);
        self.end_buffer(self.body.len());
    }

    /// Starts a column with this validity.
    pub(super) fn validity(&mut self, validity: &mut Validity) {
        self.node(validity.valid_rows());
        if validity.valid_rows() == 0 {
            self.zeros(self.rows.div_ceil(8));
        } else if let Some(range) = validity.range {
            self.copy(range);
        } else {
            let bitmap = validity.bitmap(self.rows);
            let range = self.add(bitmap, &mut Backoff::default());
            validity.range = Some(range);
        }
    }

    /// Adds a buffer.
    pub(super) fn add(&mut self, buffer: &[u8], backoff: &mut Backoff) -> BodyRange {
        let at = self.body.len();
        if !buffer.is_empty() {
            self.compressor.compress(buffer, backoff, &mut self.body);
        }
        self.end_buffer(at)
    }

    /// Adds a buffer of `length` zeros.
    pub(super) fn zeros(&mut self, length: usize) {
        if let Some(&(_, range)) = self.zeros.iter().find(|(known, _)| *known == length) {
            self.copy(range);
            return;
        }
        let mut zero_bytes = std::mem::take(&mut self.zero_bytes);
        if zero_bytes.len() < length {
            zero_bytes.resize(length, 0);
        }
        let range = self.add(&zero_bytes[..length], &mut Backoff::default());
        self.zero_bytes = zero_bytes;
        self.zeros.push((length, range));
    }

    /// Appends the message to `out` as a record batch.
    pub(super) fn finish_batch(&mut self, out: &mut Vec<u8>) {
        self.finish(None, out);
    }

    /// Appends the message to `out` as the dictionary `id`, which replaces the previous one.
    pub(super) fn finish_dictionary(&mut self, id: i64, out: &mut Vec<u8>) {
        self.finish(Some(id), out);
    }

    fn node(&mut self, valid_rows: usize) {
        self.nodes.push(FieldNode::new(number(self.rows), number(self.rows - valid_rows)));
    }

    /// Copies a buffer of the body. Two buffers could also share their bytes, but no other writer does this, and
    /// readers may not support it.
    fn copy(&mut self, BodyRange { at, length }: BodyRange) {
        let start = self.body.len();
        self.body.extend_from_within(at..at + length);
        self.end_buffer(start);
    }

    /// Registers the buffer from `at` to the end of the body, and pads the body.
    fn end_buffer(&mut self, at: usize) -> BodyRange {
        let length = self.body.len() - at;
        self.buffers.push(Buffer::new(number(at), number(length)));
        self.body.resize(self.body.len().next_multiple_of(ALIGNMENT), 0);
        BodyRange { at, length }
    }

    fn finish(&mut self, dictionary: Option<i64>, out: &mut Vec<u8>) {
        let builder = &mut self.builder;
        builder.reset();
        let mut compression = BodyCompressionBuilder::new(builder);
        compression.add_method(BodyCompressionMethod::BUFFER);
        compression.add_codec(CompressionType::LZ4_FRAME);
        let compression = compression.finish();
        let buffers = builder.create_vector(&self.buffers);
        let nodes = builder.create_vector(&self.nodes);
        let mut batch = RecordBatchBuilder::new(builder);
        batch.add_length(number(self.rows));
        batch.add_nodes(nodes);
        batch.add_buffers(buffers);
        batch.add_compression(compression);
        let batch = batch.finish();
        let (kind, header) = match dictionary {
            None => (MessageHeader::RecordBatch, batch.as_union_value()),
            Some(id) => {
                let mut dictionary = DictionaryBatchBuilder::new(builder);
                dictionary.add_id(id);
                dictionary.add_data(batch);
                (MessageHeader::DictionaryBatch, dictionary.finish().as_union_value())
            }
        };
        let mut message = MessageBuilder::new(builder);
        message.add_version(MetadataVersion::V5);
        message.add_header_type(kind);
        message.add_bodyLength(number(self.body.len()));
        message.add_header(header);
        let message = message.finish();
        builder.finish(message, None);

        let metadata = builder.finished_data();
        let length = metadata.len().next_multiple_of(ALIGNMENT);
        out.reserve(2 * size_of::<u32>() + length + self.body.len());
        out.extend_from_slice(&[0xff; 4]);
        out.extend_from_slice(&u32::try_from(length).unwrap_or_default().to_le_bytes());
        out.extend_from_slice(metadata);
        out.resize(out.len() + length - metadata.len(), 0);
        out.extend_from_slice(&self.body);
    }
}

/// Converts a length in memory.
fn number(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
