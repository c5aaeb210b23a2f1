//! The messages of an Arrow IPC stream, whole or not at all.

use std::io::{self, Read};

/// More than the metadata of any message that this program writes, bytes.
const MAX_METADATA: u64 = 4 << 20;
/// More than any batch that this program writes, bytes.
pub(super) const MAX_BODY: u64 = 128 << 20;

/// What comes next in the stream.
#[derive(Debug)]
pub(super) enum Frame {
    /// A message: its metadata, and where its body begins in the bytes behind it.
    Message {
        /// The metadata, a flatbuffer.
        metadata: Vec<u8>,
    },
    /// The end marker.
    End,
    /// The stream ends, at the end of a message or inside one.
    Cut,
    /// What comes is no message.
    Damaged(&'static str),
}

/// Reads messages, and counts the bytes.
#[derive(Debug)]
pub(super) struct Frames<R> {
    input: R,
    position: u64,
}

impl<R: Read> Frames<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, position: 0 }
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The metadata of the next message. Nothing is allocated that is not there.
    pub(super) fn next(&mut self) -> io::Result<Frame> {
        let mut prefix = Vec::with_capacity(8);
        if !self.fill(&mut prefix, 8)? {
            let begins = prefix.iter().take(4).all(|&byte| byte == 0xff);
            return Ok(if begins { Frame::Cut } else { Frame::Damaged("no message begins there") });
        }
        let Some((&[0xff, 0xff, 0xff, 0xff], &[a, b, c, d])) = split(&prefix) else {
            return Ok(Frame::Damaged("no message begins there"));
        };
        let length = u64::from(u32::from_le_bytes([a, b, c, d]));
        if length == 0 {
            return Ok(Frame::End);
        }
        if length > MAX_METADATA {
            return Ok(Frame::Damaged("the length of its metadata is not plausible"));
        }
        let mut metadata = Vec::new();
        let whole = self.fill(&mut metadata, length)?;
        Ok(if whole { Frame::Message { metadata } } else { Frame::Cut })
    }

    /// The body of the message; none when the stream ends before it does.
    pub(super) fn body(&mut self, length: u64) -> io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        Ok(self.fill(&mut body, length)?.then_some(body))
    }

    /// Reads what is left and counts it.
    pub(super) fn rest(&mut self) -> io::Result<()> {
        let read = io::copy(&mut self.input, &mut io::sink())?;
        self.position += read;
        Ok(())
    }

    /// Reads `length` bytes; false when there are fewer. The buffer grows with what is there, so that a
    /// length that is a lie costs nothing.
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
