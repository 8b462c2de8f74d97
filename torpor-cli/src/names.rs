//! The names under which programs look for NVIDIA's libraries.
//!
//! The preloaded library answers to `libcuda.so.1` by itself. A program that opens `libnvidia-ml.so.1` must not find the
//! driver's, which sees no GPU; and Triton links against a `libcuda.so.1` that it looks for in `LD_LIBRARY_PATH`. So
//! these names are links to the preloaded library, which the loader knows for the same file. Where `libcuda.so` is missing,
//! which NVIDIA's container toolkit makes, too, Taichi computes on the CPU without a word.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const NAMES: [&str; 3] = ["libcuda.so", "libcuda.so.1", "libnvidia-ml.so.1"];

/// Makes the links in the server's directory and gives the `LD_LIBRARY_PATH` with it in front.
pub fn prepare(function: &Path, library: &Path) -> io::Result<OsString> {
    let server = function.parent().and_then(Path::parent).unwrap_or(function);
    let folder = server.join("lib");
    std::fs::create_dir_all(&folder)?;
    for name in NAMES {
        link(library, &folder.join(name))?;
    }
    let existing = env::var_os("LD_LIBRARY_PATH").filter(|existing| !existing.is_empty());
    let folders = std::iter::once(folder).chain(existing.iter().flat_map(env::split_paths));
    env::join_paths(folders.collect::<Vec<PathBuf>>()).map_err(io::Error::other)
}

/// Puts a link in place at once, because others may be starting with it.
fn link(library: &Path, name: &Path) -> io::Result<()> {
    if std::fs::read_link(name).is_ok_and(|there| there == library) {
        return Ok(());
    }
    let fresh = name.with_extension(std::process::id().to_string());
    symlink(library, &fresh)?;
    std::fs::rename(&fresh, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_by_each_name_in_front_of_others() {
        let server = tempfile::tempdir().unwrap();
        let library = Path::new("/opt/libtorpor_intercept.so");
        let folders = prepare(&server.path().join("functions/alpha"), library).unwrap();
        let first = env::split_paths(&folders).next().unwrap();
        for name in ["libcuda.so", "libcuda.so.1", "libnvidia-ml.so.1"] {
            assert_eq!(std::fs::read_link(first.join(name)).unwrap(), library);
        }
        assert_eq!(std::fs::read_dir(first).unwrap().count(), 3);
    }
}
