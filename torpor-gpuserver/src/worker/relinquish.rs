//! Letting go of what the worker shares with others, for good, while threads of it are in calls that do not return.
//!
//! Behind a kernel that does not end, or one that has failed an assertion, a session may stay in the driver until the process ends.
//! What it shares with its client (the channel, the host range, state files) and with other workers (the host store) is the next
//! worker's as soon as the server hears that nothing of this one reaches it any more. So each such descriptor is made one of
//! `/dev/null`, and in the place of each such mapping comes memory of the process's own: whoever returns from the driver reads
//! zeros, and what it writes nobody sees.
//!
//! Limits: what the GPU itself still writes reaches page-locked memory all the same, until the process is gone.

use crate::open_files::open_files;
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What the kernel calls shared memory without a name in a file system, in `/proc/self`. Source: memfd_create(2).
const SHARED_MEMORY: &str = "/memfd:";

/// How long a call that a thread is in with such a descriptor may take to end: these are short, and none of them waits.
const CALLS: Duration = Duration::from_millis(2);

/// Lets go of all shared memory but that which is the process's standard output.
///
/// # Errors
/// The system's. Then some of it is shared still.
pub(super) fn relinquish() -> io::Result<()> {
    let nothing = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let own = fstat(io::stdout()).map(|output| (output.st_dev, output.st_ino)).ok();
    // A thread may have been about to map what it had a descriptor of.
    while close_files(&nothing, own)? + replace_mappings()? > 0 {
        std::thread::sleep(CALLS);
    }
    Ok(())
}

/// Makes every descriptor of shared memory one of `nothing`. Returns how many those were.
fn close_files(nothing: &OwnedFd, own: Option<(u64, u64)>) -> io::Result<usize> {
    let mut count = 0;
    for number in open_files("self", SHARED_MEMORY)? {
        // SAFETY: looked at in this call alone; if it has been closed meanwhile, the kernel says so.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        if fstat(file).is_ok_and(|file| Some((file.st_dev, file.st_ino)) == own) {
            continue;
        }
        // SAFETY: its owner keeps a descriptor of this number, which is all that it owns. One that was closed meanwhile comes into
        // being again and stays until the process ends, which is about to.
        if unsafe { libc::dup3(nothing.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        count += 1;
    }
    Ok(count)
}

/// Puts memory of the process's own in the place of every mapping of shared memory. Returns how many those were.
fn replace_mappings() -> io::Result<usize> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let shared: Vec<_> = maps.lines().filter_map(shared_mapping).collect();
    for &(begin, bytes) in &shared {
        let place = std::ptr::with_exposed_provenance_mut(begin);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: whoever uses these addresses shares them with other processes, and so relies on nothing that it reads there. One
        // that unmaps them just now leaves memory of this process's own there, which nobody uses.
        unsafe { mmap_anonymous(place, bytes, ProtFlags::READ | ProtFlags::WRITE, flags)? };
    }
    Ok(shared.len())
}

/// Begin and length of what a line of `/proc/self/maps` describes, if it is shared memory. Source: proc_pid_maps(5).
fn shared_mapping(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (range, access) = (fields.next()?, fields.next()?);
    let file = fields.nth(3)?;
    if !access.ends_with('s') || !file.starts_with(SHARED_MEMORY) {
        return None;
    }
    let (begin, end) = range.split_once('-')?;
    let [begin, end] = [begin, end].map(|address| usize::from_str_radix(address, 16).ok());
    Some((begin?, end?.checked_sub(begin?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};
    use torpor_proto::mapping::{Mapping, create_sealed};

    const BYTES: u64 = 8192;

    #[test]
    fn the_kernel_s_lines_are_read() {
        let lines = [
            (
                "7f00000000-7f00002000 rw-s 00001000 00:01 42 /memfd:torpor-slab (deleted)",
                Some((0x7f_0000_0000, 0x2000)),
            ),
            ("7f00000000-7f00002000 rw-p 00000000 00:01 42 /memfd:torpor-slab (deleted)", None),
            ("7f00000000-7f00002000 rw-s 00000000 00:05 7 /dev/nvidia0", None),
            ("7f00000000-7f00002000 rw-p 00000000 00:00 0", None),
            ("", None),
        ];
        for (line, expected) in lines {
            assert_eq!(shared_mapping(line), expected, "{line}");
        }
    }

    #[test]
    fn nothing_that_is_written_afterwards_reaches_what_was_shared() {
        let file = create_sealed("torpor-test", BYTES).unwrap();
        // The process that lets go, which has it as its standard input.
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker::relinquish::tests::the_one_that_lets_go", "--nocapture"])
            .env("TORPOR_LETS_GO", "1")
            .stdin(Stdio::from(file.try_clone().unwrap()))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(ended.success());
        let mut words = [0; 8];
        rustix::io::pread(&file, &mut words, 0).unwrap();
        assert_eq!(words, [1, 0, 2, 0, 0, 0, 0, 0]);
    }

    /// The process of the test above.
    #[test]
    fn the_one_that_lets_go() {
        if std::env::var_os("TORPOR_LETS_GO").is_none() {
            return;
        }
        let file = io::stdin().as_fd().try_clone_to_owned().unwrap();
        let mapping = Mapping::anywhere(&file, BYTES as usize).unwrap();
        let memory = mapping.address().cast::<u8>();
        // SAFETY: inside the mapping, which only this process has.
        unsafe { memory.write_volatile(1) };
        rustix::io::pwrite(&file, &[2], 2).unwrap();
        relinquish().unwrap();
        // SAFETY: as above; what is there now is as long.
        let found = unsafe {
            memory.add(1).write_volatile(3);
            memory.read_volatile()
        };
        assert_eq!(found, 0);
        assert_eq!(rustix::io::pwrite(&file, &[4], 3), Ok(1));
        let hole = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        assert!(rustix::fs::fallocate(&file, hole, 0, BYTES).is_err());
        assert!(Mapping::anywhere(&file, BYTES as usize).is_err());
    }
}
