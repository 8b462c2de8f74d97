//! Processes of one function that let each other have memory.
#![allow(dead_code, reason = "each test program uses its own part of this module")]

use crate::served::{Attached, attach};
use crate::server_support::server::{Server, eventually};
use crate::worker_support::Client;
use std::os::unix::net::UnixStream;
use torpor_proto::command::{MemoryExport, MemoryFree, MemoryImport, ObjectMap, ObjectRelease, ObjectUnmap};
use torpor_proto::error::CudaError;

const MIB: u64 = 1 << 20;

/// Where imported memory is named and mapped.
pub const HOMES: u64 = 1 << 32;
pub const VIEWS: u64 = 2 << 32;

/// A process of a function.
pub struct Process {
    pub client: Client,
    lifeline: UnixStream,
}

impl Process {
    /// Becomes a client.
    pub fn start(server: &Server, function: &str) -> Self {
        let Attached { mut client, lifeline } = attach(server, function);
        client.load_kernels();
        Self { client, lifeline }
    }

    pub fn export(&mut self, home: u64) -> Result<[u64; 2], CudaError> {
        self.client.ask(MemoryExport { home }).map(|reply| reply.secret)
    }

    /// Imports memory under a number.
    pub fn import(
        &mut self,
        number: u64,
        bytes: u64,
        secret: [u64; 2],
        exporter: u64,
    ) -> Result<u64, CudaError> {
        let home = self.client.arena.address + HOMES + number * 64 * MIB;
        self.client.ask(MemoryImport { home, bytes, secret, exporter }).map(|()| home)
    }

    /// As [`Self::open`], of memory that another GPU's worker may have.
    pub fn open_of(&mut self, bytes: u64, secret: [u64; 2], exporter: &Self) -> Result<u64, CudaError> {
        let home = self.import(0, bytes, secret, exporter.client.id)?;
        self.map(home)
    }

    pub fn gpu(&self, server: &Server) -> u32 {
        server.clients().iter().find(|client| client.id == self.client.id).unwrap().gpu
    }

    pub fn map(&mut self, home: u64) -> Result<u64, CudaError> {
        let address = home - HOMES + VIEWS;
        self.client.ask(ObjectMap { home, address }).map(|()| address)
    }

    /// Imports memory and maps it.
    pub fn open(&mut self, number: u64, bytes: u64, secret: [u64; 2]) -> Result<u64, CudaError> {
        let home = self.import(number, bytes, secret, 0)?;
        self.map(home)
    }

    pub fn close(&mut self, number: u64) {
        let home = self.client.arena.address + HOMES + number * 64 * MIB;
        self.client.post(ObjectUnmap { address: home - HOMES + VIEWS }, &[]);
        self.client.post(ObjectRelease { home }, &[]);
        self.client.settle().unwrap();
    }

    pub fn free(&mut self, address: u64) {
        self.client.post(MemoryFree { address }, &[]);
        self.client.settle().unwrap();
    }

    /// What becomes of a posted command.
    pub fn posted(&mut self, post: impl FnOnce(&mut Client)) -> Result<(), CudaError> {
        post(&mut self.client);
        self.client.settle()
    }

    /// Its process is killed.
    pub fn kill(self, server: &Server) {
        let id = self.client.id;
        drop(self.lifeline);
        eventually("it is gone", || server.clients().iter().all(|client| client.id != id));
    }
}
