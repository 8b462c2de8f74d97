//! What is asked of a compiler over a connection, once, and what it answers. Before that a job says which process it is a copy of.

use bytemuck::{Pod, Zeroable};
use std::io::{self, Read, Write};
use torpor_proto::error::CudaError;
use torpor_proto::image::{MAX_IMAGE_BYTES, Refusal};

/// Which process a job is a copy of: another one has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life(u32);

impl Life {
    /// Of a job that is a copy of this process.
    pub(crate) fn of_this_process() -> Self {
        Self(std::process::id())
    }

    /// One of this number.
    #[cfg(test)]
    pub(super) fn numbered(number: u32) -> Self {
        Self(number)
    }

    /// Says it.
    ///
    /// # Errors
    /// The connection's.
    pub(super) fn send(self, connection: &mut impl Write) -> io::Result<()> {
        connection.write_all(&self.0.to_le_bytes())
    }

    /// What is said.
    ///
    /// # Errors
    /// The connection's.
    pub(super) fn receive(connection: &mut impl Read) -> io::Result<Self> {
        let mut number = [0; 4];
        connection.read_exact(&mut number)?;
        Ok(Self(u32::from_le_bytes(number)))
    }
}

/// What is to be done with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Job {
    /// They are a fatbin container: give what is in it for a GPU, not compressed.
    Unpack = 1,
    /// They are PTX text with its NUL: give a cubin for the compiler's GPU.
    Compile,
    /// They are a bundle: link its inputs to a cubin for the compiler's GPU.
    Link,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A cubin.
    Cubin(Vec<u8>),
    /// PTX text with its NUL.
    Ptx(Vec<u8>),
    /// A container of so many cubins among which the driver chooses, none of them compressed.
    Choice(u32, Vec<u8>),
    /// There is no code for this GPU in it.
    Nothing,
    /// It cannot be read.
    Damaged,
    /// The driver does not compile it.
    Refused(Refusal),
    /// There is no driver to compile it, for this reason; later there may be.
    Unready(CudaError),
}

/// What goes before the bytes of a question: its job, the GPU's compute capability (90 for 9.0), and how many bytes follow.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct QuestionHeader {
    job: u32,
    sm: u32,
    bytes: u64,
}

/// What goes before the bytes of an answer: which it is, its number, and how many bytes follow.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AnswerHeader {
    kind: u32,
    number: u32,
    bytes: u64,
}

const CUBIN: u32 = 1;
const PTX: u32 = 2;
const CHOICE: u32 = 3;
const NOTHING: u32 = 4;
const DAMAGED: u32 = 5;
const REFUSED: u32 = 6;
const UNREADY: u32 = 7;

/// Asks.
///
/// # Errors
/// The connection's.
pub(super) fn ask(connection: &mut impl Write, job: Job, sm: u32, bytes: &[u8]) -> io::Result<()> {
    let header = QuestionHeader { job: job as u32, sm, bytes: bytes.len() as u64 };
    connection.write_all(bytemuck::bytes_of(&header))?;
    connection.write_all(bytes)
}

/// What is asked.
///
/// # Errors
/// The connection's, or it is no question.
pub(super) fn hear(connection: &mut impl Read) -> io::Result<(Job, u32, Vec<u8>)> {
    let mut header = QuestionHeader::zeroed();
    connection.read_exact(bytemuck::bytes_of_mut(&mut header))?;
    let job = [Job::Unpack, Job::Compile, Job::Link].into_iter().find(|&job| job as u32 == header.job);
    let job = job.ok_or(io::ErrorKind::InvalidData)?;
    Ok((job, header.sm, body(connection, header.bytes)?))
}

impl Answer {
    /// Answers.
    ///
    /// # Errors
    /// The connection's.
    pub(super) fn send(&self, connection: &mut impl Write) -> io::Result<()> {
        let (kind, number, bytes): (_, _, &[u8]) = match self {
            Self::Cubin(cubin) => (CUBIN, 0, cubin),
            Self::Ptx(text) => (PTX, 0, text),
            Self::Choice(cubins, container) => (CHOICE, *cubins, container),
            Self::Nothing => (NOTHING, 0, &[]),
            Self::Damaged => (DAMAGED, 0, &[]),
            Self::Refused(refusal) => (REFUSED, refusal.error.0, &refusal.said),
            Self::Unready(error) => (UNREADY, error.0, &[]),
        };
        let header = AnswerHeader { kind, number, bytes: bytes.len() as u64 };
        connection.write_all(bytemuck::bytes_of(&header))?;
        connection.write_all(bytes)
    }

    /// What is answered.
    ///
    /// # Errors
    /// The connection's, or it is no answer.
    pub(super) fn receive(connection: &mut impl Read) -> io::Result<Self> {
        let mut header = AnswerHeader::zeroed();
        connection.read_exact(bytemuck::bytes_of_mut(&mut header))?;
        let bytes = body(connection, header.bytes)?;
        match header.kind {
            CUBIN => Ok(Self::Cubin(bytes)),
            PTX => Ok(Self::Ptx(bytes)),
            CHOICE => Ok(Self::Choice(header.number, bytes)),
            NOTHING => Ok(Self::Nothing),
            DAMAGED => Ok(Self::Damaged),
            REFUSED if bytes.len() <= Refusal::MOST_BYTES => {
                Ok(Self::Refused(Refusal { error: CudaError(header.number), said: bytes }))
            }
            UNREADY => Ok(Self::Unready(CudaError(header.number))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// So many bytes, for which no more memory is taken than comes.
fn body(connection: &mut impl Read, bytes: u64) -> io::Result<Vec<u8>> {
    if bytes > MAX_IMAGE_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut contents = Vec::new();
    connection.take(bytes).read_to_end(&mut contents)?;
    if contents.len() as u64 == bytes { Ok(contents) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_answered_arrives() {
        let mut sent = Vec::new();
        for job in [Job::Unpack, Job::Compile, Job::Link] {
            sent.clear();
            ask(&mut sent, job, 90, b"text\0").unwrap();
            assert_eq!(hear(&mut &sent[..]).unwrap(), (job, 90, b"text\0".to_vec()));
        }
        let answers = [
            Answer::Cubin(vec![1; 9]),
            Answer::Ptx(vec![2]),
            Answer::Choice(2, vec![3; 70]),
            Answer::Nothing,
            Answer::Damaged,
            Answer::Refused(CudaError(218).into()),
            Answer::Refused(Refusal { error: CudaError(218), said: b"a line".to_vec() }),
            Answer::Unready(CudaError(2)),
        ];
        for answer in answers {
            let mut sent = Vec::new();
            answer.send(&mut sent).unwrap();
            assert_eq!(Answer::receive(&mut &sent[..]).unwrap(), answer);
            assert!(Answer::receive(&mut &sent[..sent.len() - 1]).is_err(), "it is cut short");
        }
    }

    #[test]
    fn nonsense_is_refused_before_memory_is_taken_for_it() {
        let header = |first: u32, bytes: u64| {
            [&first.to_le_bytes()[..], &[0; 4], &bytes.to_le_bytes(), &[0; 64]].concat()
        };
        for (first, bytes) in [(0, 1), (9, 1), (1, u64::MAX), (1, MAX_IMAGE_BYTES + 1), (1, 65)] {
            assert!(hear(&mut &header(first, bytes)[..]).is_err(), "{first} {bytes}");
            assert!(Answer::receive(&mut &header(first, bytes)[..]).is_err(), "{first} {bytes}");
        }
    }
}
