//! A worker's side: it asks, and believes of an answer what it can check.

use crate::compiler::jobs::{ABSENCE, Jobs};
use crate::compiler::kept::KeptCubins;
use crate::compiler::wire::{Answer, Job};
use crate::rate_limited::Seldom;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;
use torpor_proto::image::{Image, ImageKind, Refusal, fatbin, ptx};

/// Between two questions to one that has no driver yet.
const UNREADY_RETRY: Duration = Duration::from_millis(100);

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
    jobs: Jobs,
    kept: KeptCubins,
    failures: Mutex<Seldom>,
}

impl Compiler {
    /// That which listens at `socket`. What it compiles is kept in `directory`, for workers with the same `driver`.
    pub(crate) fn new(socket: PathBuf, directory: PathBuf, driver: String) -> Self {
        Self { jobs: Jobs::at(socket), kept: KeptCubins::new(directory, driver), failures: Mutex::default() }
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
    /// The driver's, with what it says, or as [`Self::unpack`].
    pub(crate) fn compile(&self, text: &[u8], sm: u32) -> Result<Vec<u8>, Refusal> {
        self.make(Job::Compile, text, sm)
    }

    /// What the driver links of a bundle's inputs for a GPU of compute capability `sm`, which is the compiler's.
    ///
    /// # Errors
    /// As [`Self::compile`].
    pub(crate) fn link(&self, bundle: &[u8], sm: u32) -> Result<Vec<u8>, Refusal> {
        self.make(Job::Link, bundle, sm)
    }

    /// The cubin that a job makes. One that is kept was made by the same job: no text begins as a bundle does.
    fn make(&self, job: Job, bytes: &[u8], sm: u32) -> Result<Vec<u8>, Refusal> {
        if let Some(cubin) = self.kept.find(bytes, sm) {
            return Ok(cubin);
        }
        match self.ask_when_ready(job, bytes, sm)? {
            Answer::Cubin(cubin) if is_cubin(&cubin) => {
                self.kept.keep(bytes, sm, &cubin);
                Ok(cubin)
            }
            Answer::Refused(refusal) if is_of_code(refusal.error) => Err(refusal),
            Answer::Refused(Refusal { error, .. }) | Answer::Unready(error) => {
                self.tell(
                    job,
                    bytes,
                    format_args!("was refused: {error}, which is nothing that code can cause"),
                );
                Err(CudaError::OPERATING_SYSTEM.into())
            }
            _ => {
                self.tell(
                    job,
                    bytes,
                    format_args!("gave no whole cubin; the code may have taken the job over"),
                );
                Err(CudaError::OPERATING_SYSTEM.into())
            }
        }
    }

    /// The compiler's answer once it has its driver, or when that has been waited for as long as for a compiler.
    fn ask_when_ready(&self, job: Job, bytes: &[u8], sm: u32) -> Result<Answer, CudaError> {
        let deadline = Instant::now() + ABSENCE;
        loop {
            match self.ask(job, sm, bytes)? {
                Answer::Unready(_) if Instant::now() < deadline => std::thread::sleep(UNREADY_RETRY),
                answer => return Ok(answer),
            }
        }
    }

    fn ask(&self, job: Job, sm: u32, bytes: &[u8]) -> Result<Answer, CudaError> {
        self.jobs.ask(job, sm, bytes).map_err(|unanswered| {
            self.tell(job, bytes, format_args!("has no answer: {unanswered}"));
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
                self.jobs.socket().display()
            );
        }
    }
}

/// Whether code can be the cause of what the driver's compiler says: not if that is what a driver's state makes it say to whatever it is asked.
fn is_of_code(error: CudaError) -> bool {
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
    use crate::compiler::wire::{self, Life};
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

    /// What a job does.
    #[derive(Clone)]
    enum Does {
        Answers(Answer),
        /// Ends without an answer, and its compiler goes on.
        Ends,
        /// Is taken along by the end of its compiler, when it has heard the question, or before it has said whose it is.
        IsTakenAlong {
            when_asked: bool,
        },
    }
    use Does::{Answers, Ends, IsTakenAlong};

    /// Asks a compiler whose jobs do this.
    fn asking<R>(jobs: Vec<Does>, ask: impl FnOnce(Compiler) -> R) -> R {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("compiler.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answering = std::thread::spawn(move || {
            let mut life = 1;
            for does in jobs {
                let (mut connection, _) = listener.accept().unwrap();
                if matches!(does, IsTakenAlong { when_asked: false }) {
                    life += 1;
                    continue;
                }
                Life::numbered(life).send(&mut connection).unwrap();
                wire::hear(&mut connection).unwrap();
                match does {
                    Answers(answer) => answer.send(&mut connection).unwrap(),
                    Ends => {
                        drop(connection);
                        // Whoever asked looks whose the next job is, and asks nothing.
                        let (mut next, _) = listener.accept().unwrap();
                        Life::numbered(life).send(&mut next).unwrap();
                        wire::hear(&mut next).unwrap_err();
                        continue;
                    }
                    IsTakenAlong { .. } => {
                        life += 1;
                        continue;
                    }
                }
                let _ = connection.shutdown(std::net::Shutdown::Write);
                let _ = connection.read(&mut [0]);
            }
        });
        let found = ask(Compiler::new(socket, directory.path().to_owned(), "driver".to_owned()));
        answering.join().unwrap();
        found
    }

    /// What a worker believes of what these jobs do, each asked a question of either kind.
    fn believed(jobs: Vec<Does>) -> Vec<Believed> {
        let questions = jobs.len();
        let twice = jobs.into_iter().flat_map(|does| [does.clone(), does]).collect();
        asking(twice, |compiler| {
            let ask = |number: usize| {
                let text = format!("text {number}\0");
                let compiled = compiler.compile(text.as_bytes(), 90);
                (compiler.unpack(b"container", 90), compiled.map_err(|refusal| refusal.error))
            };
            (0..questions).map(ask).collect()
        })
    }

    #[test]
    fn who_brings_text_waits_until_the_compiler_has_its_driver() {
        let unready = Answers(Answer::Unready(CudaError::OUT_OF_MEMORY));
        let jobs = vec![unready.clone(), unready, Answers(Answer::Cubin(a_cubin()))];
        assert_eq!(asking(jobs, |compiler| compiler.compile(b"text\0", 90)), Ok(a_cubin()));
    }

    #[test]
    fn a_job_that_the_end_of_its_compiler_takes_along_is_done_again_by_the_next() {
        let taken_along = [false, true, true, false].map(|when_asked| IsTakenAlong { when_asked });
        let then = |last: Does| [&taken_along[..], &[last]].concat();
        let compile = |compiler: Compiler| compiler.compile(b"text\0", 90).map_err(|refusal| refusal.error);
        assert_eq!(asking(then(Answers(Answer::Cubin(a_cubin()))), compile), Ok(a_cubin()));
        assert_eq!(asking(then(Ends), compile), Err(CudaError::OPERATING_SYSTEM));
    }

    #[test]
    fn no_state_of_the_compiler_s_is_taken_for_an_error_in_the_text() {
        for state in [0, 3, 4, 46, 201, 700, 719, 802] {
            let said = Refusal { error: CudaError(state), said: b"of its own".to_vec() };
            let jobs = vec![Answers(Answer::Refused(said))];
            let found = asking(jobs, |compiler| compiler.compile(b"text\0", 90));
            assert_eq!(found, Err(CudaError::OPERATING_SYSTEM.into()), "{state}");
        }
        for of_text in [200, 209, 218, 222] {
            let refusal = Refusal { error: CudaError(of_text), said: b"line 7: why".to_vec() };
            let jobs = vec![Answers(Answer::Refused(refusal.clone()))];
            let found = asking(jobs, |compiler| compiler.compile(b"text\0", 90));
            assert_eq!(found, Err(refusal));
        }
    }

    #[test]
    fn what_a_worker_hands_to_its_driver_is_whole_and_not_compressed() {
        let (sound, cut) = (a_cubin(), a_cubin()[..100].to_vec());
        let refused = (Err(CudaError::INVALID_IMAGE), Err(CudaError::OPERATING_SYSTEM));
        let choice = |entries: &[Vec<u8>]| Answers(Answer::Choice(2, container(entries)));
        let plain = plain_entry(fatbin::EntryKind::CUBIN, 90, 0x40, &sound);
        let not_whole = plain_entry(fatbin::EntryKind::CUBIN, 90, 0x40, &cut);
        let compressed = zstd_entry(fatbin::EntryKind::CUBIN, 90, 0x40, &sound);
        let text = plain_entry(fatbin::EntryKind::PTX, 90, 0x40, b".version 8.0\0\0\0\0");
        let twice = container(&[plain.clone(), plain.clone()]);
        let found = believed(vec![
            Answers(Answer::Cubin(sound.clone())),
            Answers(Answer::Cubin(cut)),
            choice(&[plain.clone(), plain.clone()]),
            choice(&[plain.clone(), not_whole]),
            choice(&[plain.clone(), compressed]),
            choice(&[plain, text]),
            Answers(Answer::Ptx(b"no NUL".to_vec())),
            Answers(Answer::Damaged),
            Answers(Answer::Nothing),
            Answers(Answer::Refused(CudaError(218).into())),
            Answers(Answer::Refused(CudaError(0).into())),
            Answers(Answer::Refused(CudaError::ILLEGAL_ADDRESS.into())),
            Ends,
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
