//! A worker's side: it asks, and believes of an answer what it can check.

use crate::compiler::kept::KeptCubins;
use crate::compiler::wire::{self, Answer, Job};
use crate::rate_limited::Seldom;
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;
use torpor_proto::image::{Image, ImageKind, fatbin, ptx};

/// How long a compiler may not be there: a server that is replaced starts another one.
const ABSENCE: Duration = Duration::from_secs(30);

/// Between two tries to reach it.
const RETRY: Duration = Duration::from_millis(5);

/// Between two questions to one that has no driver yet.
const UNREADY_RETRY: Duration = Duration::from_millis(100);

/// How long an answer may take: more than a job may compute.
const PATIENCE: Duration = Duration::from_secs(900);

/// What is in an image for a GPU, not compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plain {
    /// A cubin.
    Cubin(Vec<u8>),
    /// PTX text with its NUL.
    Ptx(Vec<u8>),
    /// A container of so many cubins, among which the driver chooses by what is not known here.
    Choice(usize, Vec<u8>),
}

/// The compiler of a worker's GPU.
#[derive(Debug)]
pub(crate) struct Compiler {
    /// Where it listens.
    socket: PathBuf,
    kept: KeptCubins,
    failures: Mutex<Seldom>,
}

impl Compiler {
    /// That which listens at `socket`. What it compiles is kept in `directory`, for workers with the same `driver`.
    pub(crate) fn new(socket: PathBuf, directory: PathBuf, driver: String) -> Self {
        Self { socket, kept: KeptCubins::new(directory, driver), failures: Mutex::default() }
    }

    /// What is in a container for a GPU of compute capability `sm`.
    ///
    /// # Errors
    /// `CUDA_ERROR_NO_BINARY_FOR_GPU`, `CUDA_ERROR_INVALID_IMAGE`, or `CUDA_ERROR_OPERATING_SYSTEM` if the compiler does not answer, which the
    /// log says.
    pub(crate) fn unpack(&self, container: &[u8], sm: u32) -> Result<Plain, CudaError> {
        match self.ask(Job::Unpack, sm, container)? {
            Answer::Cubin(cubin) if is_cubin(&cubin) => Ok(Plain::Cubin(cubin)),
            Answer::Ptx(text) if text.last() == Some(&0) && ptx::text(&text).is_some() => {
                Ok(Plain::Ptx(text))
            }
            Answer::Choice(cubins, container) if is_plain_choice(&container) => {
                Ok(Plain::Choice(cubins as usize, container))
            }
            Answer::Nothing => Err(CudaError::NO_BINARY_FOR_GPU),
            _ => Err(CudaError::INVALID_IMAGE),
        }
    }

    /// What the driver makes of PTX text for a GPU of compute capability `sm`, which is the compiler's.
    ///
    /// # Errors
    /// The driver's, or as [`Self::unpack`].
    pub(crate) fn compile(&self, text: &[u8], sm: u32) -> Result<Vec<u8>, CudaError> {
        if let Some(cubin) = self.kept.find(text, sm) {
            return Ok(cubin);
        }
        match self.ask_when_ready(text, sm)? {
            Answer::Cubin(cubin) if is_cubin(&cubin) => {
                self.kept.keep(text, sm, &cubin);
                Ok(cubin)
            }
            Answer::Refused(error) if is_of_text(error) => Err(error),
            Answer::Refused(error) | Answer::Unready(error) => {
                self.tell(
                    Job::Compile,
                    text,
                    format_args!("was refused: {error}, which is nothing that text can cause"),
                );
                Err(CudaError::OPERATING_SYSTEM)
            }
            _ => {
                self.tell(
                    Job::Compile,
                    text,
                    format_args!("gave no whole cubin; the code may have taken the job over"),
                );
                Err(CudaError::OPERATING_SYSTEM)
            }
        }
    }

    /// The compiler's answer once it has its driver, or when that has been waited for as long as for a compiler.
    fn ask_when_ready(&self, text: &[u8], sm: u32) -> Result<Answer, CudaError> {
        let deadline = Instant::now() + ABSENCE;
        loop {
            match self.ask(Job::Compile, sm, text)? {
                Answer::Unready(_) if Instant::now() < deadline => std::thread::sleep(UNREADY_RETRY),
                answer => return Ok(answer),
            }
        }
    }

    fn ask(&self, job: Job, sm: u32, bytes: &[u8]) -> Result<Answer, CudaError> {
        let ask = || {
            let mut connection = self.connect()?;
            connection.set_read_timeout(Some(PATIENCE))?;
            connection.set_write_timeout(Some(PATIENCE))?;
            wire::ask(&mut connection, job, sm, bytes)?;
            Answer::receive(&mut connection)
        };
        ask().map_err(|error| {
            self.tell(job, bytes, format_args!("has no answer: {error}; the code may have ended it"));
            CudaError::OPERATING_SYSTEM
        })
    }

    /// Says what became of a question in vain.
    fn tell(&self, job: Job, bytes: &[u8], what: fmt::Arguments<'_>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(untold) = failures.tell(Instant::now()) {
            let hash = blake3::hash(bytes).to_hex();
            tracing::error!(
                untold,
                "{job:?} of code that a function brought ({} bytes, BLAKE3 {}) by the compiler at {} {what}",
                bytes.len(),
                &hash[..12],
                self.socket.display()
            );
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let deadline = Instant::now() + ABSENCE;
        let is_absence = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        };
        loop {
            match UnixStream::connect(&self.socket) {
                Err(error) if is_absence(&error) && Instant::now() < deadline => std::thread::sleep(RETRY),
                done => return done,
            }
        }
    }
}

/// Whether text can be the cause of what the driver's compiler says: not if that is what a driver's state makes it say to whatever it is asked.
fn is_of_text(error: CudaError) -> bool {
    let is_state = matches!(
        error,
        CudaError::NOT_INITIALIZED
            | CudaError::DEINITIALIZED
            | CudaError::INVALID_CONTEXT
            | CudaError::SYSTEM_NOT_READY
    );
    CudaError::check(error.0).is_err() && !error.is_sticky() && !is_state
}

/// Whether the bytes begin with an ELF file that is whole: all of its parts are in them.
fn is_cubin(bytes: &[u8]) -> bool {
    Image::parse(bytes).is_ok_and(|image| image.kind == ImageKind::Elf)
}

/// Whether the bytes are a container of whole cubins, none of them compressed, and nothing else.
fn is_plain_choice(bytes: &[u8]) -> bool {
    let is_plain = |entry: fatbin::Entry<'_>| {
        entry.kind == fatbin::EntryKind::CUBIN && entry.compressed_bytes == 0 && is_cubin(entry.stored)
    };
    Image::parse(bytes).is_ok_and(|image| image.bytes.len() == bytes.len())
        && fatbin::entries(bytes).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(is_plain)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixListener;
    use torpor_proto::image::synthetic::{
        CubinSource, KernelSource, container, cubin, plain_entry, zstd_entry,
    };

    fn a_cubin() -> Vec<u8> {
        let kernel = KernelSource {
            name: "kernel".to_owned(),
            parameters: Vec::new(),
            block_bytes: 0,
            shared_bytes: 0,
            registers: 8,
        };
        cubin(&CubinSource { kernels: vec![kernel], ..CubinSource::default() })
    }

    /// What is believed of an answer to either question.
    type Believed = (Result<Plain, CudaError>, Result<Vec<u8>, CudaError>);

    /// Asks a compiler that gives these answers, one to each question; `None` ends the connection.
    fn asking<R>(answers: Vec<Option<Answer>>, ask: impl FnOnce(Compiler) -> R) -> R {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("compiler.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answering = std::thread::spawn(move || {
            for answer in answers {
                let (mut connection, _) = listener.accept().unwrap();
                wire::hear(&mut connection).unwrap();
                if let Some(answer) = answer {
                    answer.send(&mut connection).unwrap();
                }
                let _ = connection.shutdown(std::net::Shutdown::Write);
                let _ = connection.read(&mut [0]);
            }
        });
        let found = ask(Compiler::new(socket, directory.path().to_owned(), "driver".to_owned()));
        answering.join().unwrap();
        found
    }

    /// What a worker believes of these answers, each to a question of either kind.
    fn believed(answers: Vec<Option<Answer>>) -> Vec<Believed> {
        let questions = answers.len();
        let twice = answers.into_iter().flat_map(|answer| [answer.clone(), answer]).collect();
        asking(twice, |compiler| {
            let ask = |number: usize| {
                let text = format!("text {number}\0");
                (compiler.unpack(b"container", 90), compiler.compile(text.as_bytes(), 90))
            };
            (0..questions).map(ask).collect()
        })
    }

    #[test]
    fn who_brings_text_waits_until_the_compiler_has_its_driver() {
        let unready = Some(Answer::Unready(CudaError::OUT_OF_MEMORY));
        let answers = vec![unready.clone(), unready, Some(Answer::Cubin(a_cubin()))];
        assert_eq!(asking(answers, |compiler| compiler.compile(b"text\0", 90)), Ok(a_cubin()));
    }

    #[test]
    fn no_state_of_the_compiler_s_is_taken_for_an_error_in_the_text() {
        for state in [0, 3, 4, 46, 201, 700, 719, 802] {
            let answers = vec![Some(Answer::Refused(CudaError(state)))];
            let found = asking(answers, |compiler| compiler.compile(b"text\0", 90));
            assert_eq!(found, Err(CudaError::OPERATING_SYSTEM), "{state}");
        }
        for of_text in [200, 209, 218, 222] {
            let answers = vec![Some(Answer::Refused(CudaError(of_text)))];
            let found = asking(answers, |compiler| compiler.compile(b"text\0", 90));
            assert_eq!(found, Err(CudaError(of_text)));
        }
    }

    #[test]
    fn what_a_worker_hands_to_its_driver_is_whole_and_not_compressed() {
        let (sound, cut) = (a_cubin(), a_cubin()[..100].to_vec());
        let refused = (Err(CudaError::INVALID_IMAGE), Err(CudaError::OPERATING_SYSTEM));
        let choice = |entries: &[Vec<u8>]| Some(Answer::Choice(2, container(entries)));
        let plain = plain_entry(fatbin::EntryKind::CUBIN, 90, 0x40, &sound);
        let not_whole = plain_entry(fatbin::EntryKind::CUBIN, 90, 0x40, &cut);
        let compressed = zstd_entry(fatbin::EntryKind::CUBIN, 90, 0x40, &sound);
        let text = plain_entry(fatbin::EntryKind::PTX, 90, 0x40, b".version 8.0\0\0\0\0");
        let twice = container(&[plain.clone(), plain.clone()]);
        let found = believed(vec![
            Some(Answer::Cubin(sound.clone())),
            Some(Answer::Cubin(cut)),
            choice(&[plain.clone(), plain.clone()]),
            choice(&[plain.clone(), not_whole]),
            choice(&[plain.clone(), compressed]),
            choice(&[plain, text]),
            Some(Answer::Ptx(b"no NUL".to_vec())),
            Some(Answer::Damaged),
            Some(Answer::Nothing),
            Some(Answer::Refused(CudaError(218))),
            Some(Answer::Refused(CudaError(0))),
            Some(Answer::Refused(CudaError::ILLEGAL_ADDRESS)),
            None,
        ]);
        assert_eq!(found[0], (Ok(Plain::Cubin(sound.clone())), Ok(sound)));
        assert_eq!(found[2], (Ok(Plain::Choice(2, twice)), Err(CudaError::OPERATING_SYSTEM)));
        for number in [1, 3, 4, 5, 6, 7, 10, 11] {
            assert_eq!(found[number], refused, "answer {number}");
        }
        assert_eq!(found[8].0, Err(CudaError::NO_BINARY_FOR_GPU));
        assert_eq!(found[9].1, Err(CudaError(218)));
        assert_eq!(found[12], (Err(CudaError::OPERATING_SYSTEM), Err(CudaError::OPERATING_SYSTEM)));
    }
}
