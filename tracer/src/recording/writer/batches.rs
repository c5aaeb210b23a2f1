//! Record batches and dictionaries as messages of an Arrow IPC stream.

use arrow_ipc::{
    BodyCompressionBuilder, BodyCompressionMethod, Buffer, CompressionType, DictionaryBatchBuilder,
    FieldNode, MessageBuilder, MessageHeader, MetadataVersion, RecordBatchBuilder,
};
use flatbuffers::FlatBufferBuilder;

use crate::recording::writer::{
    packing::{Effort, Packer},
    validity::{Place, Validity},
};

/// Where messages and the buffers in them begin, bytes.
const ALIGNMENT: usize = 8;

/// Makes messages, one after the other. A message is made of columns, and each of those of its validity and then its
/// values.
#[derive(Default)]
pub(super) struct Batches {
    rows: usize,
    nodes: Vec<FieldNode>,
    buffers: Vec<Buffer>,
    body: Vec<u8>,
    /// The zeros that the body has already, and how many they are unpacked.
    zeros: Vec<(usize, Place)>,
    nothing: Vec<u8>,
    packer: Packer,
    builder: FlatBufferBuilder<'static>,
}

impl Batches {
    /// Begins a message of so many rows.
    pub(super) fn begin(&mut self, rows: usize) {
        self.rows = rows;
        self.nodes.clear();
        self.buffers.clear();
        self.body.clear();
        self.zeros.clear();
    }

    /// How many rows the message has.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Begins a column in which every row has a value.
    pub(super) fn all_valid(&mut self) {
        self.node(self.rows);
        self.place(self.body.len());
    }

    /// Begins a column in which these rows have values.
    pub(super) fn validity(&mut self, validity: &mut Validity) {
        self.node(validity.present());
        if validity.present() == 0 {
            self.zeros(self.rows.div_ceil(8));
        } else if let Some(place) = validity.place {
            self.again(place);
        } else {
            let bitmap = validity.bitmap(self.rows);
            let place = self.pack(bitmap, &mut Effort::default());
            validity.place = Some(place);
        }
    }

    /// Adds a buffer.
    pub(super) fn pack(&mut self, buffer: &[u8], effort: &mut Effort) -> Place {
        let at = self.body.len();
        if !buffer.is_empty() {
            self.packer.pack(buffer, effort, &mut self.body);
        }
        self.place(at)
    }

    /// Adds a buffer of so many zeros.
    pub(super) fn zeros(&mut self, length: usize) {
        if let Some(&(_, place)) = self.zeros.iter().find(|(known, _)| *known == length) {
            self.again(place);
            return;
        }
        let mut nothing = std::mem::take(&mut self.nothing);
        if nothing.len() < length {
            nothing.resize(length, 0);
        }
        let place = self.pack(&nothing[..length], &mut Effort::default());
        self.nothing = nothing;
        self.zeros.push((length, place));
    }

    /// Appends the message to `out` as a batch.
    pub(super) fn finish_batch(&mut self, out: &mut Vec<u8>) {
        self.finish(None, out);
    }

    /// Appends the message to `out` as the dictionary with this number, which replaces the one before.
    pub(super) fn finish_dictionary(&mut self, id: i64, out: &mut Vec<u8>) {
        self.finish(Some(id), out);
    }

    fn node(&mut self, present: usize) {
        self.nodes.push(FieldNode::new(number(self.rows), number(self.rows - present)));
    }

    /// Copies a buffer that the body has already. Both could be the same bytes; but no writer does that, and
    /// what other readers make of it is not known.
    fn again(&mut self, Place { at, length }: Place) {
        let begin = self.body.len();
        self.body.extend_from_within(at..at + length);
        self.place(begin);
    }

    /// Notes the buffer that the body ends with.
    fn place(&mut self, at: usize) -> Place {
        let length = self.body.len() - at;
        self.buffers.push(Buffer::new(number(at), number(length)));
        self.body.resize(self.body.len().next_multiple_of(ALIGNMENT), 0);
        Place { at, length }
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

/// Lengths of what is in memory.
fn number(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
