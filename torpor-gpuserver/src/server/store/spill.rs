//! Chunks in files: one file per chunk, named by its number, in a directory that one server at a time uses.
//!
//! The files are good for one life of the server: they are deleted when it ends, and those of one that died when the
//! next one starts that does not go on where it was. So they are not synchronised to the disk. They hold memory of functions: nobody else may read them.

use crate::chunk::{CHUNK_BYTES, Hash};
use crate::server::store::index::ChunkId;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "torpor-spill.lock";
const SUFFIX: &str = ".torpor-chunk";
const UNFINISHED: &str = ".torpor-chunk-unfinished";

const OWNER_ALONE: Mode = Mode::from_raw_mode(0o600);

/// Why a directory cannot take chunks.
#[derive(Debug, thiserror::Error)]
pub enum SpillDirectoryError {
    /// Another server has it.
    #[error("another server spills to {0} already; choose another --spill-dir")]
    Taken(PathBuf),
    /// It is not there.
    #[error(
        "the spill directory {0} is not there: make it (`mkdir -m 700 {0}`), or choose another --spill-dir"
    )]
    Missing(PathBuf),
    /// Others could put files and links of theirs in the place of chunks.
    #[error(
        "the spill directory {path} {why}, and functions' memory is to lie there: make one that only the server's user may \
         write to (`mkdir -m 700`), and name that as --spill-dir"
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// Who may write there.
        why: String,
    },
    /// It cannot be written.
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
    path: PathBuf,
    /// The directory itself, whatever becomes of its path.
    directory: OwnedFd,
    lock: File,
}

impl SpillFiles {
    /// Takes a directory that only this user may write to, and deletes what a server that died left in it.
    ///
    /// # Errors
    /// [`SpillDirectoryError`].
    pub fn open(path: &Path) -> Result<Self, SpillDirectoryError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => SpillDirectoryError::Missing(path.to_owned()),
            _ => SpillDirectoryError::Io { path: path.to_owned(), error },
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        check_private(&directory).map_err(|why| SpillDirectoryError::Open { path: path.to_owned(), why })?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(&directory, LOCK_FILE, flags, OWNER_ALONE);
        let lock = File::from(lock.map_err(|errno| failed(errno.into()))?);
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(SpillDirectoryError::Taken(path.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let files = Self { path: path.to_owned(), directory, lock };
        files.clear(|_| false).map_err(failed)?;
        Ok(files)
    }

    /// Takes over the directory of the server before, with its lock and the files of the chunks that `are_there`.
    ///
    /// # Errors
    /// The file system's.
    pub fn inherit(path: &Path, lock: OwnedFd, are_there: impl Fn(ChunkId) -> bool) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let files = Self { path: path.to_owned(), directory, lock: lock.into() };
        files.clear(are_there)?;
        Ok(files)
    }

    /// What keeps other servers out of the directory.
    #[must_use]
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.path
    }

    /// What its disk has room for, in bytes.
    ///
    /// # Errors
    /// What the file system says.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::fstatvfs(&self.directory)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Where a chunk's file is, or would be.
    #[must_use]
    pub fn path(&self, chunk: ChunkId) -> PathBuf {
        self.path.join(file_name(chunk, SUFFIX))
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
        let (unfinished, name) = (file_name(chunk, UNFINISHED), file_name(chunk, SUFFIX));
        let write = || {
            // Whatever is there already is not the server's, and is not written to.
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&self.directory, unfinished.as_str(), flags, OWNER_ALONE)?;
            File::from(file).write_all(bytes)?;
            rustix::fs::renameat(&self.directory, unfinished.as_str(), &self.directory, name.as_str())?;
            Ok(())
        };
        write().map(|()| hash).map_err(|error| {
            let _ = self.unlink(&unfinished);
            SpillError::Io { path: self.path(chunk), error }
        })
    }

    /// Reads a chunk from its file, which stays.
    ///
    /// # Errors
    /// [`SpillError`]; `Damaged` if the bytes are not what `expected` says.
    pub fn read(&self, chunk: ChunkId, expected: Hash) -> Result<Vec<u8>, SpillError> {
        let path = self.path(chunk);
        let mut bytes = Vec::with_capacity(CHUNK_BYTES as usize + 1);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&self.directory, file_name(chunk, SUFFIX).as_str(), flags, Mode::empty());
        let read = file
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).take(CHUNK_BYTES + 1).read_to_end(&mut bytes));
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
        if let Err(error) = self.unlink(&file_name(chunk, SUFFIX))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("the spill file {} cannot be deleted: {error}", self.path(chunk).display());
        }
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }

    /// Deletes the files of chunks, but of those that `are_there`.
    fn clear(&self, are_there: impl Fn(ChunkId) -> bool) -> io::Result<()> {
        for entry in Dir::read_from(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_str().unwrap_or_default();
            let chunk = name.strip_suffix(SUFFIX).and_then(|number| ChunkId::from_str_radix(number, 16).ok());
            if name.ends_with(UNFINISHED) || (name.ends_with(SUFFIX) && !chunk.is_some_and(&are_there)) {
                self.unlink(name)?;
            }
        }
        Ok(())
    }
}

impl Drop for SpillFiles {
    fn drop(&mut self) {
        if let Err(error) = self.clear(|_| false) {
            tracing::warn!("the spill directory {} cannot be emptied: {error}", self.path.display());
        }
    }
}

fn file_name(chunk: ChunkId, suffix: &str) -> String {
    format!("{chunk:016x}{suffix}")
}

/// Whether nobody else may write in a directory; if others may, who.
fn check_private(directory: &OwnedFd) -> Result<(), String> {
    let about = rustix::fs::fstat(directory).map_err(|errno| format!("cannot be looked at ({errno})"))?;
    let us = rustix::process::geteuid().as_raw();
    if about.st_uid != us {
        return Err(format!("belongs to user {} and not to the server's, {us}", about.st_uid));
    }
    let mode = about.st_mode & 0o7777;
    if mode & 0o022 != 0 { Err(format!("may be written to by other users (mode {mode:o})")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn chunk(of: u8) -> Vec<u8> {
        vec![of; CHUNK_BYTES as usize]
    }

    #[test]
    fn what_is_written_comes_back_unless_it_was_damaged() {
        let parent = tempfile::tempdir().unwrap();
        let files = SpillFiles::open(parent.path()).unwrap();
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
    #[test]
    fn a_link_in_the_place_of_a_file_is_neither_written_nor_read() {
        let (parent, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let files = SpillFiles::open(parent.path()).unwrap();
        let link =
            |name: &str| std::os::unix::fs::symlink(elsewhere.path(), parent.path().join(name)).unwrap();
        link(&file_name(1, UNFINISHED));
        assert!(matches!(files.write(1, &chunk(1), None), Err(SpillError::Io { .. })));
        assert_eq!(fs::read(elsewhere.path()).unwrap(), b"");
        // It is gone, so the next try is the server's own file.
        let hash = files.write(1, &chunk(1), None).unwrap();
        fs::write(elsewhere.path(), chunk(1)).unwrap();
        files.remove(1);
        link(&file_name(1, SUFFIX));
        assert!(matches!(files.read(1, hash), Err(SpillError::Io { .. })));
    }

    #[test]
    fn a_directory_that_others_may_write_to_or_that_is_not_there_is_refused_with_what_to_do() {
        let parent = tempfile::tempdir().unwrap();
        let missing = parent.path().join("typo");
        let refused = SpillFiles::open(&missing).unwrap_err();
        assert!(matches!(refused, SpillDirectoryError::Missing(_)));
        assert!(refused.to_string().contains("mkdir -m 700") && !missing.exists(), "{refused}");
        for mode in [0o777, 0o1777, 0o770, 0o720] {
            fs::set_permissions(parent.path(), fs::Permissions::from_mode(mode)).unwrap();
            let refused = SpillFiles::open(parent.path()).unwrap_err().to_string();
            assert!(refused.contains("other users") && refused.contains(&format!("{mode:o}")), "{refused}");
        }
        for mode in [0o755, 0o700] {
            fs::set_permissions(parent.path(), fs::Permissions::from_mode(mode)).unwrap();
            SpillFiles::open(parent.path()).unwrap();
        }
        if rustix::process::geteuid().as_raw() != 0 {
            assert!(matches!(SpillFiles::open(Path::new("/")), Err(SpillDirectoryError::Open { .. })));
        }
    }
}
