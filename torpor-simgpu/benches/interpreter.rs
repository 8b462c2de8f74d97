//! Speed of the PTX interpreter on one core: PTX instructions per second, each thread's counted by itself. The goal is
//! 50 million; criterion's throughput column ("elem/s") shows what there is.

use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use torpor_simgpu::ptx::{Access, DeviceMemory, Launch, MemoryFault, Module, System, Window};

/// First device address.
const BASE: u64 = 0x7000_0000_0000;
/// Words of device memory.
const WORDS: usize = 1 << 18;

/// A range of device memory.
struct Memory(Vec<AtomicU64>);

impl Memory {
    fn window(&self) -> Window {
        let host = NonNull::from(self.0.as_slice()).cast();
        Window { address: BASE, bytes: (WORDS * 8) as u64, host }
    }
}

/// These kernels call none of the driver's functions.
struct NoSystem;

impl System for NoSystem {
    fn print(&self, _: &[u8]) {}

    fn set_condition(&self, _: u64, _: u32) {}
}

impl DeviceMemory for Memory {
    fn resolve(&self, address: u64, bytes: usize, access: Access) -> Result<NonNull<u8>, MemoryFault> {
        Err(MemoryFault { address, bytes, access, reason: "outside the window" })
    }

    fn window(&self, _address: u64, _access: Access) -> Option<Window> {
        Some(Self::window(self))
    }
}

struct Case {
    name: &'static str,
    text: &'static str,
    grid: [u32; 3],
    block: [u32; 3],
    shared: usize,
    parameters: Vec<u8>,
}

/// Packs words of 32 or 64 bits (pointers) into a parameter block without padding.
fn pack(pointers_first: &[u64], words: &[u32]) -> Vec<u8> {
    let pointers = pointers_first.iter().flat_map(|pointer| pointer.to_le_bytes());
    pointers.chain(words.iter().flat_map(|word| word.to_le_bytes())).collect()
}

fn cases() -> Vec<Case> {
    let at = |index: u64| BASE + index * 0x40000;
    vec![
        Case {
            name: "vector_add",
            text: include_str!("../../evaluation/kernels/vector_add.ptx"),
            grid: [128, 1, 1],
            block: [256, 1, 1],
            shared: 0,
            parameters: pack(&[at(0), at(1), at(2)], &[32_768]),
        },
        Case {
            name: "sgemm_tiled",
            text: include_str!("../../evaluation/kernels/sgemm_tiled.ptx"),
            grid: [6, 6, 1],
            block: [16, 16, 1],
            shared: 0,
            parameters: pack(&[at(0), at(1), at(2)], &[96, 96, 96]),
        },
        Case {
            name: "convolution",
            text: include_str!("../../evaluation/kernels/convolution.ptx"),
            grid: [1, 4, 8],
            block: [32, 8, 1],
            shared: 0,
            parameters: pack(&[at(0), at(1), at(2), at(3)], &[8, 8, 32, 32, 3]),
        },
        Case {
            name: "softmax",
            text: include_str!("../../evaluation/kernels/softmax.ptx"),
            grid: [32, 1, 1],
            block: [256, 1, 1],
            shared: 32,
            parameters: pack(&[at(0), at(1)], &[1024]),
        },
        Case {
            name: "histogram",
            text: include_str!("../../evaluation/kernels/histogram.ptx"),
            grid: [4, 1, 1],
            block: [256, 1, 1],
            shared: 0,
            parameters: [
                at(0).to_le_bytes().to_vec(),
                vec![0, 0, 1, 0, 0, 0, 0, 0],
                at(1).to_le_bytes().to_vec(),
            ]
            .concat(),
        },
    ]
}

fn interpreter(criterion: &mut Criterion) {
    let memory = Memory((0..WORDS).map(|_| AtomicU64::new(0)).collect());
    let mut group = criterion.benchmark_group("interpreter");
    for case in cases() {
        let module = Module::parse(case.text).expect("PTX parses");
        let kernel = module.kernel(case.name).expect("the kernel");
        let cancel = AtomicBool::new(false);
        let launch = Launch {
            grid: case.grid,
            block: case.block,
            multiprocessors: &[0],
            all_multiprocessors: 1,
            dynamic_shared_bytes: case.shared,
            parameters: &case.parameters,
            globals: &|_| None,
            memory: &memory,
            system: &NoSystem,
            threads: 1,
            is_cooperative: false,
            cancel: &cancel,
        };
        let statistics = module.run(kernel, &launch).expect("the kernel runs");
        group.throughput(Throughput::Elements(statistics.instructions));
        group.bench_function(case.name, |bencher| {
            bencher.iter(|| black_box(module.run(kernel, &launch).expect("the kernel runs")));
        });
    }
    group.finish();
}

criterion_group!(benches, interpreter);
criterion_main!(benches);
