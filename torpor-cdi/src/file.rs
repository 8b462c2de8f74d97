//! Files that somebody may be reading.

use std::io;
use std::path::Path;

/// Gives a file its contents at once: a runtime may be reading it. A file that has them already stays, for containers that have
/// it mounted.
///
/// # Errors
/// What the kernel says.
pub fn replace(file: &Path, text: &str) -> io::Result<()> {
    if std::fs::read_to_string(file).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let fresh = file.with_extension(format!("fresh-{}", std::process::id()));
    std::fs::write(&fresh, text)?;
    std::fs::rename(fresh, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_that_says_the_same_stays_and_another_is_replaced_whole() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("torpor.json");
        let identity = || std::fs::metadata(&file).unwrap().ino();
        replace(&file, "one").unwrap();
        let first = identity();
        replace(&file, "one").unwrap();
        assert_eq!(identity(), first);
        // Held open, so that its number is not given to the next.
        let _reader = std::fs::File::open(&file).unwrap();
        replace(&file, "two").unwrap();
        assert_ne!(identity(), first);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
