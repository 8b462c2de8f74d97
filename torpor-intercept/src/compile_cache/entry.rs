//! A file of the cache: a header that says what is in it, then that.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `torpor-1` |
//! | 32 | the key |
//! | 8 | length of the contents, little endian |
//! | 32 | BLAKE3 of the contents |
//! | | the contents |

use super::key::Key;

const MAGIC: &[u8; 8] = b"torpor-1";

/// Bytes before the contents.
pub(super) const HEADER_BYTES: u64 = 80;

/// The whole file.
pub(super) fn encode(key: &Key, contents: &[u8]) -> Vec<u8> {
    let length = (contents.len() as u64).to_le_bytes();
    [MAGIC, &key.bytes()[..], &length, blake3::hash(contents).as_bytes(), contents].concat()
}

/// The contents of a file, if it is whole and unchanged and lies under its own key.
pub(super) fn decode(key: &Key, mut file: Vec<u8>) -> Option<Vec<u8>> {
    let (header, contents) = file.split_at_checked(HEADER_BYTES as usize)?;
    let expected = encode(key, &[]);
    let is_right = header[..40] == expected[..40]
        && header[40..48] == (contents.len() as u64).to_le_bytes()
        && header[48..] == *blake3::hash(contents).as_bytes();
    if !is_right || contents.is_empty() {
        return None;
    }
    file.drain(..HEADER_BYTES as usize);
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::super::key::tests::key;
    use super::*;

    #[test]
    fn what_was_put_in_comes_out() {
        assert_eq!(decode(&key(1), encode(&key(1), b"code")).as_deref(), Some(&b"code"[..]));
    }

    #[test]
    fn no_changed_file_is_believed() {
        let file = encode(&key(1), b"code");
        assert_eq!(decode(&key(2), file.clone()), None, "under another name");
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&key(1), changed), None, "byte {at}");
            assert_eq!(decode(&key(1), file[..at].to_vec()), None, "cut at {at}");
        }
        assert_eq!(decode(&key(1), [&file[..], b"!"].concat()), None, "longer");
        assert_eq!(decode(&key(1), encode(&key(1), b"")), None, "empty");
    }
}
