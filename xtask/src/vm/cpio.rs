//! Writes an initramfs in the "newc" format of cpio,
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::io::{self, Write};

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// An archive being written.
pub(crate) struct Archive<W> {
    out: W,
    /// Inode of the next entry; it must be unique.
    inode: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, inode: 1 }
    }

    /// Adds a folder. Its parent folders must have been added.
    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, DIRECTORY, &[])
    }

    /// Adds a file with mode 0755. Its folder must have been added.
    pub(crate) fn file(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.entry(path, FILE, bytes)
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.entry(TRAILER, 0, &[])?;
        Ok(self.out.flush()?)
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        // Names are relative to the root.
        let name = path.trim_start_matches('/');
        let size =
            u32::try_from(bytes.len()).with_context(|| format!("{path} is too large for an initramfs"))?;
        let name_size = u32::try_from(name.len() + 1).context("a name is too long for an initramfs")?;
        write!(self.out, "070701")?;
        // Inode, mode, owner, group, links, time, size, device of the file, device of the node, name size,
        // checksum.
        for number in [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            write!(self.out, "{number:08X}")?;
        }
        self.inode += 1;
        write!(self.out, "{name}\0")?;
        // The header has 110 bytes; names and contents are padded to a multiple of four.
        self.pad(110 + name.len() + 1)?;
        self.out.write_all(bytes)?;
        self.pad(bytes.len())?;
        Ok(())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..written.wrapping_neg() % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_and_a_trailer_follows() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.directory("/bin").unwrap();
        archive.file("/bin/a", b"12345").unwrap();
        archive.finish().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let header = |inode, mode, size, name| {
            format!(
                "070701{inode:08X}{mode:08X}{:016X}{:08X}{:08X}{size:08X}{:032X}{name:08X}{:08X}",
                0, 1, 0, 0, 0
            )
        };
        let expected = [
            header(1, 0o040_755, 0, 4) + "bin\0\0\0",
            header(2, 0o100_755, 5, 6) + "bin/a\0" + "12345\0\0\0",
            header(3, 0, 0, 11) + "TRAILER!!!\0\0\0\0",
        ];
        assert_eq!(text, expected.concat());
        assert_eq!(text.len() % 4, 0);
    }
}
