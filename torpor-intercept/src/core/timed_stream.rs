//! A Unix stream socket whose every step ends at one deadline, however often the program's signals interrupt it.

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The least that is waited: 0 would be for ever. Source: socket(7), SO_RCVTIMEO.
const SHORTEST: Duration = Duration::from_millis(1);

/// A connected socket. Its errors are never `Interrupted`; past its deadline they are `TimedOut`.
#[derive(Debug)]
pub(super) struct TimedStream {
    stream: UnixStream,
    deadline: Instant,
}

impl TimedStream {
    /// Connects, and waits while the server is too busy to accept.
    pub(super) fn connect(path: &Path, deadline: Instant) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        loop {
            set_socket_timeout(&socket, Timeout::Send, Some(until(deadline)?))?;
            match connect(&socket, &address) {
                Ok(()) => return Ok(Self { stream: socket.into(), deadline }),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Does what receives from the socket by other means than reading.
    pub(super) fn receive<T>(&self, receive: impl Fn(&UnixStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            self.stream.set_read_timeout(Some(until(self.deadline)?))?;
            match receive(&self.stream) {
                Err(error) if is_to_be_repeated(&error) => {}
                received => return received,
            }
        }
    }
}

impl Read for TimedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let buffer = std::cell::RefCell::new(buffer);
        self.receive(|mut stream| stream.read(&mut buffer.borrow_mut()))
    }
}

impl Write for TimedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.stream.set_write_timeout(Some(until(self.deadline)?))?;
            match self.stream.write(bytes) {
                Err(error) if is_to_be_repeated(&error) => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<TimedStream> for OwnedFd {
    fn from(timed: TimedStream) -> Self {
        timed.stream.into()
    }
}

/// Interrupted, or the socket's own time-out: whether it is too late says the deadline.
fn is_to_be_repeated(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

fn until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left.max(SHORTEST)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_server_that_never_answers_is_waited_for_until_the_deadline() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let soon = || Instant::now() + Duration::from_millis(20);
        let mut stream = TimedStream::connect(&path, soon()).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        // Nobody accepts: the queue fills, and connecting takes until the deadline too.
        let mut waiting = Vec::new();
        let late = loop {
            match TimedStream::connect(&path, soon()) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        drop(listener);
        let nobody = TimedStream::connect(&path, soon()).unwrap_err();
        assert_eq!(nobody.kind(), ErrorKind::ConnectionRefused);
    }
}
