//! Running programs, and noting what their threads see.

use super::cuda::{Answer, Cuda, LEGACY, NOT_READY, PER_THREAD, Refusal};
use super::program::{EventName, MOST_OPERATIONS, Program, SLOTS, Step, StreamName};
use super::reference::{Call, Found, Operations, StreamKey, StreamKind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of a block: some are taken from segments that several share, some are whole ones.
const BLOCK_BYTES: [usize; SLOTS] = [512, 2 << 20];

/// Operations in different streams, threads and programs tell by words: see `work.ptx`.
pub struct Machine {
    cuda: Cuda,
    context: usize,
    work: usize,
    /// Device memory: words of 32 bits, then two tables of words of 64.
    done: u64,
    seen: u64,
    kept: u64,
    /// Page-locked memory.
    told: &'static [AtomicU32],
}

/// What all threads of a program have.
struct Shared {
    streams: Vec<(usize, StreamKey)>,
    events: Vec<(usize, u64)>,
    clock: AtomicU64,
    identities: AtomicU64,
    start: Barrier,
}

impl Shared {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn identity(&self) -> u64 {
        self.identities.fetch_add(1, Ordering::Relaxed)
    }

    fn key(&self, is_blocking: bool) -> StreamKey {
        let kind = if is_blocking { StreamKind::Blocking } else { StreamKind::Free };
        StreamKey { identity: self.identity(), kind }
    }
}

impl Machine {
    /// The first device.
    pub fn new() -> Answer<Self> {
        let cuda = Cuda::load();
        let context = cuda.context()?;
        cuda.use_context(context)?;
        let work = cuda.kernel(include_str!("work.ptx"), "work")?;
        let done = cuda.allocate_at_once(MOST_OPERATIONS * 4)?;
        let [seen, kept] =
            [cuda.allocate_at_once(MOST_OPERATIONS * 8)?, cuda.allocate_at_once(MOST_OPERATIONS * 8)?];
        let told = cuda.pinned(MOST_OPERATIONS * 4)?;
        // SAFETY: page-locked memory of so many words, never freed; kernels write it, so it is read as atomics.
        let told = unsafe { std::slice::from_raw_parts(told.cast::<AtomicU32>(), MOST_OPERATIONS) };
        Ok(Self { cuda, context, work, done, seen, kept, told })
    }

    /// Runs a program: what each thread saw, and what the device said.
    pub fn run(&self, program: &Program) -> Answer<(Vec<Call>, Found)> {
        for (address, bytes) in [(self.done, 4), (self.seen, 8), (self.kept, 8)] {
            self.cuda.set_bytes(address, 0, MOST_OPERATIONS * bytes)?;
        }
        self.told.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.cuda.synchronize_all()?;
        let mut shared = Shared {
            streams: Vec::new(),
            events: Vec::new(),
            clock: AtomicU64::new(1),
            identities: AtomicU64::new(1),
            start: Barrier::new(program.threads.len()),
        };
        for &is_blocking in &program.shared_streams {
            shared.streams.push((self.cuda.create_stream(is_blocking)?, shared.key(is_blocking)));
        }
        for _ in 0..program.shared_events {
            shared.events.push((self.cuda.create_event()?, shared.identity()));
        }
        let of_all = &shared;
        let calls: Vec<Answer<Vec<Call>>> = std::thread::scope(|scope| {
            let threads: Vec<_> = program
                .threads
                .iter()
                .enumerate()
                .map(|(number, steps)| scope.spawn(move || Runner::new(self, of_all, number).run(steps)))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread that does not panic")).collect()
        });
        let calls = calls.into_iter().collect::<Answer<Vec<_>>>()?.concat();
        self.cuda.synchronize_all()?;
        let found = self.found()?;
        shared.streams.iter().try_for_each(|&(stream, _)| self.cuda.destroy_stream(stream))?;
        shared.events.iter().try_for_each(|&(event, _)| self.cuda.destroy_event(event))?;
        Ok((calls, found))
    }

    fn found(&self) -> Answer<Found> {
        let read = |address| {
            let mut words = vec![0; MOST_OPERATIONS];
            self.cuda.download(&mut words, address, 0).map(|()| words)
        };
        Ok(Found { seen: read(self.seen)?, kept: read(self.kept)?, done: self.read_done(0)? })
    }

    /// Copies back which operations are done.
    fn read_done(&self, stream: usize) -> Answer<Operations> {
        let mut words = [0; MOST_OPERATIONS / 2];
        self.cuda.download(&mut words, self.done, stream)?;
        let halves = words.iter().flat_map(|&pair| [pair as u32, (pair >> 32) as u32]);
        Ok(bits(halves))
    }

    fn told(&self) -> Operations {
        bits(self.told.iter().map(|word| word.load(Ordering::Acquire)))
    }
}

fn bits(words: impl Iterator<Item = u32>) -> Operations {
    words.enumerate().fold(0, |all, (operation, word)| all | u64::from(word != 0) << operation)
}

/// A thread of a program.
struct Runner<'a> {
    machine: &'a Machine,
    shared: &'a Shared,
    number: usize,
    per_thread: StreamKey,
    streams: [Option<(usize, StreamKey)>; SLOTS],
    events: [Option<(usize, u64)>; SLOTS],
    blocks: [u64; SLOTS],
}

impl<'a> Runner<'a> {
    fn new(machine: &'a Machine, shared: &'a Shared, number: usize) -> Self {
        let per_thread = shared.key(true);
        let (streams, events, blocks) = ([None; SLOTS], [None; SLOTS], [0; SLOTS]);
        Self { machine, shared, number, per_thread, streams, events, blocks }
    }

    fn run(mut self, steps: &[Step]) -> Answer<Vec<Call>> {
        let ready = self.machine.cuda.use_context(self.machine.context);
        self.shared.start.wait();
        ready?;
        steps.iter().map(|&step| self.call(step)).collect()
    }

    fn call(&mut self, step: Step) -> Answer<Call> {
        let (stream, event) =
            (step.stream().map(|name| self.stream(name)), step.event().map(|name| self.event(name)));
        let begun = self.shared.now();
        let answer = self.answer(step, stream.map_or(0, |known| known.0), event.map_or(0, |known| known.0));
        let ended = self.shared.now();
        let told = self.machine.told();
        let (is_done, copied) = match answer {
            Ok(copied) => (true, copied),
            Err(Refusal(_, NOT_READY)) => (false, 0),
            Err(refusal) => return Err(refusal),
        };
        let (stream, event) = (stream.map(|known| known.1), event.map(|known| known.1));
        Ok(Call { thread: self.number, step, stream, event, begun, ended, is_done, told, copied })
    }

    /// Makes the call.
    fn answer(&mut self, step: Step, stream: usize, event: usize) -> Answer<Operations> {
        let cuda = &self.machine.cuda;
        match step {
            Step::CreateStream { slot, is_blocking } => {
                self.streams[slot] = Some((cuda.create_stream(is_blocking)?, self.shared.key(is_blocking)));
            }
            Step::DestroyStream { slot } => {
                self.streams[slot].take().map_or(Ok(()), |(stream, _)| cuda.destroy_stream(stream))?;
            }
            Step::CreateEvent { slot } => {
                self.events[slot] = Some((cuda.create_event()?, self.shared.identity()));
            }
            Step::DestroyEvent { slot } => {
                self.events[slot].take().map_or(Ok(()), |(event, _)| cuda.destroy_event(event))?;
            }
            Step::Launch { operation, turns, .. } => self.launch(operation, turns, 0, stream)?,
            Step::Use { slot, operation, turns, .. } => {
                self.launch(operation, turns, self.blocks[slot], stream)?;
            }
            Step::Upload { operation, .. } => {
                let place = self.machine.done + 4 * operation as u64;
                cuda.upload(place, &[1_u32], stream)?;
            }
            Step::CopyBack { .. } => return self.machine.read_done(stream),
            Step::Record { .. } => cuda.record(event, stream)?,
            Step::Wait { .. } => cuda.wait(stream, event)?,
            Step::SynchronizeStream { .. } => cuda.synchronize_stream(stream)?,
            Step::QueryStream { .. } => cuda.query_stream(stream)?,
            Step::SynchronizeEvent { .. } => cuda.synchronize_event(event)?,
            Step::QueryEvent { .. } => cuda.query_event(event)?,
            Step::SynchronizeAll => cuda.synchronize_all()?,
            Step::Pause { microseconds: 0 } => std::thread::yield_now(),
            Step::Pause { microseconds } => std::thread::sleep(Duration::from_micros(microseconds)),
            Step::Allocate { slot, in_order, .. } => {
                let bytes = BLOCK_BYTES[slot];
                self.blocks[slot] =
                    if in_order { cuda.allocate_for(bytes, stream)? } else { cuda.allocate_at_once(bytes)? };
            }
            Step::Free { slot, in_order: true, .. } => cuda.free_behind(self.blocks[slot], stream)?,
            Step::Free { slot, in_order: false, .. } => cuda.free_at_once(self.blocks[slot])?,
        }
        Ok(0)
    }

    fn launch(&self, operation: usize, turns: u64, block: u64, stream: usize) -> Answer<()> {
        let Machine { cuda, work, done, seen, kept, told, .. } = self.machine;
        let told = told.as_ptr().addr() as u64;
        cuda.launch(*work, [operation as u64, turns, *done, told, *seen, *kept, block], stream)
    }

    fn stream(&self, name: StreamName) -> (usize, StreamKey) {
        match name {
            StreamName::Legacy => (LEGACY, StreamKey { identity: 0, kind: StreamKind::Legacy }),
            StreamName::PerThread => (PER_THREAD, self.per_thread),
            StreamName::Shared(number) => self.shared.streams[number],
            StreamName::Own(slot) => self.streams[slot].expect("a stream that was made"),
        }
    }

    fn event(&self, name: EventName) -> (usize, u64) {
        match name {
            EventName::Shared(number) => self.shared.events[number],
            EventName::Own(slot) => self.events[slot].expect("an event that was made"),
        }
    }
}
