//! Chunks in files: one file per chunk, named by its number, in a directory that one server at a time uses.
//!
//! The files are good for one life of the server: they are deleted when it ends, and those of one that died when the
//! next one starts. So they are not synchronised to the disk. They hold memory of functions: nobody else may read them.

use crate::chunk::{CHUNK_BYTES, Hash};
use crate::server::store::index::ChunkId;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "torpor-spill.lock";
const SUFFIX: &str = ".torpor-chunk";
const UNFINISHED: &str = ".torpor-chunk-unfinished";

/// Why a directory cannot take chunks.
#[derive(Debug, thiserror::Error)]
pub enum SpillDirectoryError {
    /// Another server has it.
    #[error("another server spills to {0} already; choose another --spill-dir")]
    Taken(PathBuf),
    /// It cannot be made or written.
    #[error(
        "the spill directory {path} cannot be used: {error}; make it writable or choose another --spill-dir"
    )]
    Io {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// What went wrong with the file of a chunk.
#[derive(Debug, thiserror::Error)]
pub enum SpillError {
    /// The file system refused.
    #[error("the spill file {path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its content is not what was written.
    #[error("the spill file {0} is damaged: its content is not what was written to it")]
    Damaged(PathBuf),
    /// What was to be written is not what the chunk's hash says.
    #[error(
        "chunk {0} is damaged: its content in memory is not what it was identified by; it is not spilled"
    )]
    Memory(ChunkId),
}

/// The files of one server. Dropping it deletes them.
#[derive(Debug)]
pub struct SpillFiles {
    directory: PathBuf,
    _lock: File,
}

impl SpillFiles {
    /// Makes the directory if it is not there, and deletes what a server that died left in it.
    ///
    /// # Errors
    /// [`SpillDirectoryError`].
    pub fn open(directory: &Path) -> Result<Self, SpillDirectoryError> {
        let failed = |error| SpillDirectoryError::Io { path: directory.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let lock = File::create(directory.join(LOCK_FILE)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(SpillDirectoryError::Taken(directory.to_owned()));
            }
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let files = Self { directory: directory.to_owned(), _lock: lock };
        files.clear().map_err(failed)?;
        Ok(files)
    }

    /// Where a chunk's file is, or would be.
    #[must_use]
    pub fn path(&self, chunk: ChunkId) -> PathBuf {
        self.directory.join(format!("{chunk:016x}{SUFFIX}"))
    }

    /// Writes a chunk to its file and returns its hash. If that fails, nothing is left.
    ///
    /// # Errors
    /// [`SpillError`]; `Memory` if the bytes are not what `expected` says.
    pub fn write(&self, chunk: ChunkId, bytes: &[u8], expected: Option<Hash>) -> Result<Hash, SpillError> {
        let hash = *blake3::hash(bytes).as_bytes();
        if expected.is_some_and(|expected| expected != hash) {
            return Err(SpillError::Memory(chunk));
        }
        let unfinished = self.directory.join(format!("{chunk:016x}{UNFINISHED}"));
        let path = self.path(chunk);
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(bytes)?;
            fs::rename(&unfinished, &path)
        };
        write().map(|()| hash).map_err(|error| {
            let _ = fs::remove_file(&unfinished);
            SpillError::Io { path: path.clone(), error }
        })
    }

    /// Reads a chunk from its file, which stays.
    ///
    /// # Errors
    /// [`SpillError`]; `Damaged` if the bytes are not what `expected` says.
    pub fn read(&self, chunk: ChunkId, expected: Hash) -> Result<Vec<u8>, SpillError> {
        let path = self.path(chunk);
        let mut bytes = Vec::with_capacity(CHUNK_BYTES as usize + 1);
        let read = File::open(&path).and_then(|file| file.take(CHUNK_BYTES + 1).read_to_end(&mut bytes));
        match read {
            Err(error) => Err(SpillError::Io { path, error }),
            Ok(_) if bytes.len() as u64 == CHUNK_BYTES && *blake3::hash(&bytes).as_bytes() == expected => {
                Ok(bytes)
            }
            Ok(_) => Err(SpillError::Damaged(path)),
        }
    }

    /// Deletes a chunk's file, if there is one.
    pub fn remove(&self, chunk: ChunkId) {
        let path = self.path(chunk);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("the spill file {} cannot be deleted: {error}", path.display());
        }
    }

    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.ends_with(SUFFIX) || name.ends_with(UNFINISHED)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for SpillFiles {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!("the spill directory {} cannot be emptied: {error}", self.directory.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(of: u8) -> Vec<u8> {
        vec![of; CHUNK_BYTES as usize]
    }

    #[test]
    fn what_is_written_comes_back_unless_it_was_damaged() {
        let parent = tempfile::tempdir().unwrap();
        let files = SpillFiles::open(&parent.path().join("new")).unwrap();
        let hash = files.write(7, &chunk(1), None).unwrap();
        assert_eq!(files.read(7, hash).unwrap(), chunk(1));
        let path = files.path(7);
        for damaged in [&chunk(2)[..], &chunk(1)[1..], &[&chunk(1)[..], &[1]].concat()] {
            fs::write(&path, damaged).unwrap();
            let error = files.read(7, hash).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()) && error.contains("damaged"), "{error}");
        }
        files.remove(7);
        assert!(matches!(files.read(7, hash), Err(SpillError::Io { .. })));
        files.remove(7);
        assert!(matches!(files.write(8, &chunk(1), Some([0; 32])), Err(SpillError::Memory(8))));
        assert!(!files.path(8).exists());
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let files = SpillFiles::open(parent.path()).unwrap();
        // A directory in the way, since root may write everywhere.
        fs::create_dir(files.path(1)).unwrap();
        assert!(matches!(files.write(1, &chunk(1), None), Err(SpillError::Io { .. })));
        fs::remove_dir(files.path(1)).unwrap();
        let names: Vec<_> =
            fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [LOCK_FILE]);
    }

    #[test]
    fn a_directory_has_one_server_and_what_a_dead_one_left_is_deleted_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let files = SpillFiles::open(parent.path()).unwrap();
        assert!(matches!(SpillFiles::open(parent.path()), Err(SpillDirectoryError::Taken(_))));
        files.write(1, &chunk(1), None).unwrap();
        let path = files.path(1);
        drop(files);
        assert!(!path.exists());
        fs::write(&path, "left behind").unwrap();
        fs::write(parent.path().join("letter"), "dear").unwrap();
        let _files = SpillFiles::open(parent.path()).unwrap();
        assert!(!path.exists() && parent.path().join("letter").exists());
        let refused = SpillFiles::open(&parent.path().join("letter"));
        assert!(matches!(refused, Err(SpillDirectoryError::Io { .. })));
    }
}
