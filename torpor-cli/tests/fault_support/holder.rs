//! Clients with memory that must stay as it was written.

use super::client::Client;
use super::node::Node;
use super::request::Request;

/// What the server swaps at least.
pub const CHUNK: usize = 2 << 20;

/// A client with chunks in which nothing is zero or like another's.
pub struct Holder {
    pub client: Client,
    pub memory: u64,
    pub contents: Vec<f32>,
}

impl Holder {
    /// A process of a function, with nothing.
    pub fn start(node: &Node, function: &str) -> Self {
        Self { client: node.client_of(function), memory: 0, contents: Vec::new() }
    }

    /// A process of a function, with so many chunks.
    pub fn with(node: &Node, function: &str, chunks: usize, seed: f32) -> Self {
        let mut holder = Self::start(node, function);
        holder.take(chunks, seed).unwrap();
        holder
    }

    /// Allocates so many chunks and writes them.
    pub fn take(&mut self, chunks: usize, seed: f32) -> Result<(), i32> {
        self.memory = self.client.allocate(chunks * CHUNK)?;
        self.contents = (0..chunks).map(|index| seed + index as f32).collect();
        for (index, &number) in self.contents.iter().enumerate() {
            self.client.ask(&Request::Write(self.memory + (index * CHUNK) as u64, vec![number]))?;
        }
        Ok(())
    }

    /// Panics if something is not as it was written. The error is of the call that failed.
    pub fn check(&mut self) -> Result<(), i32> {
        for (index, &number) in self.contents.iter().enumerate() {
            let read = self.client.read(self.memory + (index * CHUNK) as u64, 1)?;
            assert_eq!(read, [number], "chunk {index} is not as it was written");
        }
        Ok(())
    }
}
