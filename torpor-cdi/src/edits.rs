//! What a container is given to be a function.
//!
//! Only mounts and variables of Torpor's own are used, since a variable that a device sets replaces the image's: the library is
//! preloaded by `/etc/ld.so.preload`, which programs with an empty environment have, too, and is found under NVIDIA's names in the
//! folders that loaders search by default.

use serde::Serialize;
use std::path::Path;
use torpor_proto::directory::FunctionDirectory;

/// The library's place in a container.
const LIBRARY: &str = "/opt/torpor/lib/libtorpor_intercept.so";

/// Where Triton is told to look for the driver to link against.
const NAMES: &str = "/opt/torpor/lib/names";

/// Where loaders look by default: Debian's folder and everybody else's.
const LOADER_FOLDERS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64"];

/// What programs open of NVIDIA's driver; few leave out the number.
const DRIVER_FILES: [&str; 3] = ["libcuda.so", "libcuda.so.1", "libnvidia-ml.so.1"];

/// Where a function's directory is in its container.
const SERVER: &str = "/run/torpor";

/// What of Torpor is on the host, to be mounted.
#[derive(Clone, Copy, Debug)]
pub struct Installation<'a> {
    /// `libtorpor_intercept.so`.
    pub library: &'a Path,
    /// A file that says [`Self::PRELOAD_TEXT`].
    pub preload: &'a Path,
}

impl Installation<'_> {
    /// What is mounted as `/etc/ld.so.preload`.
    pub const PRELOAD_TEXT: &'static str = "/opt/torpor/lib/libtorpor_intercept.so\n";
}

/// Variables and mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Edits {
    /// Each `NAME=VALUE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// All of them read-only.
    pub mounts: Vec<Mount>,
}

/// A folder or file of the host, which the container cannot change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where it is on the host.
    pub host_path: String,
    /// Where the container sees it.
    pub container_path: String,
    options: [&'static str; 5],
}

impl Mount {
    fn new(host: &Path, container: impl Into<String>) -> Self {
        Self {
            host_path: host.display().to_string(),
            container_path: container.into(),
            options: ["ro", "nosuid", "nodev", "rbind", "rprivate"],
        }
    }
}

impl Edits {
    /// What makes a container this function: its identity.
    #[must_use]
    pub fn of_function(function: &FunctionDirectory) -> Self {
        Self { env: Vec::new(), mounts: vec![Mount::new(function.path(), SERVER)] }
    }

    /// What every function's container has.
    #[must_use]
    pub fn of_all(installation: Installation<'_>) -> Self {
        let driver = LOADER_FOLDERS.iter().chain([&NAMES]);
        let driver = driver.flat_map(|folder| DRIVER_FILES.map(|file| format!("{folder}/{file}")));
        let library = std::iter::once(LIBRARY.to_owned()).chain(driver);
        let library = library.map(|path| Mount::new(installation.library, path));
        Self {
            env: vec![format!("TORPOR_SERVER={SERVER}"), format!("TRITON_LIBCUDA_PATH={NAMES}")],
            mounts: library.chain([Mount::new(installation.preload, "/etc/ld.so.preload")]).collect(),
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.env.extend(other.env);
        self.mounts.extend(other.mounts);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preloaded_library_is_the_one_that_is_mounted() {
        assert_eq!(Installation::PRELOAD_TEXT.trim_end(), LIBRARY);
    }

    #[test]
    fn programs_find_the_driver_without_its_number_too() {
        let installation =
            Installation { library: Path::new("/lib/shim.so"), preload: Path::new("/run/preload") };
        let mounts = Edits::of_all(installation).mounts;
        for path in [
            "/usr/lib/x86_64-linux-gnu/libcuda.so",
            "/usr/lib64/libcuda.so",
            "/opt/torpor/lib/names/libcuda.so",
        ] {
            let mount = mounts.iter().find(|mount| mount.container_path == path).unwrap();
            assert_eq!(mount.host_path, "/lib/shim.so");
        }
    }
}
