//! Files that somebody may be reading.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Gives a file its contents at once: a runtime may be reading it. A file that has them already stays, for containers that have
/// it mounted. Everybody may read it, whatever this process's umask is: so may any user of a container.
///
/// # Errors
/// What the kernel says.
pub fn replace(file: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(file).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let fresh = fresh(file);
    fs::write(&fresh, text)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o644))?;
    fs::rename(fresh, file)
}

/// Copies a file to where somebody may have it mounted: that one goes on as it is.
///
/// # Errors
/// What the kernel says.
pub fn copy(source: &Path, file: &Path) -> io::Result<()> {
    let contents = fs::read(source)?;
    if fs::read(file).is_ok_and(|there| there == contents) {
        return Ok(());
    }
    let fresh = fresh(file);
    fs::write(&fresh, contents)?;
    fs::set_permissions(&fresh, fs::metadata(source)?.permissions())?;
    fs::rename(fresh, file)
}

fn fresh(file: &Path) -> PathBuf {
    file.with_extension(format!("fresh-{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_library_that_is_mounted_goes_on_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let (source, file) = (home.path().join("source.so"), home.path().join("library.so"));
        fs::write(&source, "one").unwrap();
        copy(&source, &file).unwrap();
        let mounted = fs::File::open(&file).unwrap();
        fs::write(&source, "two").unwrap();
        copy(&source, &file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
        assert_eq!(io::read_to_string(mounted).unwrap(), "one");
    }

    #[test]
    fn a_file_that_says_the_same_stays_and_another_is_replaced_whole() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("torpor.json");
        let identity = || fs::metadata(&file).unwrap().ino();
        replace(&file, "one").unwrap();
        let first = identity();
        replace(&file, "one").unwrap();
        assert_eq!(identity(), first);
        // Held open, so that its number is not given to the next.
        let _reader = fs::File::open(&file).unwrap();
        replace(&file, "two").unwrap();
        assert_ne!(identity(), first);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
