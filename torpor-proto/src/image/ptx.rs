//! PTX text.
//!
//! Torpor does not compile PTX; it only has to know where the text ends. The driver takes NUL-terminated text.

/// Whether `byte` may occur in PTX: printable ASCII, white space, or part of a UTF-8 sequence in a comment.
pub(super) fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | 0x0b | 0x0c | b'\r' | b' '..=b'~' | 0x80..)
}

/// The text of a PTX image or payload: everything before the first NUL, if that is UTF-8.
pub fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_at_the_first_nul() {
        assert_eq!(text(b".version 8.0\n\0\0junk"), Some(".version 8.0\n"));
        assert_eq!(text(b".version 8.0"), Some(".version 8.0"));
        assert_eq!(text(b"\xff\0"), None);
    }
}
