//! What a test asks of a client's program, as lines of JSON.

use serde::{Deserialize, Serialize};

/// What the program is to do with the driver.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Allocate so many bytes of device memory: [`Value::Handle`].
    Allocate(usize),
    /// Free device memory.
    Free(u64),
    /// Copy numbers to a device address, and wait for it.
    Write(u64, Vec<f32>),
    /// Copy so many numbers from a device address, and wait for it: [`Value::Numbers`].
    Read(u64, usize),
    /// Allocate so many numbers, copy them there from pageable memory and back, and look whether they are the same.
    Overcommit(usize),
    /// Create a stream: [`Value::Handle`].
    CreateStream,
    /// Destroy a stream.
    DestroyStream(u64),
    /// Launch `c = a + b`, and do not wait for it.
    VectorAdd { a: u64, b: u64, c: u64, count: i32, stream: u64 },
    /// Launch `y = alpha * x + y`, and do not wait for it.
    Saxpy { alpha: f32, x: u64, y: u64, count: i32, stream: u64 },
    /// Wait for a stream.
    Synchronize(u64),
}

/// What a call gives besides its code.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Nothing.
    Nothing,
    /// An address or a handle.
    Handle(u64),
    /// Contents of memory.
    Numbers(Vec<f32>),
}

/// What came of a request; the error is the `CUresult` of the call that failed.
pub type Answer = Result<Value, i32>;
