//! Splits an Arrow IPC stream into complete messages.

use std::io::{self, Read};

/// Maximum size of a message's metadata, bytes. Larger than any that this program writes.
const MAX_METADATA: u64 = 4 << 20;
/// Maximum size of a message's body, bytes. Larger than any that this program writes.
pub(super) const MAX_BODY: u64 = 128 << 20;

/// The next part of the stream.
#[derive(Debug)]
pub(super) enum Frame {
    /// A message. Its body follows in the stream.
    Message {
        /// The metadata, a flatbuffer.
        metadata: Vec<u8>,
    },
    /// The end marker.
    End,
    /// The stream ends without an end marker, after or inside a message.
    Cut,
    /// The bytes are not a message.
    Damaged(&'static str),
}

/// Reads messages and counts the bytes.
#[derive(Debug)]
pub(super) struct Frames<R> {
    input: R,
    position: u64,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, position: 0 }
    }

    /// Returns the number of bytes read so far.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Reads the metadata of the next message. Allocates only for bytes that exist.
    pub(super) fn next(&mut self) -> io::Result<Frame> {
        let mut prefix = Vec::with_capacity(8);
        if !self.fill(&mut prefix, 8)? {
            let is_prefix = prefix.iter().take(4).all(|&byte| byte == 0xff);
            return Ok(if is_prefix { Frame::Cut } else { Frame::Damaged("no message starts there") });
        }
        let Some((&[0xff, 0xff, 0xff, 0xff], &[a, b, c, d])) = split(&prefix) else {
            return Ok(Frame::Damaged("no message starts there"));
        };
        let length = u64::from(u32::from_le_bytes([a, b, c, d]));
        if length == 0 {
            return Ok(Frame::End);
        }
        if length > MAX_METADATA {
            return Ok(Frame::Damaged("the length of its metadata is invalid"));
        }
        let mut metadata = Vec::new();
        let complete = self.fill(&mut metadata, length)?;
        Ok(if complete { Frame::Message { metadata } } else { Frame::Cut })
    }

    /// Reads the body of the message; `None` if the stream ends inside it.
    pub(super) fn body(&mut self, length: u64) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        Ok(self.fill(&mut body, length)?.then_some(body))
    }

    /// Reads and counts the rest of the stream.
    pub(super) fn rest(&mut self) -> io::Result<()> {
        let read = io::copy(&mut self.input, &mut io::sink())?;
        self.position += read;
        Ok(())
    }

    /// Reads `length` bytes. Returns false if the stream has fewer. The buffer grows with the data, so a wrong length
    /// allocates nothing.
    fn fill(&mut self, buffer: &mut Vec<u8>, length: u64) -> io::Result<bool> {
        const STEP: u64 = 1 << 20;
        buffer.reserve(usize::try_from(length.min(STEP)).unwrap_or_default());
        let read = (&mut self.input).take(length).read_to_end(buffer)? as u64;
        self.position += read;
        Ok(read == length)
    }
}

fn split(prefix: &[u8]) -> Option<(&[u8; 4], &[u8; 4])> {
    let (marker, rest) = prefix.split_first_chunk()?;
    Some((marker, rest.first_chunk()?))
}
