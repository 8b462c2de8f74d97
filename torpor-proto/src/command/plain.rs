//! Plain data that commands and their answers are made of.

use bytemuck::{Pod, Zeroable};

macro_rules! plain {
    ($($(#[$doc:meta])* $Name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
            #[repr(C)]
            pub struct $Name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            const _: () = assert!(size_of::<$Name>() % 8 == 0);
        )*
    };
}

/// The launch attributes whose value begins with an event: `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT` and
/// `CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT` (`cuda.h`).
pub const EVENT_LAUNCH_ATTRIBUTES: [u32; 2] = [7, 12];

/// `CUfunction_attribute`s that [`KernelResolveReply`] has, in the order of their numbers from 0.
pub const KERNEL_ATTRIBUTES: usize = 16;

plain! {
    /// What a launch runs, and how large.
    LaunchShape {
        /// Which kernel.
        kernel: u32,
        /// In the order of this stream.
        stream: u32,
        /// Blocks in x, y, z.
        grid: [u32; 3],
        /// Threads of a block in x, y, z.
        block: [u32; 3],
        /// Dynamic shared memory of a block.
        shared_bytes: u32,
        /// How many [`LaunchAttribute`]s.
        attributes: u32,
        /// Length of the parameter block.
        parameter_bytes: u32,
        /// Zero.
        reserved: u32,
    }

    /// A `CUlaunchAttribute` (`cuda.h`: a number, padding, 64 bytes of value). Handles in it are the client's numbers.
    LaunchAttribute {
        /// `CUlaunchAttributeID`.
        id: u32,
        /// Zero.
        reserved: u32,
        /// The value's bytes.
        value: [u64; 8],
    }

    /// Where one kernel parameter lies in the parameter block.
    Parameter {
        /// From the block's beginning.
        offset: u32,
        /// Its length.
        bytes: u32,
    }

    /// Answer to [`MemoryInfo`](super::MemoryInfo).
    MemoryInfoReply {
        /// Bytes that an allocation could still get.
        free_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    }

    /// Answer to [`ImageLoad`](super::ImageLoad).
    ImageLoadReply {
        /// 1: the number is given. 0: upload the bytes first.
        known: u64,
    }

    /// Answer to [`ImageGlobal`](super::ImageGlobal).
    ImageGlobalReply {
        /// Device address.
        address: u64,
        /// Length.
        bytes: u64,
    }

    /// Answer to [`ImageKernels`](super::ImageKernels).
    ImageKernelsReply {
        /// How many kernels the image has.
        total: u32,
        /// How many names follow.
        count: u32,
    }

    /// Answer to [`KernelResolve`](super::KernelResolve).
    KernelResolveReply {
        /// By `CUfunction_attribute` number.
        attributes: [i32; KERNEL_ATTRIBUTES],
    }

    /// Answer to the occupancy questions: blocks, clusters or bytes.
    OccupancyReply {
        /// The number asked for.
        value: u64,
    }

    /// Answer to [`EventElapsed`](super::EventElapsed).
    EventElapsedReply {
        /// The bits of an `f32`, in milliseconds.
        milliseconds_bits: u32,
        /// Zero.
        reserved: u32,
    }

    /// Answer to the commands that export something: what a client of the same function imports it with.
    SecretReply {
        /// As good as random: nobody guesses it.
        secret: [u64; 2],
    }

    /// Answer to the tensor map commands: a `CUtensorMap`, 128 bytes.
    TensorMapReply {
        /// Opaque.
        words: [u64; 16],
    }
}
