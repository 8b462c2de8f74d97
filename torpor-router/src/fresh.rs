//! What is made of files, and made anew when they change: keys, certificates.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

/// How a file looked.
type Stamp = Option<(SystemTime, u64)>;

/// Something that is made of files.
#[derive(Debug)]
pub struct Fresh<T> {
    paths: Vec<PathBuf>,
    make: fn(&[PathBuf]) -> io::Result<T>,
    stamps: Mutex<Vec<Stamp>>,
    now: RwLock<Arc<T>>,
}

/// How files look now.
#[must_use]
pub fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    paths.iter().map(stamp).collect()
}

impl<T> Fresh<T> {
    /// Makes it for the first time.
    ///
    /// # Errors
    /// Of `make`.
    pub fn new(paths: Vec<PathBuf>, make: fn(&[PathBuf]) -> io::Result<T>) -> io::Result<Self> {
        let (stamps, now) = (Mutex::new(stamps(&paths)), RwLock::new(Arc::new(make(&paths)?)));
        Ok(Self { paths, make, stamps, now })
    }

    /// As it is.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes it anew if a file has changed. Files that are no good change nothing: they may be in the middle of being written, and
    /// are tried again when they change again.
    pub fn look(&self) {
        let now = stamps(&self.paths);
        let mut known = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == now || now.contains(&None) {
            return;
        }
        *known = now;
        match (self.make)(&self.paths) {
            Ok(made) => *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made),
            Err(error) => {
                let paths: Vec<_> = self.paths.iter().map(|path| path.display().to_string()).collect();
                tracing::warn!("nothing changes: {}: {error}", paths.join(" and "));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keys;

    #[test]
    fn a_changed_file_counts_and_a_wrong_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, "one").unwrap();
        let keys = Fresh::new(vec![path.clone()], |paths| Keys::read(&paths[0])).unwrap();
        let admits = |key: &str| keys.get().admit(Some(format!("Bearer {key}").as_bytes()));
        std::fs::write(&path, "another").unwrap();
        keys.look();
        assert!(admits("another") && !admits("one"));
        std::fs::write(&path, "").unwrap();
        keys.look();
        assert!(admits("another"), "else everybody would come in");
        std::fs::remove_file(&path).unwrap();
        keys.look();
        assert!(admits("another"), "else nobody would");
    }
}
