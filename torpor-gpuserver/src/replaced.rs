//! Files and mappings of this process in the place of which comes nothing, while others in it may still use their numbers and addresses.

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Makes a descriptor one of `nothing`.
///
/// # Errors
/// The kernel's.
pub(crate) fn file(number: RawFd, nothing: &OwnedFd) -> io::Result<()> {
    // SAFETY: its owner keeps a descriptor of this number, which is all that it owns. One that was closed meanwhile comes into being
    // again and stays.
    if unsafe { libc::dup3(nothing.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The places of all shared mappings of a file whose name begins so.
///
/// # Errors
/// The system's.
pub(crate) fn shared_mappings(beginning: &str) -> io::Result<Vec<Range<usize>>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    Ok(maps.lines().filter_map(|line| shared_mapping(line, beginning)).collect())
}

/// Puts memory of the process's own in the place of shared mappings.
///
/// # Errors
/// The kernel's.
pub(crate) fn mappings(shared: &[Range<usize>]) -> io::Result<()> {
    for place in shared {
        let begin = std::ptr::with_exposed_provenance_mut(place.start);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: whoever uses these addresses shares them with others, and so relies on nothing that it reads there. One
        // that unmaps them just now leaves memory of this process's own there, which nobody uses.
        unsafe { mmap_anonymous(begin, place.len(), ProtFlags::READ | ProtFlags::WRITE, flags)? };
    }
    Ok(())
}

/// The place of what a line of `/proc/self/maps` describes, if it is a shared mapping of such a file. Source: proc_pid_maps(5).
fn shared_mapping(line: &str, beginning: &str) -> Option<Range<usize>> {
    let mut fields = line.split_whitespace();
    let (range, access) = (fields.next()?, fields.next()?);
    let file = fields.nth(3)?;
    if !access.ends_with('s') || !file.starts_with(beginning) {
        return None;
    }
    let (begin, end) = range.split_once('-')?;
    let [begin, end] = [begin, end].map(|address| usize::from_str_radix(address, 16).ok());
    Some(begin?..end?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_lines_are_read() {
        let lines = [
            (
                "7f00000000-7f00002000 rw-s 00001000 00:01 42 /memfd:torpor-slab (deleted)",
                Some(0x7f_0000_0000..0x7f_0000_2000),
            ),
            ("7f00000000-7f00002000 rw-p 00000000 00:01 42 /memfd:torpor-slab (deleted)", None),
            ("7f00000000-7f00002000 rw-s 00000000 00:05 7 /dev/nvidia0", None),
            ("7f00000000-7f00002000 rw-p 00000000 00:00 0", None),
            ("", None),
        ];
        for (line, expected) in &lines {
            assert_eq!(shared_mapping(line, "/memfd:"), *expected, "{line}");
        }
        assert_eq!(shared_mapping(lines[2].0, "/dev/nvidia"), Some(0x7f_0000_0000..0x7f_0000_2000));
    }
}
