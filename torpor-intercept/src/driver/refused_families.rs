//! The functions that are refused, in families, with who would need them: for `docs/coverage.md`.

use std::fmt::Write as _;

/// Functions that belong together.
struct Family {
    what: &'static str,
    /// Programs that call them, as far as is known.
    who: &'static str,
    /// Parts of their names, after `cu` or `cuda`. A function belongs to the first family that has one.
    parts: &'static [&'static str],
}

const FAMILIES: &[Family] = &[
    Family {
        what: "graphics, video surfaces and displays",
        who: "renderers and video players that share buffers with OpenGL, EGL, VDPAU or Direct3D",
        parts: &["GL", "VDPAU", "Graphics", "NvSci", "Luid"],
    },
    Family {
        what: "memory and semaphores of other drivers, GPUDirect RDMA",
        who: "Vulkan interoperation; NIXL, UCX and NVSHMEM over InfiniBand",
        parts: &["External", "HandleForAddressRange"],
    },
    Family {
        what: "texture and surface references, and memory of sparse arrays",
        who: "programs for CUDA 11 and older (texture references)",
        parts: &["Array", "Mipmapped", "Tex", "Surf", "AtoA", "AtoD", "AtoH", "DtoA", "HtoA", "ChannelDesc"],
    },
    Family {
        what: "several GPUs as one",
        who: "NCCL's and PyTorch's NVLink multicast; cooperative launches over GPUs, which CUDA 13 no longer has",
        parts: &["Multicast", "MultiDevice", "P2PAtomic", "HostAtomic"],
    },
    Family {
        what: "checkpoints, notifications and the profiler of CUDA 4",
        who: "cuda-checkpoint and CRIU",
        parts: &["Checkpoint", "ProfilerInitialize", "AsyncNotification"],
    },
    Family {
        what: "tensor maps of wide im2col, and with another address",
        who: "convolutions of CUTLASS for Blackwell",
        parts: &["TensorMap"],
    },
    Family { what: "the decompression engine", who: "nvCOMP on Blackwell", parts: &["BatchDecompress"] },
    Family {
        what: "what only the compiler's own code calls",
        who: "programs whose kernels name variables and functions of the host",
        parts: &["RegisterHostVar", "Unified", "__cudaGetProcAddress"],
    },
    Family {
        what: "the form that functions had before CUDA 3.2, 4.0 and 6.5",
        who: "nobody: such programs are of 32 bits, or older than GPUs that are served here",
        parts: &[
            "CtxAttach",
            "CtxCreate",
            "CtxDetach",
            "DeviceTotalMem",
            "Link",
            "MemAlloc",
            "MemFree",
            "MemGet",
            "MemHost",
            "Memcpy",
            "Memset",
            "ModuleGetGlobal",
        ],
    },
];

/// The families as rows of a table in Markdown, each with its functions of a list of names.
pub(super) fn rows<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    let mut rows = String::new();
    for (number, family) in FAMILIES.iter().enumerate() {
        let own = names.clone().filter(|name| family_of(name) == Some(number));
        let listed: Vec<String> = own.map(|name| format!("`{name}`")).collect();
        // Writing to a string cannot fail.
        _ = writeln!(rows, "| {} | {} | {} |", family.what, family.who, listed.join(", "));
    }
    rows
}

/// The number of a function's family.
fn family_of(name: &str) -> Option<usize> {
    FAMILIES.iter().position(|family| family.parts.iter().any(|part| name.contains(part)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::coverage::refused_names;

    #[test]
    fn every_refused_function_has_a_family_and_every_family_a_function() {
        let names = refused_names();
        let strays: Vec<_> = names.iter().filter(|name| family_of(name).is_none()).collect();
        assert!(strays.is_empty(), "{strays:?}");
        let empty = |number: &usize| names.iter().all(|name| family_of(name) != Some(*number));
        assert_eq!((0..FAMILIES.len()).filter(empty).map(|number| FAMILIES[number].what).next(), None);
    }
}
