//! The jobs of a GPU's compiler, which come and go with its processes: an answer is had from whichever process there is.

use crate::compiler::wire::{self, Answer, Job, Life};
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a compiler may not be there: a server that is replaced starts another one.
pub(super) const ABSENCE: Duration = Duration::from_secs(30);

/// Between two tries to reach it.
const RETRY: Duration = Duration::from_millis(5);

/// How long an answer may take: more than a job may compute.
const PATIENCE: Duration = Duration::from_secs(900);

/// Whoever answers at a socket.
#[derive(Debug)]
pub(super) struct Jobs {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    error: io::Error,
    /// The compiler went on where its job ended.
    is_of_job: bool,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.error, if self.is_of_job { "; the code may have ended it" } else { "" })
    }
}

impl From<io::Error> for Unanswered {
    fn from(error: io::Error) -> Self {
        Self { error, is_of_job: false }
    }
}

/// A job that has ended without an answer.
struct Lost {
    life: Life,
    error: io::Error,
}

impl Jobs {
    /// Those of the compiler that listens at a socket.
    pub(super) fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Where the compiler listens.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A job's answer. One that ends without is done again if its compiler has ended too, and taken it along; if that goes on, the code may
    /// have ended the job, and would end the next.
    ///
    /// # Errors
    /// No compiler comes, or none stays, for [`ABSENCE`]; or the job ended by itself, or takes too long.
    pub(super) fn ask(&self, job: Job, sm: u32, bytes: &[u8]) -> Result<Answer, Unanswered> {
        let mut lost: Option<Lost> = None;
        let mut until = None;
        loop {
            let (mut connection, life) = self.connect()?;
            if let Some(lost) = lost.take_if(|lost| lost.life == life) {
                return Err(Unanswered { error: lost.error, is_of_job: true });
            }
            let asked = wire::ask(&mut connection, job, sm, bytes);
            match asked.and_then(|()| Answer::receive(&mut connection)) {
                Err(error) if is_end(&error) && Instant::now() < *until.get_or_insert_with(in_absence) => {
                    lost = Some(Lost { life, error });
                }
                done => return Ok(done?),
            }
        }
    }

    /// A job that has begun, and whose it is.
    fn connect(&self) -> io::Result<(UnixStream, Life)> {
        let begin = || {
            let mut connection = UnixStream::connect(&self.socket)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            connection.set_write_timeout(Some(PATIENCE))?;
            let life = Life::receive(&mut connection)?;
            Ok((connection, life))
        };
        let deadline = in_absence();
        loop {
            match begin() {
                Err(error) if is_absence(&error) && Instant::now() < deadline => std::thread::sleep(RETRY),
                done => return done,
            }
        }
    }
}

/// Until when a compiler may not be there.
fn in_absence() -> Instant {
    Instant::now() + ABSENCE
}

/// Whether nobody listens yet, or nobody stays.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) || is_end(error)
}

/// Whether whoever had the other end of a connection is gone.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
