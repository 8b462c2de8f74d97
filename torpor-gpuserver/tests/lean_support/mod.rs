//! A model that goes through its weights for each answer, and another function that has most of the GPU.
#![allow(dead_code, reason = "each test program uses its own part of this module")]

use crate::served::{Attached, attach, serve_by};
use crate::server_support::eventually::PATIENCE;
use crate::server_support::server::Server;
use crate::worker_support::Client;
use crate::worker_support::kernels::launch;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use torpor_proto::command::{Fill, MemoryFree};

pub const MIB: u64 = 1 << 20;
/// Segments of 2 MiB of a model that is only read.
pub const WEIGHTS: u64 = 20;
/// What another client has. With the model that is more than the GPU has, by half of the model.
pub const OTHERS: u64 = 30 * MIB;

/// `gather(u32 *out, u32 *in)` adds the first word of `in` to that of `out`, and takes its time; `mark(u32 *out, u32 *in)` does and adds 1 to `in`.
const CODE: &str = "
.version 8.0
.target sm_80
.address_size 64

.visible .entry gather(.param .u64 out, .param .u64 in)
{
    .reg .pred %p;
    .reg .b32 %r<5>;
    .reg .b64 %d<3>;
    ld.param.u64 %d1, [out];
    ld.param.u64 %d2, [in];
    ld.global.u32 %r1, [%d1];
    ld.global.u32 %r2, [%d2];
    add.u32 %r3, %r1, %r2;
    st.global.u32 [%d1], %r3;
    mov.u32 %r4, 0;
AGAIN:
    add.u32 %r4, %r4, 1;
    setp.lt.u32 %p, %r4, 20000;
    @%p bra AGAIN;
    ret;
}

.visible .entry mark(.param .u64 out, .param .u64 in)
{
    .reg .b32 %r<4>;
    .reg .b64 %d<3>;
    ld.param.u64 %d1, [out];
    ld.param.u64 %d2, [in];
    ld.global.u32 %r1, [%d1];
    ld.global.u32 %r2, [%d2];
    add.u32 %r3, %r1, %r2;
    st.global.u32 [%d1], %r3;
    add.u32 %r2, %r2, 1;
    st.global.u32 [%d2], %r2;
    ret;
}
\0";
pub const GATHER: u32 = 21;
pub const MARK: u32 = 22;

/// What functions have of a GPU.
const LIMIT: u64 = 48 * MIB;

/// A node.
pub struct Node {
    pub server: Server,
    findings: tempfile::NamedTempFile,
}

impl Node {
    pub fn start(flags: &str) -> Self {
        Self::start_with(1, flags, "")
    }

    /// With so many GPUs, and these faults of theirs.
    pub fn start_with(gpus: u32, flags: &str, faults: &str) -> Self {
        let findings = tempfile::NamedTempFile::new().unwrap();
        let usual = "--pinned-limit 8MiB --staging 4MiB --gpu-limit 48MiB --host-pool 192MiB --host-slab 16MiB --spare-worker false --log debug";
        let server = serve_by(&format!("{usual} {flags}"), |command| {
            command
                .env("TORPOR_SIMGPU_DEVICES", gpus.to_string())
                .env("TORPOR_SIMGPU_CHECKS", "unordered,busy,streams")
                .env("TORPOR_SIMGPU_LOG", findings.path());
            if !faults.is_empty() {
                command.env("TORPOR_SIMGPU_FAULTS", faults);
            }
        });
        // What measures takes memory of the GPU meanwhile.
        server.wait_until_measured();
        Self { server, findings }
    }

    pub fn swaps(&self, name: &str) -> u64 {
        self.server.listed(name).swaps
    }

    /// How often somebody became active with a part of its memory.
    pub fn lean_turns(&self) -> usize {
        self.server.times_said("DEBUG lean client")
    }

    /// What the GPU has left.
    pub fn free_bytes(&self) -> u64 {
        self.server.gpus()[0].free_memory_bytes
    }

    /// Functions have no more than they may, where the GPU has so much left without what they have.
    pub fn check_limit(&self, free_bytes: u64) {
        let used_bytes = free_bytes - self.free_bytes();
        assert!(used_bytes <= LIMIT, "{used_bytes} bytes are used");
    }

    /// Nothing went wrong that nobody would see in the answers.
    pub fn check(&self) {
        let findings = std::fs::read_to_string(self.findings.path()).unwrap();
        let found: Vec<_> = findings.lines().filter(|line| line.contains(": check ")).collect();
        assert!(found.is_empty(), "the simulated GPU found something: {found:#?}");
        assert!(!self.server.said("mistake of its worker"));
        assert!(!self.server.said("the driver has no"));
    }
}

/// A function that goes through all of its weights for each answer.
pub struct Model {
    pub client: Client,
    pub weights: Vec<u64>,
    pub out: u64,
    values: Vec<u32>,
    expected: u32,
    _lifeline: UnixStream,
}

impl Model {
    /// It has had two requests, and left the GPU after each.
    pub fn start(server: &Server, name: &str) -> Self {
        let Attached { mut client, lifeline } = attach(server, name);
        client.load_kernels();
        client.load_image(20, CODE.as_bytes()).unwrap();
        client.resolve(20, GATHER, "gather").unwrap();
        client.resolve(20, MARK, "mark").unwrap();
        let out = client.allocate(0, 2 * MIB).unwrap();
        let weights: Vec<_> =
            (1..=WEIGHTS).map(|at| client.allocate(at * 2 * MIB, 2 * MIB).unwrap()).collect();
        for (&address, value) in weights.iter().zip(1..) {
            client.upload(address, &u32::to_le_bytes(value));
        }
        let values = (1..=WEIGHTS as u32).collect();
        let mut model = Self { client, weights, out, values, expected: 0, _lifeline: lifeline };
        for _ in 0..2 {
            model.infer();
            server.unload(name);
        }
        model
    }

    pub fn post(&mut self, kernel: u32, weight: usize) {
        let parameters = [self.out.to_le_bytes(), self.weights[weight].to_le_bytes()].concat();
        self.client.post(launch(kernel, 0, 1, 1, parameters.len()), &parameters);
    }

    pub fn infer(&mut self) {
        (0..self.weights.len()).for_each(|weight| self.post(GATHER, weight));
        self.expect_more(self.sum());
    }

    pub fn value(&self, weight: usize) -> u32 {
        self.values[weight]
    }

    pub fn sum(&self) -> u32 {
        self.values.iter().fold(0, |sum, value| sum.wrapping_add(*value))
    }

    pub fn expect_more(&mut self, more: u32) {
        self.expected = self.expected.wrapping_add(more);
        assert_eq!(self.client.words(self.out, 1), [self.expected]);
    }

    /// A weight was added, and is more than it was by so much.
    pub fn expect_more_of(&mut self, weight: usize, by: u32) {
        self.expect_more(self.values[weight]);
        self.changed(weight, by);
    }

    /// Something has added so much to a weight.
    pub fn changed(&mut self, weight: usize, by: u32) {
        self.values[weight] = self.values[weight].wrapping_add(by);
        assert_eq!(self.client.words(self.weights[weight], 1), [self.values[weight]]);
    }

    pub fn write(&mut self, weight: usize, value: u32) {
        self.values[weight] = value;
        self.client.upload(self.weights[weight], &value.to_le_bytes());
    }

    pub fn fill(&mut self, weight: usize, byte: u8) {
        self.values[weight] = u32::from_le_bytes([byte; 4]);
        let (address, value) = (self.weights[weight], byte.into());
        let fill = Fill { address, width: MIB, height: 1, value, element_bytes: 1, ..Fill::default() };
        self.client.post(fill, &[]);
    }

    pub fn free_last(&mut self) {
        self.values.pop();
        if let Some(address) = self.weights.pop() {
            self.client.post(MemoryFree { address }, &[]);
        }
    }
}

/// Another function.
pub struct Other {
    pub client: Client,
    pub data: u64,
    pub expected: u32,
    _lifeline: UnixStream,
}

impl Other {
    pub fn start(server: &Server, name: &str) -> Self {
        Self::start_with(server, name, OTHERS)
    }

    pub fn start_with(server: &Server, name: &str, bytes: u64) -> Self {
        let Attached { mut client, lifeline } = attach(server, name);
        client.load_kernels();
        let data = client.allocate(0, bytes).unwrap();
        Self { client, data, expected: 0, _lifeline: lifeline }
    }

    pub fn infer(&mut self) {
        self.client.add_step(self.data, 1, 0);
        self.expected += 3;
        assert_eq!(self.client.words(self.data, 1), [self.expected]);
    }

    pub fn be_busy(&mut self, is_over: &AtomicBool) {
        while !is_over.load(Ordering::Relaxed) {
            self.infer();
            std::thread::sleep(THOUGHT);
        }
    }
}

/// What a program does between two requests.
const THOUGHT: Duration = Duration::from_micros(400);

/// Does something, while the other one is asked all the time.
fn beside(other: &mut Other, work: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        scope.spawn(|| other.be_busy(&is_over));
        work();
    });
}

/// Does something so many times, while the other one is asked all the time.
pub fn rounds(count: u32, other: &mut Other, mut work: impl FnMut()) {
    beside(other, || {
        for _ in 0..count {
            work();
            std::thread::sleep(THOUGHT);
        }
    });
}

/// As [`rounds`], until it has led to what it should.
///
/// On a machine that others load, too, programs may seem to think for long, and come whole a few times: what has to be lean for what
/// a test is about is waited for.
pub fn rounds_until(what: &str, other: &mut Other, mut work: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    beside(other, || {
        while !work() {
            assert!(Instant::now() < deadline, "it never happened: {what}");
            std::thread::sleep(THOUGHT);
        }
    });
}

/// Asks the model until it was active with a part of its memory.
pub fn until_lean(node: &Node, model: &mut Model, other: &mut Other) {
    let before = node.lean_turns();
    rounds_until("the model is lean", other, || {
        model.infer();
        node.lean_turns() > before
    });
}

/// Says so when it is dropped.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
