//! Results as files, one each, named by their keys.
//!
//! Any number of processes may use a folder: a file appears whole, by its renaming, and is never written again. What is read
//! is checked, since disks fill up and machines lose power in the middle of a write. A checksum is no proof of who wrote
//! a file: only files of this user or root are believed, and none that others could have changed.

use super::entry;
use super::key::Key;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// What files are named that are not whole yet.
const UNFINISHED: &str = ".unfinished";

/// Nobody writes a result for so long: who began this file is gone.
const ABANDONED: Duration = Duration::from_secs(600);

/// The user `root`.
const ROOT: u32 = 0;

pub(super) struct Folder {
    path: PathBuf,
    max_bytes: u64,
}

impl Folder {
    pub(super) fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self { path, max_bytes }
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.path.join(key.text())
    }

    pub(super) fn find(&self, key: &Key) -> Option<Vec<u8>> {
        let path = self.file(key);
        let found = self.read(&path).ok()?.and_then(|file| entry::decode(key, file));
        if found.is_none() {
            crate::log::write(&format!("{} is damaged or somebody else's, and is not used", path.display()));
            // If it cannot be removed, the next result is renamed over it.
            let _ = fs::remove_file(&path);
        }
        found
    }

    /// The contents of a file that is to be believed.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        // Neither a link nor the writing end of a pipe is waited for or followed.
        let mut file =
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
        let state = file.metadata()?;
        let own = rustix::process::geteuid().as_raw();
        let is_ours = state.uid() == own || state.uid() == ROOT;
        let is_safe = state.is_file() && is_ours && state.mode() & 0o022 == 0;
        if !is_safe || state.len() > self.max_bytes.saturating_add(entry::HEADER_BYTES) {
            return Ok(None);
        }
        let mut contents = Vec::with_capacity(state.len() as usize);
        file.read_to_end(&mut contents)?;
        // Who makes room looks at this time. It stays as it is in a folder that cannot be written to.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(contents))
    }

    /// Whether it is kept now.
    pub(super) fn put(&self, key: &Key, code: &[u8]) -> bool {
        if (code.len() as u64).saturating_add(entry::HEADER_BYTES) > self.max_bytes {
            return false;
        }
        let written = self.write(key, &entry::encode(key, code));
        if let Err(error) = &written {
            crate::log::write(&format!("compiled code cannot be kept in {}: {error}", self.path.display()));
            return false;
        }
        // Another process may be making room, too: then some files are gone already.
        let _ = self.make_room();
        true
    }

    fn write(&self, key: &Key, contents: &[u8]) -> io::Result<()> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        // Containers that share a folder may have equal process numbers, hence the time.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.path.join(format!("{}-{number}-{now}{UNFINISHED}", std::process::id()));
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished);
        let finish = |mut file: File| {
            file.write_all(contents)?;
            drop(file);
            fs::rename(&unfinished, self.file(key))
        };
        options.and_then(finish).inspect_err(|_| drop(fs::remove_file(&unfinished)))
    }

    /// Removes the files that were not used for longest until the rest is small enough.
    fn make_room(&self) -> io::Result<()> {
        let (mut files, mut bytes) = (Vec::new(), 0_u64);
        for file in fs::read_dir(&self.path)?.flatten() {
            let Ok(state) = file.metadata() else { continue };
            let used = state.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let name = file.file_name();
            if name.to_string_lossy().ends_with(UNFINISHED) {
                if used.elapsed().is_ok_and(|age| age > ABANDONED) {
                    fs::remove_file(file.path())?;
                }
            } else if state.is_file() {
                bytes += state.len();
                files.push((used, state.len(), file.path()));
            }
        }
        files.sort();
        for (_, length, path) in files {
            if bytes <= self.max_bytes {
                break;
            }
            fs::remove_file(path)?;
            bytes -= length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::tests::key;
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const CODE_BYTES: usize = 1000;

    fn code(number: u8) -> Vec<u8> {
        vec![number; CODE_BYTES]
    }

    fn folder(home: &tempfile::TempDir, results: u64) -> Folder {
        Folder::new(home.path().to_owned(), results * (CODE_BYTES as u64 + entry::HEADER_BYTES))
    }

    fn set_time(folder: &Folder, number: u8, age_s: u64) {
        let file = File::open(folder.file(&key(number))).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).unwrap();
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let home = tempfile::tempdir().unwrap();
        let folder = folder(&home, 3);
        for number in 1..=3 {
            assert!(folder.put(&key(number), &code(number)));
            set_time(&folder, number, 100 - u64::from(number));
        }
        assert_eq!(folder.find(&key(1)), Some(code(1)), "which counts as a use");
        assert!(folder.put(&key(4), &code(4)));
        assert_eq!(folder.find(&key(2)), None);
        for number in [1, 3, 4] {
            assert_eq!(folder.find(&key(number)), Some(code(number)));
        }
        assert!(!folder.put(&key(5), &[5; 5 * CODE_BYTES]), "larger than all room");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_damaged_file_is_no_result_and_makes_place_for_a_new_one() {
        let home = tempfile::tempdir().unwrap();
        let folder = folder(&home, 3);
        assert!(folder.put(&key(1), &code(1)));
        let mut file = fs::read(folder.file(&key(1))).unwrap();
        file[500] ^= 1;
        fs::write(folder.file(&key(1)), file).unwrap();
        assert_eq!(folder.find(&key(1)), None);
        assert!(folder.put(&key(1), &code(1)));
        assert_eq!(folder.find(&key(1)), Some(code(1)));
    }

    #[test]
    fn files_that_others_could_have_written_are_not_believed() {
        let home = tempfile::tempdir().unwrap();
        let folder = folder(&home, 9);
        assert!(folder.put(&key(1), &code(1)));
        let path = folder.file(&key(1));
        let state = fs::metadata(&path).unwrap();
        assert_eq!(state.mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(folder.find(&key(1)), None, "anybody may write it");
        assert!(folder.put(&key(1), &code(1)) && folder.put(&key(2), &code(2)));
        fs::rename(folder.file(&key(1)), home.path().join("elsewhere")).unwrap();
        symlink(home.path().join("elsewhere"), folder.file(&key(1))).unwrap();
        assert_eq!(folder.find(&key(1)), None, "a link");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(folder.file(&key(2)), Some(4711), None).unwrap();
            assert_eq!(folder.find(&key(2)), None, "another user's");
        }
    }

    #[test]
    fn files_that_were_begun_long_ago_go() {
        let home = tempfile::tempdir().unwrap();
        let folder = folder(&home, 3);
        let [old, new] = ["old", "new"].map(|name| home.path().join(format!("{name}{UNFINISHED}")));
        for path in [&old, &new] {
            fs::write(path, "half").unwrap();
        }
        File::open(&old).unwrap().set_modified(SystemTime::now() - 2 * ABANDONED).unwrap();
        assert!(folder.put(&key(1), &code(1)));
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn many_at_once_find_whole_results_or_none() {
        let home = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let folder = folder(&home, 4);
                    for step in 0..100 {
                        let number = step % 8;
                        assert!(folder.find(&key(number)).is_none_or(|found| found == code(number)));
                        assert!(folder.put(&key(number), &code(number)));
                    }
                });
            }
        });
        assert!(fs::read_dir(home.path()).unwrap().count() <= 8);
    }
}
