//! LZ4 frames, one for each buffer of a batch.
//!
//! Arrow's own writer makes a new compressor and three copies for each of a hundred buffers, which takes longer
//! than to compress them.

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

/// Begins a frame: independent blocks of at most 256 KiB, no checksums, and the header's checksum.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x50, 0xfb];
const END: [u8; 4] = [0; 4];
/// Marks a block that is as it was.
const UNPACKED: u32 = 1 << 31;
const BLOCK: usize = 256 << 10;

/// Whether it has been worth while to pack a buffer of the batches before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effort {
    /// In so many batches it is not tried.
    rest: u8,
    /// In how many it was not tried before the last attempt.
    rested: u8,
}

impl Effort {
    /// The most batches between two attempts.
    const LONGEST_REST: u8 = 15;

    /// Whether to try.
    fn is_worth_while(&mut self) -> bool {
        if self.rest == 0 {
            return true;
        }
        self.rest -= 1;
        false
    }

    /// How large the buffer was, and how large it is packed. Little is saved of what is
    /// all different, and it takes the longest.
    fn came_to(&mut self, length: usize, packed: usize) {
        self.rested = if packed > length / 4 * 3 { (self.rested * 2 + 1).min(Self::LONGEST_REST) } else { 0 };
        self.rest = self.rested;
    }
}

/// Packs buffers.
pub(super) struct Packer {
    table: CompressTable,
    packed: Vec<u8>,
}

impl Default for Packer {
    fn default() -> Self {
        // The small table is for shorter blocks, finds matches by four bytes instead of five, and so more often short
        // ones.
        Self { table: CompressTable::large(), packed: vec![0; get_maximum_output_size(BLOCK)] }
    }
}

impl Packer {
    /// Appends a buffer as a compressed body has it: the length in 8 bytes and the frame, or -1 and the
    /// buffer as it is, where that is no longer.
    pub(super) fn pack(&mut self, buffer: &[u8], effort: &mut Effort, to: &mut Vec<u8>) {
        let begin = to.len();
        if effort.is_worth_while() {
            let length = i64::try_from(buffer.len()).unwrap_or(i64::MAX);
            to.extend_from_slice(&length.to_le_bytes());
            self.frame(buffer, to);
            let packed = to.len() - begin - size_of::<i64>();
            effort.came_to(buffer.len(), packed);
            if packed < buffer.len() {
                return;
            }
            to.truncate(begin);
        }
        to.extend_from_slice(&(-1_i64).to_le_bytes());
        to.extend_from_slice(buffer);
    }

    fn frame(&mut self, buffer: &[u8], to: &mut Vec<u8>) {
        let Self { table, packed } = self;
        to.extend_from_slice(&HEADER);
        for block in buffer.chunks(BLOCK) {
            let done =
                compress_into_with_table(block, packed, table).ok().and_then(|length| packed.get(..length));
            let (block, mark) = match done {
                Some(done) if done.len() < block.len() => (done, 0),
                _ => (block, UNPACKED),
            };
            let length = u32::try_from(block.len()).unwrap_or_default();
            to.extend_from_slice(&(length | mark).to_le_bytes());
            to.extend_from_slice(block);
        }
        to.extend_from_slice(&END);
    }
}
