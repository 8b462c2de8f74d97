//! The keys that clients of the front may be asked for.

use std::fs;
use std::io;
use std::path::Path;

/// Keys, one of which a request must have.
#[derive(Debug)]
pub struct Keys(Vec<String>);

impl Keys {
    /// Reads a file with one key a line; empty lines and lines with `#` are skipped.
    ///
    /// # Errors
    /// If it cannot be read, or has no key: that would let everybody in.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<_> = lines.map(str::to_owned).collect();
        if keys.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there is no key in it"));
        }
        Ok(Self(keys))
    }

    /// Whether a request with this `Authorization` may pass.
    #[must_use]
    pub fn admit(&self, authorization: Option<&[u8]>) -> bool {
        let key = authorization.and_then(|value| value.strip_prefix(b"Bearer "));
        key.is_some_and(|key| self.0.iter().any(|known| same(known.as_bytes(), key)))
    }
}

/// Compares in a time that does not tell where the difference is.
pub(crate) fn same(known: &[u8], given: &[u8]) -> bool {
    known.len() == given.len()
        && known.iter().zip(given).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_keys_is_needed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Keys::read(file.path()).is_err(), "a file without keys is a mistake");
        fs::write(file.path(), "# ours\nsecret\n\nother\n").unwrap();
        let keys = Keys::read(file.path()).unwrap();
        assert!(keys.admit(Some(b"Bearer secret")) && keys.admit(Some(b"Bearer other")));
        assert!(!keys.admit(Some(b"Bearer secre")) && !keys.admit(Some(b"secret")) && !keys.admit(None));
    }
}
