//! Room for images: on the disk, and on the GPU. What nobody uses leaves, the longest unused first.
//!
//! The workers of a node share the directory. One deletes a file if none of its own clients uses it; another worker that has
//! such an image keeps the file open, and reads on.

use crate::rate_limited::Seldom;
use crate::worker::gpu::images::{Image, ImageHash, ImageStore, Instance};
use crate::worker::sync::lock;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use torpor_proto::error::CudaError;

/// Images that are kept open, at most, if nobody uses them.
const KNOWN: usize = 16_384;

/// Files added until what others added is counted too.
const COUNT_EVERY: u32 = 64;

/// How much there may be of images.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageLimits {
    /// In the directory.
    pub(crate) disk_bytes: u64,
    /// Loaded on the GPU, unless clients use more.
    pub(crate) code_bytes: u64,
}

/// What is known of the directory.
#[derive(Debug, Default)]
pub(crate) struct DiskRoom {
    bytes: u64,
    /// Files that may be added until it is counted again.
    uncounted: u32,
    refusals: Seldom,
}

struct ImageFile {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl ImageStore {
    /// Makes room for a new file.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` if all files that are in the way are used; the log says so.
    pub(crate) fn make_room(&self, bytes: u64) -> Result<(), CudaError> {
        let limit = self.limits.disk_bytes;
        let mut room = lock(&self.room);
        if room.uncounted > 0 && room.bytes + bytes <= limit {
            room.uncounted -= 1;
            room.bytes += bytes;
            return Ok(());
        }
        let mut files = self.files().unwrap_or_default();
        let mut total: u64 = files.iter().map(|file| file.bytes).sum();
        files.sort_by_key(|file| file.used);
        for file in files {
            if total.saturating_add(bytes) <= limit {
                break;
            }
            if self.forget(&file.path) && fs::remove_file(&file.path).is_ok() {
                total -= file.bytes;
            }
        }
        (room.bytes, room.uncounted) = (total, COUNT_EVERY);
        if total.saturating_add(bytes) <= limit {
            room.bytes += bytes;
            return Ok(());
        }
        if let Some(untold) = room.refusals.tell(Instant::now()) {
            tracing::error!(
                untold,
                "an image of {bytes} bytes is refused: functions use {total} bytes of images of the {limit} that may be kept in \
                 {}; raise image_limit in [memory], or end functions",
                self.directory.display()
            );
        }
        Err(CudaError::OUT_OF_MEMORY)
    }

    /// What is loaded on the GPU for all clients together.
    pub(crate) fn loaded_bytes(&self) -> u64 {
        loaded_bytes(&lock(&self.known))
    }

    /// Unloads what nobody uses, as far as more is loaded than may be.
    pub(crate) fn unload_unused(&self) {
        let mut unloaded: Vec<Arc<Instance>> = Vec::new();
        let mut known = lock(&self.known);
        let mut loaded = loaded_bytes(&known);
        if loaded <= self.limits.code_bytes && known.len() <= KNOWN {
            return;
        }
        let mut unused: Vec<(u64, ImageHash)> = known
            .iter()
            .filter(|(_, image)| Arc::strong_count(image) == 1)
            .map(|(&hash, image)| (image.last_used(), hash))
            .collect();
        unused.sort_unstable();
        for (_, hash) in unused {
            if loaded <= self.limits.code_bytes && known.len() <= KNOWN {
                break;
            }
            let Some(image) = known.get(&hash) else { continue };
            let is_loaded = image.is_loaded();
            // One that the GPU may still run is kept by whoever posted that.
            let Some(instance) = image.take_unused() else { continue };
            unloaded.extend(instance);
            loaded -= if is_loaded { image.bytes() } else { 0 };
            known.remove(&hash);
        }
        drop(known);
        // Nobody who looks for an image waits for this, where it is not done aside.
        drop(unloaded);
    }

    /// Forgets an image by its file. False if somebody here uses it.
    fn forget(&self, path: &PathBuf) -> bool {
        let mut known: std::sync::MutexGuard<'_, HashMap<ImageHash, Arc<Image>>> = lock(&self.known);
        let Some((&hash, image)) = known.iter().find(|(_, image)| image.file() == path) else { return true };
        if Arc::strong_count(image) > 1 {
            return false;
        }
        let Some(instance) = image.take_unused() else { return false };
        known.remove(&hash);
        drop(known);
        drop(instance);
        true
    }

    fn files(&self) -> io::Result<Vec<ImageFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // One that is gone by now is no more in the way.
            if let Ok(about) = entry.metadata() {
                let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push(ImageFile { path: entry.path(), bytes: about.len(), used });
            }
        }
        Ok(files)
    }
}

fn loaded_bytes(known: &HashMap<ImageHash, Arc<Image>>) -> u64 {
    known.values().filter(|image| image.is_loaded()).map(|image| image.bytes()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PTX of so many bytes, unlike that of any other number.
    fn ptx(number: u32, bytes: usize) -> Vec<u8> {
        let mut text = format!(".version 8.0\n.target sm_90\n.address_size 64\n// {number}").into_bytes();
        text.resize(bytes - 1, b'x');
        text.push(0);
        text
    }

    fn hash(image: &[u8]) -> ImageHash {
        *blake3::hash(image).as_bytes()
    }

    fn store(directory: &std::path::Path, disk_bytes: u64) -> ImageStore {
        let limits = ImageLimits { disk_bytes, code_bytes: u64::MAX };
        ImageStore::open(directory.to_owned(), limits).unwrap()
    }

    #[test]
    fn images_that_nobody_uses_leave_the_disk_and_those_in_use_are_refused_for() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (store(directory.path(), 10_000), store(directory.path(), 10_000));
        let images: Vec<_> = (0..150).map(|number| ptx(number, 1000)).collect();
        ours.add(hash(&images[0]), &images[0]).unwrap();
        let used = ours.find(hash(&images[0]), 1000).unwrap();
        for image in &images[1..] {
            ours.add(hash(image), image).unwrap();
        }
        let total = |store: &ImageStore| store.files().unwrap().iter().map(|file| file.bytes).sum::<u64>();
        assert!(total(&ours) <= 10_000, "{}", total(&ours));
        assert!(used.file().exists() && ours.find(hash(&images[149]), 1000).is_some());
        assert!(ours.find(hash(&images[1]), 1000).is_none(), "it was the longest unused");
        // Another worker does not know that it is used here, and it is all the same.
        let large = ptx(999, 9_900);
        theirs.add(hash(&large), &large).unwrap();
        assert!(!used.file().exists());
        assert_eq!(used.read().unwrap(), images[0]);
        let in_use = theirs.find(hash(&large), 9_900).unwrap();
        assert_eq!(theirs.add(hash(&images[7]), &images[7]), Err(CudaError::OUT_OF_MEMORY));
        drop(in_use);
        assert_eq!(theirs.add(hash(&images[7]), &images[7]), Ok(()));
    }
}
