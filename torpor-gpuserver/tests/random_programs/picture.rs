//! An array of a program, with a texture over it: what is copied into it comes back from it, wherever it was meanwhile.

use crate::worker_support::Client;
use torpor_proto::command::{
    ArrayCopy, ArrayCreate, ArrayDestroy, CopyEnd, END_IN_ARRAY, END_IN_MEMORY, TextureCreate, TextureDestroy,
};

/// Bytes of a row, and rows.
const WIDTH: u64 = 64;
const HEIGHT: u64 = 32;
/// All of it.
pub const BYTES: u64 = WIDTH * HEIGHT;
/// Its number.
const ARRAY: u32 = 1;

/// The array, and what must be in it.
pub struct Picture {
    texture: u64,
    pub contents: Vec<u8>,
}

impl Picture {
    pub fn new(client: &mut Client) -> Self {
        let array = ArrayCreate {
            array: ARRAY,
            format: 1,
            channels: 1,
            width: WIDTH,
            height: HEIGHT,
            ..ArrayCreate::default()
        };
        client.ask(array).unwrap();
        let mut over = TextureCreate::default();
        over.resource.array = ARRAY;
        let texture = client.ask(over).unwrap().handle;
        Self { texture, contents: vec![0; BYTES as usize] }
    }

    /// Copies all of it from an address, or to one.
    pub fn copy(client: &mut Client, address: u64, is_read: bool) {
        let there = CopyEnd { place: END_IN_ARRAY, array: ARRAY, ..CopyEnd::default() };
        let here =
            CopyEnd { place: END_IN_MEMORY, address, pitch: WIDTH, height: HEIGHT, ..CopyEnd::default() };
        let (destination, source) = if is_read { (here, there) } else { (there, here) };
        let (width_bytes, height) = (WIDTH, HEIGHT);
        let copy = ArrayCopy { destination, source, width_bytes, height, depth: 1, stream: 1, reserved: 0 };
        client.post(copy, &[]);
    }

    /// Whether it is as it must be.
    pub fn is_whole(&self, client: &mut Client) -> bool {
        client.settle().unwrap();
        Self::copy(client, client.host.address, true);
        client.settle().unwrap();
        client.read_host(0, BYTES as usize) == self.contents
    }

    pub fn end(self, client: &mut Client) {
        client.post(ArrayDestroy { array: ARRAY, reserved: 0 }, &[]);
        client.post(TextureDestroy { handle: self.texture }, &[]);
    }
}
