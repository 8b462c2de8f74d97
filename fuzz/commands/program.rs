//! A program of commands, as the fuzzer makes it up: each is well formed; what it names may be anything.

use crate::speaker::Speaker;
use crate::worker::Worker;
use arbitrary::Arbitrary;

/// Clients of a program.
const CLIENTS: usize = 2;
/// Steps of a program, at most.
const STEPS: usize = 200;
/// Memory that every client has from the start, which its kernels work on and no step frees.
pub const GROUND_BYTES: u64 = 2 << 20;
pub const PTX: &[u8] = b"
.version 8.0
.target sm_80
.address_size 64
.visible .global .align 4 .u32 step = 3;
.visible .entry add_step(.param .u64 data)
{
    .reg .b32 %r<3>;
    .reg .b64 %d<3>;
    ld.param.u64 %d1, [data];
    cvta.to.global.u64 %d2, %d1;
    ld.global.u32 %r1, [step];
    ld.global.u32 %r2, [%d2];
    add.u32 %r2, %r2, %r1;
    st.global.u32 [%d2], %r2;
    ret;
}
\0";

/// Steps of several clients, in the order in which they are posted.
#[derive(Arbitrary, Debug)]
pub struct Program {
    steps: Vec<(u8, Step)>,
}

/// An address that a client may name.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Address {
    /// In the memory that it has from the start.
    Ground(u32),
    /// In a place where steps allocate: which, and how far behind its beginning.
    Segment(u8, u16),
    /// Near the end of such a place.
    EndOfSegment(u8, u8),
    /// In its host range.
    Host(u32),
    /// In the next client's arena.
    Neighbour(u32),
    /// The bystander's.
    Bystander(u16),
    /// Anywhere.
    Wild(u64),
}

/// How a part of the GPU comes of another one: the groups taken are bits.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Level {
    pub least: u8,
    pub flags: u8,
    pub groups: u8,
    pub taken: u8,
}

/// A number of something that the client has, probably: a byte keeps collisions likely.
pub type Number = u8;

#[derive(Arbitrary, Debug)]
pub enum Step {
    Ping,
    MemoryInfo,
    StagingMark,
    TextTake,
    LimitRaise { limit: u8, value: u64 },
    Home { device: u32 },
    Allocate { place: u8, mebibytes: u8 },
    AllocateAt { address: Address, bytes: u64 },
    Free { address: Address },
    ObjectCreate { place: u8, mebibytes: u8 },
    ObjectRelease { place: u8 },
    ObjectMap { place: u8, address: Address },
    ObjectUnmap { address: Address },
    HostLock { page: u16, pages: u16 },
    HostUnlock { page: u16 },
    Move(Moved),
    CopyStrided(Box<Strided>),
    StreamCreate { stream: Number, flags: u32, priority: i32, context: u8, part: Vec<Level> },
    StreamDestroy { stream: Number },
    StreamSynchronize { stream: Number },
    StreamQuery { stream: Number },
    ContextSynchronize { context: u32 },
    PartLook { part: Vec<Level> },
    PartSplit { part: Vec<Level>, least: u8, flags: u8, groups: u16 },
    EventCreate { event: Number, flags: u32 },
    EventDestroy { event: Number },
    EventQuery { event: Number },
    EventSynchronize { event: Number },
    EventElapsed { start: Number, end: Number },
    ImageLoad { image: Number },
    ImageUnload { image: Number },
    ImageGlobal { image: Number, known: bool },
    ImageKernels { image: Number, first: u32 },
    ImageErrors { image: Number, first: u32 },
    Upload { bytes: Vec<u8>, offset: u64, total_bytes: u64 },
    KernelResolve { image: Number, kernel: Number, known: bool },
    KernelSetAttribute { kernel: Number, attribute: u8, value: i32 },
    OccupancyBlocks { kernel: Number, block_threads: i32, shared_bytes: u64, flags: u32 },
    OccupancyShared { kernel: Number, blocks: i32, block_threads: i32 },
    OccupancyClusters { kernel: Number, size: bool, attributes: Vec<(u8, u64)> },
    TensorMap { im2col: bool, tensor: Box<Tensor> },
    GraphAppend { graph: Number, records: Vec<Node> },
    GraphInstantiate { graph: Number, flags: u8 },
    GraphUpdate { graph: Number },
    GraphLaunch { graph: Number, stream: Number },
    GraphDestroy { graph: Number },
    ArrayCreate(Box<Shape>),
    ArrayDestroy { array: Number },
    ArrayCopy(Box<Boxes>),
    TextureCreate(Box<Seen>),
    TextureDestroy { made: u8, wild: Option<u64> },
    SurfaceCreate { array: Number, level: u8 },
    SurfaceDestroy { made: u8, wild: Option<u64> },
}

/// What may also be a graph's record.
#[derive(Arbitrary, Debug)]
pub enum Moved {
    Copy { destination: Address, source: Address, bytes: u32, stream: Number },
    Fill { address: Address, pitch: u64, width: u32, height: u8, element: u8, stream: Number },
    Word { address: Address, value: Result<u32, Address>, bytes: u8, stream: Number },
    Record { event: Number, stream: Number, flags: u8 },
    Wait { stream: Number, event: Number, flags: u8 },
    Launch { kernel: Number, stream: Number, word: u16, attributes: Vec<(u8, u64)> },
}

/// A record that stands in graphs alone.
#[derive(Arbitrary, Debug)]
pub enum Node {
    Moved(Moved),
    Dependencies { adds: bool, edges: Vec<(u8, u64)> },
    Empty,
    Condition { condition: Number, value: u8, flags: u8 },
    Conditional { condition: Number, kind: u8, bodies: u8 },
    Body { index: u8 },
    BodyEnd,
}

#[derive(Arbitrary, Debug)]
pub struct Strided {
    pub destination: Address,
    pub source: Address,
    pub pitches: [u32; 2],
    pub heights: [u16; 2],
    pub width_bytes: u32,
    pub height: u16,
    pub depth: u8,
    pub stream: Number,
}

/// An array's shape: small numbers, and large ones now and then.
#[derive(Arbitrary, Debug)]
pub struct Shape {
    pub array: Number,
    pub format: u8,
    pub channels: u8,
    pub flags: u8,
    pub extent: [u8; 3],
    pub large: Option<[u64; 3]>,
    pub levels: u8,
}

/// One end of a copy with arrays.
#[derive(Arbitrary, Debug)]
pub struct End {
    pub place: u8,
    pub array: Number,
    pub level: u8,
    pub at: [u8; 3],
    pub address: Address,
    pub pitch: u16,
    pub height: u8,
}

#[derive(Arbitrary, Debug)]
pub struct Boxes {
    pub destination: End,
    pub source: End,
    pub width_bytes: u16,
    pub height: u8,
    pub depth: u8,
    pub wild: Option<u64>,
    pub stream: Number,
}

/// A texture object.
#[derive(Arbitrary, Debug)]
pub struct Seen {
    pub kind: u8,
    pub array: Number,
    pub level: u8,
    pub format: u8,
    pub channels: u8,
    pub address: Address,
    pub extent: [u32; 2],
    pub pitch: u64,
    pub modes: [u8; 6],
    pub view: Option<[u16; 7]>,
}

/// A tensor map's shape: small numbers, of which many are refused.
#[derive(Arbitrary, Debug)]
pub struct Tensor {
    pub address: Address,
    pub dimensions: [u16; 5],
    pub strides: [u32; 5],
    pub boxes: [u8; 5],
    pub kinds: [u8; 6],
}

impl Program {
    /// Runs it with clients of its own. Each is told no more than that it failed, or dropped alone.
    pub fn run(&self, worker: &mut Worker) {
        let bystander = worker.bystanders_memory();
        let mut clients: Vec<_> = (0..CLIENTS).map(|place| worker.attach(place as u64)).collect();
        for client in &mut clients {
            client.allocate(0, GROUND_BYTES).expect("memory from the start");
            client.load_image(0, PTX).expect("an image from the start");
            client.resolve(0, 0, "add_step").expect("a kernel from the start");
        }
        let mut handles = Vec::new();
        for (client, step) in self.steps.iter().take(STEPS) {
            let which = usize::from(*client) % CLIENTS;
            let neighbour = clients[(which + 1) % CLIENTS].arena.address;
            Speaker::new(&mut clients[which], neighbour, bystander, &mut handles).speak(step);
        }
        for client in &mut clients {
            if client.channel.sticky_error().is_none() {
                let _ = client.settle();
            }
        }
        worker.detach(clients.iter().map(|client| client.id).collect());
    }
}
