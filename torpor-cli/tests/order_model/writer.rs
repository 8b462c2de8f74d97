//! How a thread's steps are chosen: single calls, and habits of programs that make races likely.

use super::program::{EventName, MOST_OPERATIONS, Program, SLOTS, Step, StreamName};
use super::random::Random;

/// Turns of kernels' loops: most end before the next call, some after many of them.
const TURNS: [u64; 5] = [1, 1, 100, 500, 3000];

/// Writes a thread's steps, of which each is allowed after those before it.
pub struct Writer<'a> {
    random: &'a mut Random,
    program: &'a mut Program,
    streams: [bool; SLOTS],
    events: [bool; SLOTS],
    /// Each block's stream, and whether it is a pool's.
    blocks: [Option<(StreamName, bool)>; SLOTS],
    steps: Vec<Step>,
}

impl<'a> Writer<'a> {
    /// For the next thread of a program.
    pub fn new(random: &'a mut Random, program: &'a mut Program) -> Self {
        Self {
            random,
            program,
            streams: [false; SLOTS],
            events: [false; SLOTS],
            blocks: [None; SLOTS],
            steps: Vec::new(),
        }
    }

    /// The steps, of which the last give everything back.
    pub fn write(mut self) -> Vec<Step> {
        for _ in 0..8 + self.random.below(12) {
            self.step();
        }
        for slot in 0..SLOTS {
            self.free(slot);
        }
        for slot in 0..SLOTS {
            self.destroy_stream(slot);
            if self.events[slot] {
                self.steps.push(Step::DestroyEvent { slot });
            }
        }
        self.steps
    }

    fn step(&mut self) {
        let slot = self.random.below(SLOTS);
        if self.random.one_in(4) {
            let microseconds = self.random.choose(&[0, 0, 20, 100, 300]);
            self.steps.push(Step::Pause { microseconds });
        }
        match self.random.below(24) {
            0 | 1 if self.streams[slot] => {
                self.destroy_stream(slot);
                if self.random.one_in(2) {
                    self.create_stream(slot);
                }
            }
            0 | 1 => self.create_stream(slot),
            2 if self.events[slot] => {
                self.events[slot] = false;
                self.steps.push(Step::DestroyEvent { slot });
            }
            2 => {
                self.events[slot] = true;
                self.steps.push(Step::CreateEvent { slot });
            }
            3..=5 => self.launch(),
            6 | 7 => self.upload(),
            8 | 9 => {
                let (event, stream) = (self.event(), self.stream());
                self.steps.push(Step::Record { event, stream });
            }
            10 => {
                let (event, stream) = (self.event(), self.stream());
                self.steps.push(Step::Wait { stream, event });
            }
            11..=13 => self.synchronize(),
            14 => {
                let event = self.event();
                self.steps.push(Step::SynchronizeEvent { event });
            }
            15 => {
                let (event, stream) = (self.event(), self.stream());
                let query_event = self.random.one_in(2);
                self.steps.push(if query_event {
                    Step::QueryEvent { event }
                } else {
                    Step::QueryStream { stream }
                });
            }
            16..=18 => match self.blocks[slot] {
                None => {
                    let (stream, in_order) = (self.stream(), !self.random.one_in(4));
                    self.blocks[slot] = Some((stream, in_order));
                    self.steps.push(Step::Allocate { slot, stream, in_order });
                    self.use_block(slot);
                }
                Some(_) if self.random.one_in(2) => self.use_block(slot),
                Some(_) => self.free(slot),
            },
            19 => self.load(slot),
            20 => self.request(slot),
            21 | 22 => self.batch(),
            _ => {
                let stream = self.stream();
                let all = self.random.one_in(3);
                self.steps.push(if all { Step::SynchronizeAll } else { Step::CopyBack { stream } });
            }
        }
    }

    /// A stream that the thread may name now.
    fn stream(&mut self) -> StreamName {
        let own = (0..SLOTS).filter(|&slot| self.streams[slot]).map(StreamName::Own);
        let shared = (0..self.program.shared_streams.len()).map(StreamName::Shared);
        // Its own are named twice as often as each other one.
        let mut names: Vec<_> = own.clone().chain(own).chain(shared).collect();
        names.extend([StreamName::Legacy, StreamName::PerThread]);
        self.random.choose(&names)
    }

    fn event(&mut self) -> EventName {
        let own = (0..SLOTS).filter(|&slot| self.events[slot]).map(EventName::Own);
        let names: Vec<_> = own.chain((0..self.program.shared_events).map(EventName::Shared)).collect();
        self.random.choose(&names)
    }

    fn operation(&mut self) -> Option<usize> {
        let operation = self.program.operations;
        if operation == MOST_OPERATIONS {
            return None;
        }
        self.program.operations += 1;
        Some(operation)
    }

    fn create_stream(&mut self, slot: usize) {
        self.streams[slot] = true;
        let is_blocking = self.random.one_in(3);
        self.steps.push(Step::CreateStream { slot, is_blocking });
        // To be known as idle is what makes a stream's next uploads cheap.
        if self.random.one_in(2) {
            self.steps.push(Step::SynchronizeStream { stream: StreamName::Own(slot) });
        }
    }

    /// Frees the stream's blocks before.
    fn destroy_stream(&mut self, slot: usize) {
        if !std::mem::replace(&mut self.streams[slot], false) {
            return;
        }
        for block in 0..SLOTS {
            if self.blocks[block].is_some_and(|(stream, _)| stream == StreamName::Own(slot)) {
                self.free(block);
            }
        }
        self.steps.push(Step::DestroyStream { slot });
    }

    fn launch(&mut self) {
        let (stream, turns) = (self.stream(), self.random.choose(&TURNS));
        if let Some(operation) = self.operation() {
            self.steps.push(Step::Launch { stream, operation, turns });
        }
    }

    /// As models move to the GPU: synchronised mostly.
    fn upload(&mut self) {
        let (stream, synchronized) = (self.stream(), !self.random.one_in(3));
        if let Some(operation) = self.operation() {
            self.steps.push(Step::Upload { stream, operation });
            if synchronized {
                self.steps.push(Step::SynchronizeStream { stream });
            }
        }
    }

    /// As a part of a model is loaded, in a stream that is there for that alone.
    fn load(&mut self, slot: usize) {
        self.destroy_stream(slot);
        self.streams[slot] = true;
        let stream = StreamName::Own(slot);
        self.steps.push(Step::CreateStream { slot, is_blocking: false });
        for is_kernel in [false, true] {
            self.steps.push(Step::SynchronizeStream { stream });
            if let Some(operation) = self.operation() {
                self.steps.push(match is_kernel {
                    true => Step::Launch { stream, operation, turns: 1 },
                    false => Step::Upload { stream, operation },
                });
            }
        }
        self.steps.push(Step::SynchronizeStream { stream });
        if self.random.one_in(2) {
            self.destroy_stream(slot);
        }
    }

    /// As requests that have a stream each, which goes with work left, and are waited for by an event.
    fn request(&mut self, slot: usize) {
        let (stream, event) = (StreamName::Own(slot), self.event());
        let turns = self.random.choose(&TURNS);
        self.destroy_stream(slot);
        self.create_stream(slot);
        if let Some(operation) = self.operation() {
            self.steps.push(Step::Launch { stream, operation, turns });
        }
        self.steps.push(Step::Record { event, stream });
        self.destroy_stream(slot);
        self.create_stream(slot);
        self.steps.push(Step::SynchronizeStream { stream });
        self.steps.push(match self.random.below(3) {
            0 => Step::SynchronizeEvent { event },
            1 => Step::QueryEvent { event },
            _ => Step::Wait { stream, event },
        });
    }

    /// As a batch of training: the event of all threads is recorded behind each, and some wait for it or for the stream.
    fn batch(&mut self) {
        let (stream, event, turns) = (self.stream(), EventName::Shared(0), self.random.choose(&TURNS[2..]));
        if let Some(operation) = self.operation() {
            self.steps.push(Step::Launch { stream, operation, turns });
        }
        self.steps.push(Step::Record { event, stream });
        if self.random.one_in(2) {
            self.steps.push(Step::SynchronizeEvent { event });
        } else {
            self.steps.push(Step::Pause { microseconds: self.random.choose(&[20, 100, 300]) });
            self.steps.push(Step::SynchronizeStream { stream });
        }
    }

    fn synchronize(&mut self) {
        let stream = self.stream();
        self.steps.push(Step::SynchronizeStream { stream });
    }

    fn use_block(&mut self, slot: usize) {
        let turns = self.random.choose(&TURNS);
        if let Some((stream, _)) = self.blocks[slot]
            && let Some(operation) = self.operation()
        {
            self.steps.push(Step::Use { slot, stream, operation, turns });
        }
    }

    fn free(&mut self, slot: usize) {
        if let Some((stream, in_order)) = self.blocks[slot].take() {
            self.steps.push(Step::Free { slot, stream, in_order });
        }
    }
}
