//! Cubins that were compiled or linked, in files, for all workers of a node: who goes on at the next worker does not wait for the compiler again.
//!
//! They lie among the images, and count and leave as these do; nothing depends on who wrote them but that the directory is the server's
//! alone. A job that was taken over has kept what it answered for its own text: no other code is found by that.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use torpor_proto::image::MAX_PAYLOAD_BYTES;

/// Before a cubin stands the BLAKE3 of it, as disks break.
const HASH_BYTES: usize = 32;

/// Files of cubins.
#[derive(Debug)]
pub(super) struct KeptCubins {
    directory: PathBuf,
    /// Whose compiler it was: another one makes other cubins.
    driver: String,
    files_written: AtomicU64,
}

impl KeptCubins {
    /// Those in a directory, of a driver.
    pub(super) fn new(directory: PathBuf, driver: String) -> Self {
        Self { directory, driver, files_written: AtomicU64::new(0) }
    }

    /// What was compiled of a text for GPUs of a compute capability.
    pub(super) fn find(&self, text: &[u8], sm: u32) -> Option<Vec<u8>> {
        let file = File::open(self.file(text, sm)).ok()?;
        let mut contents = Vec::new();
        (&file).take(MAX_PAYLOAD_BYTES).read_to_end(&mut contents).ok()?;
        let (hash, cubin) = contents.split_at_checked(HASH_BYTES)?;
        if blake3::hash(cubin).as_bytes() != hash {
            return None;
        }
        // For whoever deletes the longest unused.
        let _ = file.set_modified(SystemTime::now());
        Some(cubin.to_vec())
    }

    /// Keeps what was compiled, if that can be.
    pub(super) fn keep(&self, text: &[u8], sm: u32, cubin: &[u8]) {
        let file = self.file(text, sm);
        let number = self.files_written.fetch_add(1, Ordering::Relaxed);
        let unfinished = file.with_extension(format!("{}-{number}.tmp", std::process::id()));
        let write = || -> io::Result<()> {
            fs::write(&unfinished, [blake3::hash(cubin).as_bytes(), cubin].concat())?;
            fs::rename(&unfinished, &file)
        };
        if let Err(error) = write() {
            tracing::debug!("a compiled cubin cannot be kept in {}: {error}", self.directory.display());
            let _ = fs::remove_file(&unfinished);
        }
    }

    fn file(&self, text: &[u8], sm: u32) -> PathBuf {
        let mut name = blake3::Hasher::new();
        name.update(self.driver.as_bytes()).update(&[0]).update(&sm.to_le_bytes()).update(text);
        self.directory.join(format!("{}.cubin", name.finalize().to_hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cubin_is_found_for_its_text_its_gpu_and_its_driver_alone() {
        let directory = tempfile::tempdir().unwrap();
        let of = |driver: &str| KeptCubins::new(directory.path().to_owned(), driver.to_owned());
        of("580").keep(b"text\0", 90, b"cubin");
        assert_eq!(of("580").find(b"text\0", 90), Some(b"cubin".to_vec()));
        assert_eq!(of("580").find(b"text\0", 80), None);
        assert_eq!(of("580").find(b"texts\0", 90), None);
        assert_eq!(of("590").find(b"text\0", 90), None);
        fs::write(of("580").file(b"text\0", 90), [&[0; 32][..], b"cubin"].concat()).unwrap();
        assert_eq!(of("580").find(b"text\0", 90), None, "it is damaged");
        of("580").keep(b"text\0", 90, b"cubin");
        assert_eq!(of("580").find(b"text\0", 90), Some(b"cubin".to_vec()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn on_a_full_disk_nothing_is_kept_and_nothing_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let kept = KeptCubins::new(directory.path().to_owned(), "580".to_owned());
        let unfinished = kept.file(b"text\0", 90).with_extension(format!("{}-0.tmp", std::process::id()));
        std::os::unix::fs::symlink("/dev/full", unfinished).unwrap();
        kept.keep(b"text\0", 90, b"cubin");
        assert_eq!(kept.find(b"text\0", 90), None);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        kept.keep(b"text\0", 90, b"cubin");
        assert_eq!(kept.find(b"text\0", 90), Some(b"cubin".to_vec()), "there is room again");
    }
}
