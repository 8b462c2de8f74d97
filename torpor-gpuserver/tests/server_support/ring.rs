//! A client that asks its worker for something.

use super::client::{self, connect};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use torpor_proto::channel::MappedChannel;
use torpor_proto::command::{Command, ContextSynchronize, Copy, Fill, Kind, MemoryAllocate};
use torpor_proto::control::client::Welcome;
use torpor_proto::directory::FunctionDirectory;
use torpor_proto::error::CudaError;
use torpor_proto::ring::{NO_SLOT, Producer};

/// A client with a ring of which it uses one completion slot.
pub struct RingClient {
    pub channel: MappedChannel,
    pub lifeline: UnixStream,
    welcome: Welcome,
    host_file: std::os::fd::OwnedFd,
    producer: Producer,
}

impl RingClient {
    /// Becomes a client of a function.
    pub fn connect(function: &FunctionDirectory) -> Self {
        let client::Client { welcome, channel, lifeline, host_file, .. } = connect(function);
        Self { channel, lifeline, welcome, host_file, producer: Producer::new() }
    }

    /// Writes a record into the ring, whatever it is.
    pub fn push(&mut self, opcode: u16, slot: u16, body: &[u64]) {
        assert!(
            self.producer.push(self.channel.ring(), &self.channel.words, opcode, slot, body, &[]),
            "the ring is full"
        );
    }

    /// Asks, and waits for the answer.
    pub fn ask<C: Command>(&mut self, command: C) -> Result<(), CudaError> {
        assert_eq!(C::KIND, Kind::Awaited);
        self.channel.slots[0].prepare();
        self.push(C::OPCODE, 0, command.words());
        let asked = Instant::now();
        while !self.channel.slots[0].is_done() {
            assert!(asked.elapsed() < super::server::PATIENCE, "no answer");
            self.channel.slots[0].sleep(Duration::from_millis(100));
        }
        self.channel.slots[0].take(&mut Vec::new()).0
    }

    /// Allocates the first bytes of its arena, a multiple of 2 MiB.
    pub fn allocate(&mut self, bytes: u64) {
        self.ask(MemoryAllocate { address: self.welcome.arena_address, bytes }).unwrap();
    }

    /// Fills the first bytes of its arena on the GPU.
    pub fn fill(&mut self, value: u8, bytes: u64) {
        let address = self.welcome.arena_address;
        let fill = Fill {
            address,
            width: bytes,
            height: 1,
            value: value.into(),
            element_bytes: 1,
            ..Fill::default()
        };
        self.push(Fill::OPCODE, NO_SLOT, fill.words());
    }

    /// Reads the first bytes of its arena, at most as many as there is staging.
    pub fn read(&mut self, bytes: u64) -> Vec<u8> {
        let (destination, source) = (self.welcome.host_address, self.welcome.arena_address);
        let copy = Copy { destination, source, bytes, ..Copy::default() };
        self.push(Copy::OPCODE, NO_SLOT, copy.words());
        self.ask(ContextSynchronize::ALL).unwrap();
        assert_eq!(self.channel.take_deferred_error(), None);
        let mut contents = vec![0; usize::try_from(bytes).unwrap()];
        assert_eq!(rustix::io::pread(&self.host_file, &mut contents, 0).unwrap(), contents.len());
        contents
    }
}
