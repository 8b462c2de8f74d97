//! What a process has open, by the names that the kernel gives in `/proc`. Source: proc_pid_fd(5).

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;

/// The numbers of a process's descriptors whose files' names begin so; `process` is its number, or `self`. It may close them meanwhile.
///
/// # Errors
/// The system's.
pub(crate) fn open_files(process: impl Display, beginning: &str) -> io::Result<Vec<RawFd>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|number| number.parse::<RawFd>().ok());
        // One that is closed by now has no name.
        let name = fs::read_link(entry.path()).unwrap_or_default();
        if name.as_os_str().as_bytes().starts_with(beginning.as_bytes()) {
            found.extend(number);
        }
    }
    Ok(found)
}
