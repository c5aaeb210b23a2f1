//! Compresses each buffer of a batch into an LZ4 frame.
//!
//! Arrow's own writer allocates a compressor and copies the data three times for each of about a hundred buffers, which
//! takes longer than the compression.

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

/// Header of a frame: independent blocks of at most 256 KiB, no checksums, and the checksum of the header.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x50, 0xfb];
const END: [u8; 4] = [0; 4];
/// Marks an uncompressed block.
const UNCOMPRESSED: u32 = 1 << 31;
const BLOCK: usize = 256 << 10;

/// Skips the compression of a column for some batches after it saved too little. Incompressible data takes the longest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    /// Batches to skip until the next attempt.
    remaining: u8,
    /// Batches that were skipped before the last attempt.
    skipped: u8,
}

impl Backoff {
    /// Most batches between two attempts.
    const MAX_SKIPPED: u8 = 15;

    /// Returns whether to compress this batch.
    fn is_due(&mut self) -> bool {
        if self.remaining == 0 {
            return true;
        }
        self.remaining -= 1;
        false
    }

    /// Records the sizes of an attempt. Saving less than a quarter is too little.
    fn record(&mut self, length: usize, compressed: usize) {
        self.skipped =
            if compressed > length / 4 * 3 { (self.skipped * 2 + 1).min(Self::MAX_SKIPPED) } else { 0 };
        self.remaining = self.skipped;
    }
}

/// Compresses buffers.
pub(super) struct Compressor {
    table: CompressTable,
    compressed: Vec<u8>,
}

impl Default for Compressor {
    fn default() -> Self {
        // The large table matches by five bytes. The small one matches by four bytes, so it finds more short matches.
        Self { table: CompressTable::large(), compressed: vec![0; get_maximum_output_size(BLOCK)] }
    }
}

impl Compressor {
    /// Appends a buffer in the format of a compressed body: the uncompressed length in 8 bytes and the frame, or -1 and
    /// the uncompressed buffer if the frame is not shorter.
    pub(super) fn compress(&mut self, buffer: &[u8], backoff: &mut Backoff, to: &mut Vec<u8>) {
        let start = to.len();
        if backoff.is_due() {
            let length = i64::try_from(buffer.len()).unwrap_or(i64::MAX);
            to.extend_from_slice(&length.to_le_bytes());
            self.frame(buffer, to);
            let compressed = to.len() - start - size_of::<i64>();
            backoff.record(buffer.len(), compressed);
            if compressed < buffer.len() {
                return;
            }
            to.truncate(start);
        }
        to.extend_from_slice(&(-1_i64).to_le_bytes());
        to.extend_from_slice(buffer);
    }

    fn frame(&mut self, buffer: &[u8], to: &mut Vec<u8>) {
        let Self { table, compressed } = self;
        to.extend_from_slice(&HEADER);
        for block in buffer.chunks(BLOCK) {
            let done = compress_into_with_table(block, compressed, table)
                .ok()
                .and_then(|length| compressed.get(..length));
            let (block, mark) = match done {
                Some(done) if done.len() < block.len() => (done, 0),
                _ => (block, UNCOMPRESSED),
            };
            let length = u32::try_from(block.len()).unwrap_or_default();
            to.extend_from_slice(&(length | mark).to_le_bytes());
            to.extend_from_slice(block);
        }
        to.extend_from_slice(&END);
    }
}
