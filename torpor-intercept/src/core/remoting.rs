//! Ways of remoting that leave ideas out, to measure what each of them brings: `TORPOR_REMOTING`, read once.
//!
//! Each way has one idea more than the one before it; the last is what everybody gets. Only the order and the number of
//! messages differ: every program works in every way, and what its calls mean is the same.
//!
//! In all ways but `full`, a call that was answered in this process costs a round trip all the same ([`ask_anyway`]): the
//! question goes to the server as a `Ping`, and the answer that is given is the one that was known. So results do
//! not change, and the time is that of asking.

use super::channel::LOOK;
use super::{Client, CudaResult, client};
use std::cell::Cell;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use torpor_proto::command::{Command, Ping};
use torpor_proto::ring::NO_SLOT;

/// Messages that `batched` sends together, and how long the first of them waits: what the published Torpor prototype does.
const BATCH_COMMANDS: usize = 30;
const BATCH_AGE: Duration = Duration::from_micros(50);

/// Names (or their beginnings) of what any remoting answers in the process: they ask about the library, not the device.
const NOT_OF_THE_DEVICE: [&str; 9] = [
    "__cuda",
    "cuInit",
    "cuGetProcAddress",
    "cuGetError",
    "cuGetExportTable",
    "cudaGetDriverEntryPoint",
    "cudaGetExportTable",
    "cudaRuntimeGetVersion",
    "cuDriverGetVersion",
];

/// How this process's calls reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remoting {
    /// Every call is awaited: the next begins when the server has made this one.
    Awaited,
    /// Calls without an answer are sent one by one: the next begins when the server has taken this one out of the ring.
    Unbatched,
    /// They are collected, and up to 30 of them sent together, at the latest with the first call after 50 µs or the first
    /// that is awaited.
    Batched,
    /// They go into the ring at once and nobody waits for anything: neither for company, nor until they are taken.
    NoLocal,
    /// And what is known in this process is answered here.
    Full,
}

impl Remoting {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "awaited" => Self::Awaited,
            "unbatched" => Self::Unbatched,
            "batched" => Self::Batched,
            "no-local" => Self::NoLocal,
            "full" | "" => Self::Full,
            _ => return None,
        })
    }

    /// What `TORPOR_REMOTING` says.
    pub fn of_process() -> Self {
        static CHOSEN: OnceLock<Remoting> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let Some(name) = std::env::var_os("TORPOR_REMOTING") else { return Self::Full };
            let name = name.to_string_lossy();
            Self::parse(&name).unwrap_or_else(|| {
                crate::log::write(&format!(
                    "TORPOR_REMOTING={name} is none of awaited, unbatched, batched, no-local, full; it is taken for full"
                ));
                Self::Full
            })
        })
    }
}

thread_local! {
    /// Whether the CUDA call that this thread is in sent anything.
    static HAS_SENT: Cell<bool> = const { Cell::new(false) };
}

/// Commands that wait to be sent together.
#[derive(Default)]
pub(super) struct Batch(Mutex<Held>);

#[derive(Default)]
struct Held {
    commands: Vec<HeldCommand>,
    since: Option<Instant>,
}

struct HeldCommand {
    opcode: u16,
    body: Vec<u64>,
    tail: Vec<u8>,
}

impl Client {
    /// Posts a command in another way than `full`.
    #[cold]
    pub(super) fn post_otherwise<C: Command<Reply = ()>>(&self, command: &C, tail: &[u8]) -> CudaResult<()> {
        let _ = HAS_SENT.try_with(|sent| sent.set(true));
        match self.remoting {
            Remoting::Batched => self.hold(command, tail),
            Remoting::Unbatched => {
                self.push(C::OPCODE, NO_SLOT, command.words(), tail)?;
                self.wait_until_taken()
            }
            Remoting::Awaited => {
                self.push(C::OPCODE, NO_SLOT, command.words(), tail)?;
                client()?.call(&Ping {}, &[]).map(|_| ())
            }
            Remoting::NoLocal | Remoting::Full => self.push(C::OPCODE, NO_SLOT, command.words(), tail),
        }
    }

    /// What comes before an awaited command, or before waiting for what a posted one does.
    #[cold]
    pub(super) fn send_held(&self) -> CudaResult<()> {
        let _ = HAS_SENT.try_with(|sent| sent.set(true));
        self.send(&mut self.batch.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hold<C: Command>(&self, command: &C, tail: &[u8]) -> CudaResult<()> {
        let mut held = self.batch.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *held.since.get_or_insert_with(Instant::now);
        held.commands.push(HeldCommand {
            opcode: C::OPCODE,
            body: command.words().to_vec(),
            tail: tail.to_vec(),
        });
        if held.commands.len() >= BATCH_COMMANDS || since.elapsed() >= BATCH_AGE {
            return self.send(&mut held);
        }
        Ok(())
    }

    fn send(&self, held: &mut Held) -> CudaResult<()> {
        held.since = None;
        let mut commands = held.commands.drain(..);
        commands.try_for_each(|command| self.push(command.opcode, NO_SLOT, &command.body, &command.tail))
    }

    /// Also what other threads put into the ring meanwhile: they wait for it as well.
    fn wait_until_taken(&self) -> CudaResult<()> {
        let control = self.channel.ring();
        let (begin, mut looked) = (Instant::now(), Instant::now());
        while !control.is_drained() {
            if begin.elapsed() < self.spin {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
            if looked.elapsed() >= LOOK {
                self.check_alive()?;
                looked = Instant::now();
            }
        }
        Ok(())
    }
}

/// After a CUDA call, unless everything is as it should be (`full`): a call that sent nothing asks now.
#[cold]
pub fn ask_anyway(function: &str) {
    let has_sent = HAS_SENT.try_with(|sent| sent.replace(false)).unwrap_or(true);
    if has_sent || NOT_OF_THE_DEVICE.iter().any(|name| function.starts_with(name)) {
        return;
    }
    // A process that is no client, or no longer, has nobody to ask; the call's own answer says so if it matters.
    if let Ok(client) = client() {
        let _ = client.call(&Ping {}, &[]);
        let _ = HAS_SENT.try_with(|sent| sent.set(false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_documentation() {
        let known = [
            ("awaited", Remoting::Awaited),
            ("unbatched", Remoting::Unbatched),
            ("batched", Remoting::Batched),
            ("no-local", Remoting::NoLocal),
            ("full", Remoting::Full),
            ("", Remoting::Full),
        ];
        for (name, remoting) in known {
            assert_eq!(Remoting::parse(name), Some(remoting), "{name}");
        }
        for name in ["none", "Full", "awaited ", "nolocal"] {
            assert_eq!(Remoting::parse(name), None, "{name}");
        }
    }
}
