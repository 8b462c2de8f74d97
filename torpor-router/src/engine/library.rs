//! The library that containers preload, where the engine finds it: on the host.

use crate::engine::error::EngineError;
use crate::engine::place::Place;
use rustix::fs::{StatVfsMountFlags, statvfs};
use std::path::{Path, PathBuf};
use torpor_cdi::{Installation, copy, replace};

/// Its name in the folder, and that of the file that has it preloaded.
const LIBRARY_FILE: &str = "libtorpor_intercept.so";
const PRELOAD_FILE: &str = "ld.so.preload";

/// What containers have of Torpor, by its paths on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnHost {
    library: PathBuf,
    preload: PathBuf,
}

impl OnHost {
    /// Puts into a folder what the host has not yet: the library is used where it is, unless it is in the router's container alone.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn put(place: &Place, library: &Path, folder: &Path) -> Result<Self, EngineError> {
        let failed = |error| EngineError::Folder { folder: folder.to_owned(), error };
        let on_host =
            |path: PathBuf| place.on_host(&path).ok_or(EngineError::NotOnHost { path: folder.to_owned() });
        std::fs::create_dir_all(folder).map_err(failed)?;
        let preload = folder.join(PRELOAD_FILE);
        replace(&preload, Installation::PRELOAD_TEXT).map_err(failed)?;
        let preload = on_host(preload)?;
        if let Some(library) = place.on_host(library) {
            return Ok(Self { library, preload });
        }
        let flags = statvfs(folder).map_err(|error| failed(error.into()))?.f_flag;
        if flags.contains(StatVfsMountFlags::NOEXEC) {
            return Err(EngineError::NoExec { folder: folder.to_owned() });
        }
        let there = folder.join(LIBRARY_FILE);
        copy(library, &there).map_err(failed)?;
        Ok(Self { library: on_host(there)?, preload })
    }

    /// As containers are given it.
    #[must_use]
    pub fn installation(&self) -> Installation<'_> {
        Installation { library: &self.library, preload: &self.preload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_in_the_router_s_container_is_copied_to_the_host() {
        let home = tempfile::tempdir().unwrap();
        let (library, folder) = (home.path().join("own.so"), home.path().join("seen/containers"));
        std::fs::write(&library, "library").unwrap();
        let here = OnHost::put(&Place::Host, &library, &folder).unwrap();
        assert_eq!(here, OnHost { library: library.clone(), preload: folder.join(PRELOAD_FILE) });
        assert!(!folder.join(LIBRARY_FILE).exists(), "it is on the host already");
        let mounts = vec![(home.path().join("seen"), PathBuf::from("/srv"))];
        let place = Place::Container { network: None, mounts };
        let there = OnHost::put(&place, &library, &folder).unwrap();
        assert_eq!(there.library, Path::new("/srv/containers").join(LIBRARY_FILE));
        assert_eq!(there.preload, Path::new("/srv/containers").join(PRELOAD_FILE));
        assert_eq!(std::fs::read_to_string(folder.join(LIBRARY_FILE)).unwrap(), "library");
        let nowhere = Place::Container { network: None, mounts: Vec::new() };
        let error = OnHost::put(&nowhere, &library, &folder).unwrap_err().to_string();
        assert!(error.contains("mount a folder of the host there"), "{error}");
    }
}
