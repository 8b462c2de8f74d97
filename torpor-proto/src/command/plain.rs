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

/// Of a [`CopyEnd`]: memory.
pub const END_IN_MEMORY: u32 = 0;

/// Of a [`CopyEnd`]: an array.
pub const END_IN_ARRAY: u32 = 1;

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

    /// Answer to [`ImageErrors`](super::ImageErrors).
    ImageErrorsReply {
        /// How many bytes were said.
        total: u64,
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

    /// How a part of the GPU comes of another one, or of the whole: that is split, and some groups are taken.
    PartLevel {
        /// As of [`PartSplit`](super::PartSplit).
        least: u32,
        /// As of [`PartSplit`](super::PartSplit).
        flags: u32,
        /// As of [`PartSplit`](super::PartSplit).
        groups: u32,
        /// Zero.
        reserved: u32,
        /// The groups, a bit for each, and the last bit for what remains.
        taken: [u64; 4],
    }

    /// Answer to [`PartLook`](super::PartLook): a `CUdevSmResource`.
    PartShape {
        /// How many multiprocessors it has.
        multiprocessors: u32,
        /// How many a part of it must have.
        least: u32,
        /// How many are scheduled together.
        alignment: u32,
        /// Zero.
        reserved: u32,
    }

    /// Answer to [`PartSplit`](super::PartSplit).
    PartSplitReply {
        /// How many groups there are.
        groups: u32,
        /// Zero.
        reserved: u32,
        /// What each of them has.
        each: PartShape,
        /// What is in none.
        rest: PartShape,
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

    /// One side of an [`ArrayCopy`](super::ArrayCopy): in an array, or in memory.
    CopyEnd {
        /// [`END_IN_MEMORY`] or [`END_IN_ARRAY`].
        place: u32,
        /// Which array.
        array: u32,
        /// Which level of it.
        level: u32,
        /// Zero.
        reserved: u32,
        /// In an array: the first byte of each row.
        x_bytes: u64,
        /// In an array: the first row.
        y: u64,
        /// In an array: the first slice or layer.
        z: u64,
        /// In memory: the first address.
        address: u64,
        /// In memory: bytes from row to row.
        pitch: u64,
        /// In memory: rows from slice to slice.
        height: u64,
    }

    /// What a texture object is over.
    TextureResource {
        /// `CUresourcetype`: 0 an array, 1 a mipmapped one, 2 memory in a row, 3 rows with a pitch.
        kind: u32,
        /// Which array.
        array: u32,
        /// Which level of it, of kind 0.
        level: u32,
        /// Of memory: `CUarray_format`.
        format: u32,
        /// Of memory: 1, 2 or 4.
        channels: u32,
        /// Zero.
        reserved: u32,
        /// Of memory: the first address.
        address: u64,
        /// Of kind 2 bytes, of kind 3 elements of a row.
        width: u64,
        /// Of kind 3: rows.
        height: u64,
        /// Of kind 3: bytes from row to row.
        pitch: u64,
    }

    /// How a texture is read: a `CUDA_TEXTURE_DESC`.
    Sampler {
        /// `CUaddress_mode` of each dimension.
        address_modes: [u32; 3],
        /// `CUfilter_mode`
        filter: u32,
        /// `CU_TRSF_*`
        flags: u32,
        /// At most 16.
        max_anisotropy: u32,
        /// `CUfilter_mode` between levels.
        level_filter: u32,
        /// The bits of an `f32`.
        level_bias: u32,
        /// The bits of an `f32`.
        level_least: u32,
        /// The bits of an `f32`.
        level_most: u32,
        /// The bits of four `f32`.
        border: [u32; 4],
    }

    /// As what an array is seen through a texture: a `CUDA_RESOURCE_VIEW_DESC`.
    ResourceView {
        /// Whether there is one.
        is_there: u32,
        /// `CUresourceViewFormat`
        format: u32,
        /// Elements of a row.
        width: u64,
        /// Rows.
        height: u64,
        /// Slices.
        depth: u64,
        /// From this level...
        first_level: u32,
        /// ...to this one.
        last_level: u32,
        /// From this layer...
        first_layer: u32,
        /// ...to this one.
        last_layer: u32,
    }

    /// Answer to [`ArrayCreate`](super::ArrayCreate).
    ArrayReply {
        /// Device memory that it counts as.
        bytes: u64,
    }

    /// Answer to the commands that make texture and surface objects.
    HandleReply {
        /// The driver's own: kernels are given it.
        handle: u64,
    }

    /// Answer to the tensor map commands: a `CUtensorMap`, 128 bytes.
    TensorMapReply {
        /// Opaque.
        words: [u64; 16],
    }
}
