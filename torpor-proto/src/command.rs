//! The commands: all that a client can ask of a GPU, each declared once.
//!
//! A declaration is plain data with its number, its kind and its answer. It yields the [`Command`] implementation the
//! client encodes by, a method in the family's trait that a worker implements, and the arm of [`dispatch`] that
//! brings the two together.
//!
//! *Posted* commands get no answer; their errors are kept and returned later, as CUDA does. *Awaited* commands are
//! answered in a completion slot. Identifiers (streams, events, images, kernels, graphs) are chosen by the client;
//! stream 0 is the legacy default stream and exists from the start. Addresses lie in the client's arena or in
//! its host range; nothing else is accepted.

use crate::error::CudaError;
use crate::ring::{Malformed, NO_SLOT, Record};
use bytemuck::{Pod, Zeroable};

/// Whether a command is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No answer is awaited.
    Posted,
    /// The answer comes in a completion slot.
    Awaited,
}

/// One kind of command: plain data, a whole number of 64-bit words.
pub trait Command: Pod {
    /// Its number in a record's header.
    const OPCODE: u16;
    /// Whether it is answered.
    const KIND: Kind;
    /// Its name, for logs.
    const NAME: &'static str;
    /// The fixed part of its answer (`()` for posted commands).
    type Reply: Pod;

    /// The words that travel.
    fn words(&self) -> &[u64] {
        words(self)
    }
}

/// Plain data as words. What is empty is aligned to nothing, so it cannot be cast.
fn words<T: Pod>(data: &T) -> &[u64] {
    if size_of::<T>() == 0 { &[] } else { bytemuck::cast_slice(std::slice::from_ref(data)) }
}

/// Identifies the command that an answer is for: its completion slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u16);

/// How an awaited command went, if it did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome<R> {
    /// Answer now, with a fixed and a variable part.
    Done(R, Vec<u8>),
    /// The worker keeps the [`Ticket`] and answers when the GPU is there.
    Pending,
}

impl<R> Outcome<R> {
    /// An answer without a variable part.
    pub fn done(reply: R) -> Self {
        Self::Done(reply, Vec::new())
    }
}

/// What became of a record.
#[derive(Debug)]
pub enum Dispatched {
    /// A posted command ran, or failed.
    Posted(&'static str, Result<(), CudaError>),
    /// An awaited command is to be answered now with these words and bytes.
    Answer(&'static str, Ticket, Result<(Vec<u64>, Vec<u8>), CudaError>),
    /// An awaited command will be answered later.
    Pending(&'static str, Ticket),
}

macro_rules! signature {
    (posted $(#[$doc:meta])* $method:ident $Name:ident ()) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// The CUDA error that the driver, or a check before it, gave.
        fn $method(&mut self, command: $Name, tail: &[u8]) -> Result<(), CudaError>;
    };
    (awaited $(#[$doc:meta])* $method:ident $Name:ident $Reply:ty) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// The CUDA error that the driver, or a check before it, gave.
        fn $method(&mut self, command: $Name, tail: &[u8], ticket: Ticket) -> Result<Outcome<$Reply>, CudaError>;
    };
}

macro_rules! kind {
    (posted) => {
        Kind::Posted
    };
    (awaited) => {
        Kind::Awaited
    };
}

macro_rules! arm {
    (posted $executor:ident $record:ident $method:ident $Name:ident ()) => {{
        let (command, tail) = decode::<$Name>($record)?;
        Dispatched::Posted($Name::NAME, $executor.$method(command, tail))
    }};
    (awaited $executor:ident $record:ident $method:ident $Name:ident $Reply:ty) => {{
        let (command, tail) = decode::<$Name>($record)?;
        let ticket = Ticket($record.header().slot);
        match $executor.$method(command, tail, ticket) {
            Ok(Outcome::Pending) => Dispatched::Pending($Name::NAME, ticket),
            Ok(Outcome::Done(reply, tail)) => {
                Dispatched::Answer($Name::NAME, ticket, Ok((answer_words(&reply), tail)))
            }
            Err(error) => Dispatched::Answer($Name::NAME, ticket, Err(error)),
        }
    }};
}

macro_rules! commands {
    ($(
        $(#[$family_doc:meta])*
        family $Family:ident {
            $(
                $(#[$doc:meta])*
                $kind:ident $opcode:literal $method:ident: $Name:ident {
                    $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
                } -> $Reply:tt;
            )*
        }
    )*) => {
        $($(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
            #[repr(C, align(8))]
            pub struct $Name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            const _: () = assert!(size_of::<$Name>() % 8 == 0);

            impl Command for $Name {
                const OPCODE: u16 = $opcode;
                const KIND: Kind = kind!($kind);
                const NAME: &'static str = stringify!($Name);
                type Reply = $Reply;
            }
        )*)*

        $(
            $(#[$family_doc])*
            pub trait $Family {
                $(signature!($kind $(#[$doc])* $method $Name $Reply);)*
            }
        )*

        /// Everything a worker can be asked.
        pub trait Execute: $($Family +)* {}

        impl<T: $($Family +)*> Execute for T {}

        /// Number, name and kind of every command.
        pub const ALL: &[(u16, &str, Kind)] = &[$($(($Name::OPCODE, $Name::NAME, $Name::KIND),)*)*];

        /// Gives a record to the method it is for.
        ///
        /// # Errors
        /// [`Malformed`] if the record is no command; nothing was executed then.
        pub fn dispatch<E: Execute + ?Sized>(executor: &mut E, record: &Record) -> Result<Dispatched, Malformed> {
            Ok(match record.header().opcode {
                $($($opcode => arm!($kind executor record $method $Name $Reply),)*)*
                other => return Err(Malformed::Opcode(other)),
            })
        }
    };
}

/// A reply may be aligned to less than a word.
fn answer_words<R: Pod>(reply: &R) -> Vec<u64> {
    let mut words = vec![0; size_of::<R>().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words)[..size_of::<R>()].copy_from_slice(bytemuck::bytes_of(reply));
    words
}

fn decode<C: Command>(record: &Record) -> Result<(C, &[u8]), Malformed> {
    let header = record.header();
    let has_slot = usize::from(header.slot) < crate::completion::SLOTS;
    let slot_fits = match C::KIND {
        Kind::Posted => header.slot == NO_SLOT,
        Kind::Awaited => has_slot,
    };
    if !slot_fits {
        return Err(Malformed::Slot { opcode: header.opcode, slot: header.slot });
    }
    let (body, tail) = record.parts(size_of::<C>() / 8)?;
    Ok((bytemuck::pod_read_unaligned(bytemuck::cast_slice(body)), tail))
}

commands! {
    /// Questions about the worker itself.
    family ControlCommands {
        /// Nothing; measures the way there and back.
        awaited 1 ping: Ping {} -> ();
        /// Free and total device memory for this client.
        awaited 2 memory_info: MemoryInfo {} -> MemoryInfoReply;
        /// Staged bytes before this point of the ring may be reused once their copies are done: then the channel's
        /// `staging_released` becomes `sequence`.
        posted 3 staging_mark: StagingMark {
            /// Grows by at least one with every mark.
            sequence: u64,
        } -> ();
    }

    /// Device memory, page-locked memory and what moves between them.
    family MemoryCommands {
        /// Backs a segment of the arena with physical memory. Address and size are multiples of 2 MiB.
        awaited 16 memory_allocate: MemoryAllocate {
            /// First device address.
            address: u64,
            /// Length.
            bytes: u64,
        } -> ();
        /// Takes a segment's physical memory away once all earlier work of the client is done.
        posted 17 memory_free: MemoryFree {
            /// The address it was allocated at.
            address: u64,
        } -> ();
        /// Page-locks a part of the host range, so that the GPU reaches it at the same address.
        awaited 18 host_lock: HostLock {
            /// First host address, a multiple of the page size.
            address: u64,
            /// Length, a multiple of the page size.
            bytes: u64,
        } -> ();
        /// Undoes [`HostLock`] once all earlier work of the client is done, and gives the pages back.
        awaited 19 host_unlock: HostUnlock {
            /// The address it was locked at.
            address: u64,
        } -> ();
        /// Copies between any two of: arena, host range. Both ends lie in one segment, or in locked host memory.
        posted 20 copy: Copy {
            /// First address written.
            destination: u64,
            /// First address read.
            source: u64,
            /// Length.
            bytes: u64,
            /// In the order of this stream.
            stream: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Copies a box of rows and slices with pitches (cuMemcpy2D, cuMemcpy3D).
        posted 21 copy_strided: CopyStrided {
            /// First address written.
            destination: u64,
            /// Bytes from row to row there.
            destination_pitch: u64,
            /// Rows from slice to slice there.
            destination_height: u64,
            /// First address read.
            source: u64,
            /// Bytes from row to row there.
            source_pitch: u64,
            /// Rows from slice to slice there.
            source_height: u64,
            /// Bytes of a row.
            width_bytes: u64,
            /// Rows of a slice.
            height: u64,
            /// Slices.
            depth: u64,
            /// In the order of this stream.
            stream: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Sets elements of 1, 2 or 4 bytes, in rows with a pitch (cuMemsetD*).
        posted 22 fill: Fill {
            /// First address written.
            address: u64,
            /// Bytes from row to row; ignored for one row.
            pitch: u64,
            /// Elements of a row.
            width: u64,
            /// Rows.
            height: u64,
            /// The element's value.
            value: u32,
            /// 1, 2 or 4.
            element_bytes: u32,
            /// In the order of this stream.
            stream: u32,
            /// Zero.
            reserved: u32,
        } -> ();
    }

    /// Streams and the context as a whole.
    family StreamCommands {
        /// Makes a stream.
        posted 32 stream_create: StreamCreate {
            /// Its number, unused so far.
            stream: u32,
            /// `CUstream_flags`: 1 is non-blocking, else it synchronises with the legacy stream.
            flags: u32,
            /// As cuStreamCreateWithPriority.
            priority: i32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Destroys a stream once its work is done.
        posted 33 stream_destroy: StreamDestroy {
            /// Which.
            stream: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Answers when everything posted to the stream before is done.
        awaited 34 stream_synchronize: StreamSynchronize {
            /// Which.
            stream: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Answers at once: success, or `CUDA_ERROR_NOT_READY`.
        awaited 35 stream_query: StreamQuery {
            /// Which.
            stream: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Later work of the stream waits for the event's last record before this command.
        posted 36 stream_wait_event: StreamWaitEvent {
            /// Which stream.
            stream: u32,
            /// Which event.
            event: u32,
            /// `CUevent_wait_flags`.
            flags: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Answers when everything the client posted before is done.
        awaited 37 context_synchronize: ContextSynchronize {} -> ();
    }

    /// Events.
    family EventCommands {
        /// Makes an event.
        posted 48 event_create: EventCreate {
            /// Its number, unused so far.
            event: u32,
            /// `CUevent_flags`; 2 disables timing.
            flags: u32,
        } -> ();
        /// Destroys an event.
        posted 49 event_destroy: EventDestroy {
            /// Which.
            event: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Records an event in a stream.
        posted 50 event_record: EventRecord {
            /// Which event.
            event: u32,
            /// Which stream.
            stream: u32,
            /// `CUevent_record_flags`.
            flags: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Answers at once: success (also if never recorded), or `CUDA_ERROR_NOT_READY`.
        awaited 51 event_query: EventQuery {
            /// Which.
            event: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Answers when the event's last record is reached.
        awaited 52 event_synchronize: EventSynchronize {
            /// Which.
            event: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Milliseconds between two recorded events.
        awaited 53 event_elapsed: EventElapsed {
            /// The earlier event.
            start: u32,
            /// The later event.
            end: u32,
        } -> EventElapsedReply;
    }

    /// Images (code modules) and the globals in them.
    family ImageCommands {
        /// Gives an image a number. If the node does not know its bytes, the answer says so: upload, then ask again.
        awaited 64 image_load: ImageLoad {
            /// Its number, unused so far.
            image: u32,
            /// Zero.
            reserved: u32,
            /// Its length.
            bytes: u64,
            /// BLAKE3 of its bytes.
            hash: [u64; 4],
        } -> ImageLoadReply;
        /// A piece of an image, in order from its beginning. The node checks the hash when all are there.
        posted 65 image_upload: ImageUpload {
            /// BLAKE3 of the whole image.
            hash: [u64; 4],
            /// Length of the whole image.
            total_bytes: u64,
            /// Where this piece begins.
            offset: u64,
            /// Where it is in the host range.
            source: u64,
            /// Its length.
            bytes: u64,
        } -> ();
        /// The number is free again.
        posted 66 image_unload: ImageUnload {
            /// Which.
            image: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// The address of a global for this client. The variable part is its name.
        awaited 67 image_global: ImageGlobal {
            /// Which image.
            image: u32,
            /// Zero.
            reserved: u32,
        } -> ImageGlobalReply;
        /// Names of the image's kernels from the `first` one: the variable part of the answer has them, each with a
        /// NUL behind it, as many as fit.
        awaited 68 image_kernels: ImageKernels {
            /// Which image.
            image: u32,
            /// How many to skip.
            first: u32,
        } -> ImageKernelsReply;
    }

    /// Kernels: what they are like, and launching them.
    family KernelCommands {
        /// Gives a kernel a number. The variable part is its name; that of the answer, [`Parameter`]s.
        awaited 80 kernel_resolve: KernelResolve {
            /// In which image.
            image: u32,
            /// Its number, unused so far.
            kernel: u32,
        } -> KernelResolveReply;
        /// Sets a `CUfunction_attribute`.
        posted 81 kernel_set_attribute: KernelSetAttribute {
            /// Which kernel.
            kernel: u32,
            /// Which attribute.
            attribute: u32,
            /// Its value.
            value: i32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags.
        awaited 82 occupancy_blocks: OccupancyBlocks {
            /// Which kernel.
            kernel: u32,
            /// Threads of a block.
            block_threads: i32,
            /// Dynamic shared memory of a block.
            shared_bytes: u64,
            /// `CUoccupancy_flags`.
            flags: u32,
            /// Zero.
            reserved: u32,
        } -> OccupancyReply;
        /// cuOccupancyAvailableDynamicSMemPerBlock.
        awaited 83 occupancy_shared: OccupancyShared {
            /// Which kernel.
            kernel: u32,
            /// Blocks on a multiprocessor.
            blocks: i32,
            /// Threads of a block.
            block_threads: i32,
            /// Zero.
            reserved: u32,
        } -> OccupancyReply;
        /// cuOccupancyMaxActiveClusters. The variable part has the [`LaunchAttribute`]s.
        awaited 84 occupancy_clusters: OccupancyClusters {
            /// The launch it is about.
            shape: LaunchShape,
        } -> OccupancyReply;
        /// cuOccupancyMaxPotentialClusterSize. The variable part has the [`LaunchAttribute`]s.
        awaited 85 occupancy_cluster_size: OccupancyClusterSize {
            /// The launch it is about.
            shape: LaunchShape,
        } -> OccupancyReply;
        /// Launches. The variable part has the [`LaunchAttribute`]s, then the parameter block.
        posted 86 launch: Launch {
            /// What and how large.
            shape: LaunchShape,
        } -> ();
        /// cuTensorMapEncodeTiled; the answer is the descriptor.
        awaited 87 tensor_map_tiled: TensorMapTiled {
            /// Device address of the tensor.
            address: u64,
            /// Elements in each dimension.
            dimensions: [u64; 5],
            /// Bytes from one index to the next, from the second dimension on.
            strides: [u64; 5],
            /// Elements of the box in each dimension.
            box_dimensions: [u32; 5],
            /// Element strides.
            element_strides: [u32; 5],
            /// `CUtensorMapDataType`.
            data_type: u32,
            /// 1 to 5.
            rank: u32,
            /// `CUtensorMapInterleave`.
            interleave: u32,
            /// `CUtensorMapSwizzle`.
            swizzle: u32,
            /// `CUtensorMapL2promotion`.
            l2_promotion: u32,
            /// `CUtensorMapFloatOOBfill`.
            fill: u32,
        } -> TensorMapReply;
        /// cuTensorMapEncodeIm2col; the answer is the descriptor.
        awaited 88 tensor_map_im2col: TensorMapIm2col {
            /// Device address of the tensor.
            address: u64,
            /// Elements in each dimension.
            dimensions: [u64; 5],
            /// Bytes from one index to the next, from the second dimension on.
            strides: [u64; 5],
            /// Lower corner of the pixel box.
            lower_corner: [i32; 5],
            /// Upper corner of the pixel box.
            upper_corner: [i32; 5],
            /// Element strides.
            element_strides: [u32; 5],
            /// Channels per pixel.
            channels: u32,
            /// Pixels per column.
            pixels: u32,
            /// `CUtensorMapDataType`.
            data_type: u32,
            /// 3 to 5.
            rank: u32,
            /// `CUtensorMapInterleave`.
            interleave: u32,
            /// `CUtensorMapSwizzle`.
            swizzle: u32,
            /// `CUtensorMapL2promotion`.
            l2_promotion: u32,
            /// `CUtensorMapFloatOOBfill`.
            fill: u32,
            /// Zero.
            reserved: u32,
        } -> TensorMapReply;
    }

    /// Graphs: commands recorded by the client, to be launched as one.
    family GraphCommands {
        /// More of a graph's commands: the variable part is a stretch of their records.
        posted 96 graph_append: GraphAppend {
            /// Its number, unused so far or appended to before.
            graph: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// The graph is whole: make it launchable. The records' streams are those of the capture.
        awaited 97 graph_instantiate: GraphInstantiate {
            /// Which.
            graph: u32,
            /// The stream the capture began on.
            origin: u32,
            /// `CUgraphInstantiate_flags`.
            flags: u64,
        } -> ();
        /// Launches a graph.
        posted 98 graph_launch: GraphLaunch {
            /// Which.
            graph: u32,
            /// In the order of this stream.
            stream: u32,
        } -> ();
        /// The graph is gone once its work is done.
        posted 99 graph_destroy: GraphDestroy {
            /// Which.
            graph: u32,
            /// Zero.
            reserved: u32,
        } -> ();
    }
}

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

    /// Answer to [`MemoryInfo`].
    MemoryInfoReply {
        /// Bytes that an allocation could still get.
        free_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    }

    /// Answer to [`ImageLoad`].
    ImageLoadReply {
        /// 1: the number is given. 0: upload the bytes first.
        known: u64,
    }

    /// Answer to [`ImageGlobal`].
    ImageGlobalReply {
        /// Device address.
        address: u64,
        /// Length.
        bytes: u64,
    }

    /// Answer to [`ImageKernels`].
    ImageKernelsReply {
        /// How many kernels the image has.
        total: u32,
        /// How many names follow.
        count: u32,
    }

    /// Answer to [`KernelResolve`].
    KernelResolveReply {
        /// By `CUfunction_attribute` number.
        attributes: [i32; KERNEL_ATTRIBUTES],
    }

    /// Answer to the occupancy questions: blocks, clusters or bytes.
    OccupancyReply {
        /// The number asked for.
        value: u64,
    }

    /// Answer to [`EventElapsed`].
    EventElapsedReply {
        /// The bits of an `f32`, in milliseconds.
        milliseconds_bits: u32,
        /// Zero.
        reserved: u32,
    }

    /// Answer to the tensor map commands: a `CUtensorMap`, 128 bytes.
    TensorMapReply {
        /// Opaque.
        words: [u64; 16],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_names_are_unique() {
        let numbers: BTreeSet<_> = ALL.iter().map(|command| command.0).collect();
        let names: BTreeSet<_> = ALL.iter().map(|command| command.1).collect();
        assert_eq!((numbers.len(), names.len()), (ALL.len(), ALL.len()));
        assert!(!numbers.contains(&0), "zeroed memory must be no command");
    }

    #[test]
    fn commands_without_words_and_of_half_words_travel() {
        assert!(Ping {}.words().is_empty());
        let stack =
            [(0_u8, StreamQuery { stream: 7, reserved: 9 }), (1, StreamQuery { stream: 8, reserved: 0 })];
        assert_eq!(stack.map(|(_, query)| query.words().to_vec()), [vec![9 << 32 | 7], vec![8]]);
        assert!(answer_words(&()).is_empty());
        assert_eq!(answer_words(&EventElapsedReply { milliseconds_bits: 5, reserved: 6 }), [6 << 32 | 5]);
    }

    #[test]
    fn empty_commands_and_answers_have_no_words() {
        assert_eq!(Ping {}.words(), [0; 0]);
        assert_eq!(words(&()), [0; 0]);
        assert_eq!(MemoryFree { address: 7 }.words(), [7]);
    }

    #[test]
    fn a_launch_attribute_is_laid_out_as_in_cuda_h() {
        use cudarc::driver::sys::CUlaunchAttribute;
        assert_eq!(size_of::<LaunchAttribute>(), size_of::<CUlaunchAttribute>());
        assert_eq!(
            std::mem::offset_of!(LaunchAttribute, value),
            std::mem::offset_of!(CUlaunchAttribute, value)
        );
    }
}
