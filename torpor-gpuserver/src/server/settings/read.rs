//! Reading a file that may be no file, or lie on a disk that hangs.

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// What a settings file may have, in bytes: thousands of functions have room.
const MAX_BYTES: u64 = 4 << 20;

/// The text of a regular file. A FIFO or a device is an error, and nobody waits for it; a disk may hang all the same.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let file =
        open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let what = match FileType::from_raw_mode(fstat(&file)?.st_mode) {
        FileType::RegularFile => None,
        FileType::Directory => Some("a directory"),
        FileType::Fifo => Some("a FIFO"),
        FileType::Socket => Some("a socket"),
        _ => Some("a device"),
    };
    if let Some(what) = what {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("it is {what}, not a regular file")));
    }
    let mut text = String::new();
    File::from(file).take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

/// Does what may hang, on a thread of its own that is left behind if it does.
///
/// # Errors
/// `TimedOut` after `patience`.
pub(super) fn in_time<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (tell, done) = channel();
    // Nobody hears it if it comes too late.
    std::thread::Builder::new().spawn(move || drop(tell.send(work())))?;
    done.recv_timeout(patience).map_err(|error| match error {
        RecvTimeoutError::Timeout => {
            let reason = format!("no answer from its file system within {} seconds", patience.as_secs_f32());
            io::Error::new(ErrorKind::TimedOut, reason)
        }
        RecvTimeoutError::Disconnected => io::Error::other("reading it panicked"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_no_regular_file_is_named_at_once() {
        let home = tempfile::tempdir().unwrap();
        let fifo = home.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for (path, what) in
            [(&*fifo, "a FIFO"), (home.path(), "a directory"), (Path::new("/dev/zero"), "a device")]
        {
            let error = read_text(path).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        let endless = home.path().join("endless");
        File::create(&endless).unwrap().set_len(1 << 40).unwrap();
        assert!(read_text(&endless).unwrap_err().to_string().contains("more than"));
        fs::write(&endless, "text").unwrap();
        assert_eq!(read_text(&endless).unwrap(), "text");
    }

    #[test]
    fn a_disk_that_hangs_is_not_waited_for() {
        let (hold, held) = channel::<()>();
        let error = in_time(Duration::from_millis(10), move || held.recv()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(hold);
        assert_eq!(in_time(Duration::from_secs(20), || 7).unwrap(), 7);
    }
}
