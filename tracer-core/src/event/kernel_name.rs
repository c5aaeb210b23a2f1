//! A name that the kernel gives: a reason or a function.

use std::fmt;

/// Most bytes of a [`KernelName`].
const LENGTH: usize = 31;

/// A name from the kernel, such as `netfilter_drop` or `nft_do_chain`: at most 31 letters, digits, `_`, `.` and `-`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelName {
    length: u8,
    bytes: [u8; LENGTH],
}

impl KernelName {
    /// Creates a name. Ends it at the first NUL or space, cuts it to its length, and replaces other bytes by `?`.
    pub fn new(name: &[u8]) -> Self {
        let mut bytes = [0; LENGTH];
        let mut length = 0;
        for (to, &from) in bytes.iter_mut().zip(name.iter().take_while(|byte| !matches!(byte, 0 | b' '))) {
            let is_plain = from.is_ascii_alphanumeric() || matches!(from, b'_' | b'.' | b'-');
            *to = if is_plain { from } else { b'?' };
            length += 1;
        }
        Self { length, bytes }
    }

    /// Returns whether the name is empty.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the name, which is ASCII.
    pub fn text(&self) -> &str {
        self.bytes.get(..usize::from(self.length)).and_then(|name| str::from_utf8(name).ok()).unwrap_or("")
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl fmt::Debug for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_plain() {
        assert_eq!(KernelName::new(b"nft_do_chain [nf_tables]").text(), "nft_do_chain");
        assert_eq!(KernelName::new(b"tcp_v4_rcv\0\0rest").text(), "tcp_v4_rcv");
        assert_eq!(KernelName::new("a\u{1b}[2J\u{e9}".as_bytes()).text(), "a??2J??");
        assert_eq!(KernelName::new(&[b'x'; 40]).text(), "x".repeat(31));
        assert!(KernelName::new(b"").is_empty() && KernelName::default().is_empty());
    }
}
