//! PyTorch's own images, from the library that `TORPOR_TEST_TORCH` names (CI sets it).

use std::collections::HashSet;
use std::path::PathBuf;

use super::relocate::Relocatable;
use super::synthetic::{self, CubinSource, KernelSource, VariableSource};
use super::*;

/// The containers in the `.nv_fatbin` section of a host library.
fn containers(library: &[u8]) -> Vec<&[u8]> {
    let file = elf::File::parse(library).expect("a library is an ELF file");
    let section =
        file.sections().iter().find(|section| section.name == ".nv_fatbin").expect("it has GPU code");
    let section = file.contents(section).expect("the section is inside the file");
    let (mut found, mut offset) = (Vec::new(), 0);
    // Containers are aligned to 8 bytes, with padding between them.
    while let Some(rest) = section.get(offset..).filter(|rest| !rest.is_empty()) {
        if u32_at(rest, 0) == Some(fatbin::CONTAINER_MAGIC) {
            found.push(Image::parse(rest).expect("PyTorch's containers are sound").bytes);
            offset = (offset + found[found.len() - 1].len()).next_multiple_of(8);
        } else {
            offset += 8;
        }
    }
    found
}

/// What a library with GPU code holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Census {
    containers: usize,
    cubins: usize,
    zstd: usize,
    /// Kernels of the sm_90 cubins.
    kernels: usize,
    largest_block_bytes: u32,
    with_parameters: bool,
    with_globals: bool,
    /// sm_90 cubins with variables that kernels may write into: each client has its own instance of those.
    with_state: usize,
}

fn census(library: &[u8]) -> Census {
    let mut census = Census::default();
    for container in containers(library) {
        census.containers += 1;
        for entry in fatbin::entries(container).expect("sound") {
            let entry = entry.expect("sound");
            assert!(entry.header.len() == 0x40 || entry.header.len() == 0x70);
            census.cubins += usize::from(entry.kind == fatbin::EntryKind::CUBIN);
            census.zstd += usize::from(entry.flags & fatbin::FLAG_ZSTD != 0);
            // sm_100 sets bits beside the size; its layouts must come out sound too.
            if entry.sm != 90 && entry.sm != 100 {
                continue;
            }
            let plain = entry.payload().expect("sound");
            let image = Image::parse(&plain).expect("sound");
            assert_eq!((image.kind, image.bytes.len()), (ImageKind::Elf, plain.len()));
            let kernels = cubin::kernels(&plain).expect("sound");
            let names: HashSet<_> = kernels.iter().map(|kernel| kernel.name).collect();
            assert_eq!(names.len(), kernels.len(), "kernel names are unique in a cubin");
            census.with_globals |= !cubin::globals(&plain).expect("sound").is_empty();
            if entry.sm == 90 {
                census.kernels += kernels.len();
                let relocatable = Relocatable::read(plain.to_vec()).expect("sound");
                assert!(relocatable.obstacle().is_none(), "{:?}", relocatable.obstacle());
                census.with_state += usize::from(relocatable.has_state());
            }
            for kernel in kernels {
                census.with_parameters |= !kernel.parameters.is_empty();
                census.largest_block_bytes = census.largest_block_bytes.max(kernel.parameter_block_bytes);
                assert!((1..=255).contains(&kernel.registers), "{} has {}", kernel.name, kernel.registers);
                assert!(kernel.static_shared_bytes <= 228 << 10);
            }
        }
    }
    census
}

/// A host library as PyTorch's: two containers, with padding between them, in one section.
fn synthetic_library() -> Vec<u8> {
    let kernel = |name, block_bytes| KernelSource {
        name: str::to_owned(name),
        parameters: vec![(0, block_bytes)],
        block_bytes,
        shared_bytes: 1024,
        registers: 32,
    };
    let source = CubinSource {
        kernels: vec![kernel("a", 4002), kernel("b", 8)],
        variables: vec![VariableSource::of(".nv.global", "counter", 4, 0)],
        ..CubinSource::default()
    };
    let cubin = synthetic::cubin(&source);
    let entry = |sm, header_bytes| synthetic::zstd_entry(fatbin::EntryKind::CUBIN, sm, header_bytes, &cubin);
    let mut section = synthetic::container(&[entry(75, 0x40), entry(90, 0x40), entry(100, 0x70)]);
    section.extend([0; 24]);
    section.extend(synthetic::container(&[entry(90, 0x40)]));
    synthetic::library(".nv_fatbin", &section)
}

#[test]
fn the_census_of_pytorch_is_right() {
    let counted = |containers, cubins, kernels, with_state| Census {
        containers,
        cubins,
        zstd: cubins,
        kernels,
        largest_block_bytes: 4002,
        with_parameters: true,
        with_globals: true,
        with_state,
    };
    assert_eq!(census(&synthetic_library()), counted(2, 4, 4, 2));
    let Some(path) = std::env::var_os("TORPOR_TEST_TORCH").map(PathBuf::from) else {
        println!(
            "counted a synthetic library only; TORPOR_TEST_TORCH=.../torch/lib/libtorch_cuda.so counts PyTorch's"
        );
        return;
    };
    let library =
        std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    // PyTorch 2.11.0 for CUDA 13.0. The state is that of two scans that have zeroed temporaries.
    assert_eq!(census(&library), counted(444, 2789, 21_742, 1));
}
