//! Text from outside, made safe for a terminal and a log.

use std::fmt;

/// Makes text from outside safe for a terminal and a log: whatever is not a printable character of valid
/// UTF-8 becomes `\xNN`, and a backslash is doubled, so that nothing can be mistaken.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    // A string takes everything.
    let _ = write_escaped(bytes, &mut text);
    text
}

/// Writes what [`escape`] gives, without a string in between.
///
/// # Errors
///
/// When `text` does not take it.
pub fn write_escaped(bytes: &[u8], text: &mut impl fmt::Write) -> fmt::Result {
    if is_plain(bytes) {
        return text.write_str(str::from_utf8(bytes).map_err(|_| fmt::Error)?);
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character == '\\' {
                text.write_str("\\\\")?;
            } else if is_printable(character) {
                text.write_char(character)?;
            } else {
                let mut buffer = [0; 4];
                for byte in character.encode_utf8(&mut buffer).bytes() {
                    write!(text, "\\x{byte:02x}")?;
                }
            }
        }
        for &byte in chunk.invalid() {
            write!(text, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// Whether `bytes` are printable ASCII without a backslash, as nearly everything is.
pub fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| matches!(byte, b' '..=b'~') && byte != b'\\')
}

/// Control characters move cursors; direction marks reorder what is read.
fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_bytes_are_escaped() {
        assert_eq!(escape(b"nginx: worker"), "nginx: worker");
        assert_eq!(escape(b"\x1b[31mred\x07"), "\\x1b[31mred\\x07");
        assert_eq!(escape("\u{9b}31m".as_bytes()), "\\xc2\\x9b31m");
        assert_eq!(escape(b"\xff\xfe"), "\\xff\\xfe");
        assert_eq!(escape(b"a\\x1b"), "a\\\\x1b");
        assert_eq!(escape("caf\u{e9}\u{202e}".as_bytes()), "caf\u{e9}\\xe2\\x80\\xae");
    }

    proptest! {
        #[test]
        fn escaped_text_is_printable_and_ascii_stays(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(escape(&bytes).chars().all(is_printable));
        }
    }
}
