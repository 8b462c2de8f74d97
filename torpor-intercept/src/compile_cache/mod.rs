//! What compilers in the program's process made, kept for later processes: NVRTC gives and takes it by a private table of the
//! driver (`driver/export_table/compile_cache.rs`), as it does natively.
//!
//! It lies where NVIDIA's driver keeps its own, in a folder beside it: `$CUDA_CACHE_PATH/torpor`, else
//! `$HOME/.nv/ComputeCache/torpor`. So every container and every user has a cache of its own, unless an operator lets
//! them share one. Where no folder can be written, results are kept in this process's memory instead.

mod entry;
mod folder;
mod identity;
mod key;
mod memory;
mod settings;

pub(crate) use identity::CallerIdentity;
pub(crate) use key::{Key, Stage};
pub(crate) use settings::is_disabled;

use folder::Folder;
use memory::Memory;
use settings::Settings;
use std::sync::OnceLock;

/// What memory may hold at most, where there is no folder to write to.
const MOST_MEMORY_BYTES: u64 = 64 << 20;

/// The cache of this process.
pub(crate) struct CompileCache {
    folder: Option<Folder>,
    memory: Memory,
}

impl CompileCache {
    /// That of the environment's `CUDA_CACHE_PATH`, `CUDA_CACHE_MAXSIZE` and `HOME`, read at the first use.
    pub(crate) fn of_process() -> &'static Self {
        static CACHE: OnceLock<CompileCache> = OnceLock::new();
        // Unit tests leave nothing behind.
        let settings = || if cfg!(test) { Settings::nowhere() } else { Settings::from_environment() };
        CACHE.get_or_init(|| Self::new(settings()))
    }

    fn new(Settings { path, max_bytes }: Settings) -> Self {
        crate::log::write(&match &path {
            Some(path) => format!("compiled code is kept in {}, {max_bytes} bytes at most", path.display()),
            None => {
                "compiled code is kept for this process alone: neither CUDA_CACHE_PATH nor HOME is set".into()
            }
        });
        let memory = Memory::new(max_bytes.min(MOST_MEMORY_BYTES));
        Self { folder: path.map(|path| Folder::new(path, max_bytes)), memory }
    }

    /// What was kept under a key; never empty.
    pub(crate) fn find(&self, key: &Key) -> Option<Vec<u8>> {
        let found =
            self.folder.as_ref().and_then(|folder| folder.find(key)).or_else(|| self.memory.find(key));
        crate::log::write_detail(|| match &found {
            Some(code) => format!("compile cache: found {} bytes of {}", code.len(), key.stage()),
            None => format!("compile cache: no {} yet", key.stage()),
        });
        found
    }

    /// Keeps something under a key.
    pub(crate) fn put(&self, key: &Key, code: &[u8]) {
        if code.is_empty() {
            return;
        }
        let is_written = self.folder.as_ref().is_some_and(|folder| folder.put(key, code));
        if !is_written {
            self.memory.put(key, code);
        }
        crate::log::write_detail(|| {
            let place = if is_written { "in a file" } else { "in memory" };
            format!("compile cache: {} bytes of {} kept {place}", code.len(), key.stage())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::key::tests::key;
    use super::*;
    use std::path::Path;

    fn cache(path: &Path) -> CompileCache {
        CompileCache::new(Settings { path: Some(path.to_owned()), max_bytes: 1 << 20 })
    }

    #[test]
    fn what_one_process_made_the_next_one_finds() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("not/there/yet");
        assert_eq!(cache(&path).find(&key(1)), None);
        cache(&path).put(&key(1), b"code");
        let next = cache(&path);
        assert_eq!(next.find(&key(1)).as_deref(), Some(&b"code"[..]));
        assert_eq!(next.find(&key(2)), None);
    }

    #[test]
    fn without_a_folder_to_write_memory_keeps_it() {
        // Nobody, not even root, makes folders there.
        let cache = cache(Path::new("/proc/torpor"));
        cache.put(&key(1), b"code");
        assert_eq!(cache.find(&key(1)).as_deref(), Some(&b"code"[..]));
        assert_eq!(cache.find(&key(2)), None);
    }

    #[test]
    fn nothing_is_never_kept() {
        let home = tempfile::tempdir().unwrap();
        let cache = cache(home.path());
        cache.put(&key(1), b"");
        assert_eq!(cache.find(&key(1)), None);
    }
}
