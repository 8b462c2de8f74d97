//! Tests of whole kernels and of single instructions, against direct evaluation in Rust.

mod arena;
mod arithmetic;
mod faults;
mod features;
mod instructions;
mod kernels;
mod properties;
mod warps;

use std::sync::atomic::AtomicBool;

use super::{KernelFault, Launch, Module, Statistics};
use arena::Arena;

/// Builds a parameter block.
#[derive(Default)]
struct Parameters(Vec<u8>);

impl Parameters {
    fn pad(mut self, align: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(align), 0);
        self
    }

    fn pointer(self, address: u64) -> Self {
        let mut padded = self.pad(8);
        padded.0.extend(address.to_le_bytes());
        padded
    }

    fn int(self, value: u32) -> Self {
        let mut padded = self.pad(4);
        padded.0.extend(value.to_le_bytes());
        padded
    }

    fn float(self, value: f32) -> Self {
        self.int(value.to_bits())
    }
}

/// A launch in a test.
struct Run<'a> {
    module: &'a Module,
    kernel: &'a str,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared_bytes: usize,
    threads: usize,
    is_cooperative: bool,
}

impl<'a> Run<'a> {
    fn new(module: &'a Module, kernel: &'a str, grid: u32, block: u32) -> Self {
        let (grid, block) = ([grid, 1, 1], [block, 1, 1]);
        Self { module, kernel, grid, block, dynamic_shared_bytes: 0, threads: 2, is_cooperative: false }
    }

    fn start(&self, arena: &Arena, parameters: Parameters) -> Result<Statistics, KernelFault> {
        let kernel = self.module.kernel(self.kernel).expect("the kernel");
        self.module.run(
            kernel,
            &Launch {
                grid: self.grid,
                block: self.block,
                multiprocessors: &[0],
                all_multiprocessors: 1,
                dynamic_shared_bytes: self.dynamic_shared_bytes,
                parameters: &parameters.0,
                globals: &|symbol| arena.symbol(symbol),
                memory: arena,
                system: arena,
                threads: self.threads,
                is_cooperative: self.is_cooperative,
                cancel: &AtomicBool::new(false),
            },
        )
    }

    fn run(&self, arena: &Arena, parameters: Parameters) -> Statistics {
        self.start(arena, parameters).expect("the kernel runs")
    }
}

/// Wraps instructions into a kernel `test` with one parameter, the address of its output in `%out`; each lane's own
/// slot of 16 bytes is at `%slot`.
fn kernel(body: &str) -> String {
    format!(
        ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry test(.param .u64 out)\n{{\n\
         .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<30>; .reg .b64 %rd<30>; .reg .f32 %f<30>; .reg .f64 %fd<9>;\n\
         .reg .b64 %out, %slot; .reg .b32 %tid;\n\
         ld.param.u64 %out, [out]; mov.u32 %tid, %tid.x; mad.wide.u32 %slot, %tid, 16, %out;\n\
         {body}\nret;\n}}\n"
    )
}

/// Runs `kernel(body)` with one block and gives each lane's slot as two 64-bit words.
fn evaluate(body: &str, threads: u32) -> Vec<[u64; 2]> {
    let text = kernel(body);
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{body}"));
    let mut arena = Arena::new(1 << 16);
    let out = arena.put(&vec![0u64; 2 * threads as usize]);
    Run::new(&module, "test", 1, threads).run(&arena, Parameters::default().pointer(out));
    let words: Vec<u64> = arena.get(out, 2 * threads as usize);
    words.chunks(2).map(|pair| [pair[0], pair[1]]).collect()
}

/// The first word of lane 0's slot.
fn single(body: &str) -> u64 {
    evaluate(body, 1)[0][0]
}
