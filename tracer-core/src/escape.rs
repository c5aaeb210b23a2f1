//! Escapes untrusted text for terminals and logs.

use std::fmt;

/// Escapes untrusted text for terminals and logs.
///
/// Bytes that are not part of a printable UTF-8 character become `\xNN`. A backslash is doubled, so the result is
/// unambiguous.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    // Writing to a string cannot fail.
    let _ = write_escaped(bytes, &mut text);
    text
}

/// Writes the result of [`escape`] to `text` without allocating.
///
/// # Errors
///
/// When writing to `text` fails.
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

/// Returns whether `bytes` are printable ASCII without a backslash, and so need no escaping.
pub fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| matches!(byte, b' '..=b'~') && byte != b'\\')
}

/// Excludes control characters, which move the cursor, and direction marks, which reorder the text.
fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unprintable_bytes_are_escaped() {
        assert_eq!(escape(b"nginx: worker"), "nginx: worker");
        assert_eq!(escape(b"\x1b[31mred\x07"), "\\x1b[31mred\\x07");
        assert_eq!(escape("\u{9b}31m".as_bytes()), "\\xc2\\x9b31m");
        assert_eq!(escape(b"\xff\xfe"), "\\xff\\xfe");
        assert_eq!(escape(b"a\\x1b"), "a\\\\x1b");
        assert_eq!(escape("caf\u{e9}\u{202e}".as_bytes()), "caf\u{e9}\\xe2\\x80\\xae");
    }

    proptest! {
        #[test]
        fn escaped_text_is_printable(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(escape(&bytes).chars().all(is_printable));
        }
    }
}
