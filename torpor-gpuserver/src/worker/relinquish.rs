//! Letting go of what the worker shares with others, for good, while threads of it are in calls that do not return.
//!
//! Behind a kernel that does not end, or one that has failed an assertion, a session may stay in the driver until the process ends.
//! What it shares with its client (the channel, the host range, state files) and with other workers (the host store) is the next
//! worker's as soon as the server hears that nothing of this one reaches it any more. So each such descriptor is made one of
//! `/dev/null`, and in the place of each such mapping comes memory of the process's own: whoever returns from the driver reads
//! zeros, and what it writes nobody sees. Before that nobody is [answered](crate::worker::mailbox::Link::stop_answering) any more: a state that told of
//! an answer which went into such memory would leave its client waiting for ever. States are let go of last: one that is void for what nobody sees any more ends
//! a client that could go on, but one that is not void for what was seen would be wrong.
//!
//! Limits: what the GPU itself still writes reaches page-locked memory all the same, until the process is gone.

use crate::open_files::open_files;
use crate::replaced;
use crate::state_file;
use rustix::fs::{Mode, OFlags, fstat, open};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
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
    loop {
        let (files, mappings) = (close_files(&nothing, own)?, replaced::shared_mappings(SHARED_MEMORY)?);
        if files + mappings.len() == 0 {
            break;
        }
        let states = replaced::shared_mappings(&format!("{SHARED_MEMORY}{}", state_file::NAME))?;
        let others: Vec<_> = mappings.into_iter().filter(|mapping| !states.contains(mapping)).collect();
        replaced::mappings(&others)?;
        replaced::mappings(&states)?;
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
        replaced::file(number, nothing)?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};
    use torpor_proto::mapping::{Mapping, create_sealed};

    const BYTES: u64 = 8192;

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
