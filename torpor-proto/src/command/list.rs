//! The commands, by family: one list, which is one enum, one decoder and one trait for each family, and so longer than other files.

use super::declare::{arm, commands, kind, signature};
use super::plain::*;
use super::{Command, Dispatched, Kind, Outcome, Ticket, answer_words, decode};
use crate::error::CudaError;
use crate::ring::{Malformed, Record};
use bytemuck::{Pod, Zeroable};

commands! {
    /// Questions about the worker itself.
    family ControlCommands {
        /// Nothing; measures the way there and back.
        awaited 1 ping: Ping {} -> ();
        /// Free and total device memory for this client.
        awaited 2 memory_info: MemoryInfo {} -> MemoryInfoReply;
        /// Staged bytes before this point of the ring may be reused once their copies are done: then the channel says
        /// that those up to `sequence` are free again.
        posted 3 staging_mark: StagingMark {
            /// Grows by at least one with every mark.
            sequence: u64,
        } -> ();
        /// Takes text that the client's kernels printed: the variable part of the answer, empty if there is none left.
        awaited 4 text_take: TextTake {} -> ();
        /// Wants a `CUlimit` of the context to have at least this value for the client.
        awaited 5 limit_raise: LimitRaise {
            /// Its value.
            value: u64,
            /// Which.
            limit: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// The program uses this one of its function's devices first: the server may put it elsewhere for that.
        posted 6 home: Home {
            /// Its number among the function's devices.
            device: u32,
            /// Zero.
            reserved: u32,
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
        /// Stores a word at once, once earlier work of the stream is done and visible (cuStreamWriteValue32, cuStreamWriteValue64).
        posted 23 word_write: WordWrite {
            /// A multiple of its length.
            address: u64,
            /// Its value.
            value: u64,
            /// In the order of this stream.
            stream: u32,
            /// 4 or 8.
            bytes: u32,
        } -> ();
    }

    /// Memory objects: memory that the program maps itself, at none, one or several addresses (cuMemCreate).
    family ObjectCommands {
        /// Makes an object and takes physical memory for it. Address and size are multiples of 2 MiB.
        awaited 24 object_create: ObjectCreate {
            /// Names the object: addresses of the arena that nothing else uses as long as the object is there.
            home: u64,
            /// Length.
            bytes: u64,
        } -> ();
        /// Gives up an object that is mapped nowhere.
        posted 25 object_release: ObjectRelease {
            /// Which.
            home: u64,
        } -> ();
        /// Maps all of an object.
        awaited 26 object_map: ObjectMap {
            /// Which.
            home: u64,
            /// First device address, a multiple of 2 MiB.
            address: u64,
        } -> ();
        /// Takes an object away from an address once all earlier work of the client is done. Its contents stay.
        posted 27 object_unmap: ObjectUnmap {
            /// The address it was mapped at.
            address: u64,
        } -> ();
    }

    /// Streams and the context as a whole.
    family StreamCommands {
        /// Makes a stream.
        posted 32 stream_create: StreamCreate {
            /// Its number, unused so far.
            stream: u32,
            /// `CUstream_flags`: 1 is non-blocking, else it synchronises with its device's legacy stream. Or
            /// [`LEGACY_STREAM`](super::LEGACY_STREAM): it is that.
            flags: u32,
            /// As cuStreamCreateWithPriority.
            priority: i32,
            /// Of which context it is, see [`device_of`](super::device_of). If that is a green one, the variable part is the
            /// [`PartLevel`]s of its part of the GPU.
            context: u32,
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
        /// Answers when everything is done that the client posted before to streams of a context: of a device with those of its
        /// green ones.
        awaited 37 context_synchronize: ContextSynchronize {
            /// Which, or [`ALL_DEVICES`](super::ALL_DEVICES).
            context: u32,
            /// Zero.
            reserved: u32,
        } -> ();
    }

    /// Parts of the GPU: sets of its multiprocessors, which green contexts have.
    family PartCommands {
        /// What a part has. The variable part is its [`PartLevel`]s; without any it is the whole GPU.
        awaited 38 part_look: PartLook {} -> PartShape;
        /// How a part, named as above, would be split. Nothing is made.
        awaited 39 part_split: PartSplit {
            /// `minCount` of cuDevSmResourceSplitByCount.
            least: u32,
            /// `CUdevSmResourceSplit_flags`.
            flags: u32,
            /// How many groups are wanted; 0 asks how many there could be.
            groups: u32,
            /// Zero.
            reserved: u32,
        } -> PartSplitReply;
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
        /// What the compiler said of errors in the image, from the `first` byte of it: the variable part of the answer has as much as fits.
        awaited 69 image_errors: ImageErrors {
            /// Which image.
            image: u32,
            /// How many bytes to skip.
            first: u32,
        } -> ImageErrorsReply;
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

    /// Graphs: nodes described by the client, to be launched as one.
    family GraphCommands {
        /// More of a graph: the variable part is a stretch of records. Each is a node, behind the node before it; their streams
        /// mean nothing.
        posted 96 graph_append: GraphAppend {
            /// Its number, unused so far or appended to before.
            graph: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// The graph is whole: make it launchable.
        awaited 97 graph_instantiate: GraphInstantiate {
            /// Which.
            graph: u32,
            /// Zero.
            reserved: u32,
            /// `CUgraphInstantiate_flags`
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
        /// From its next launch on, a launchable graph is what was appended since it was made launchable or updated.
        posted 100 graph_update: GraphUpdate {
            /// Which.
            graph: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Among a graph's records: what the next node comes behind. The variable part has two words for each: its number,
        /// from 0 in the order of records, and a `CUgraphEdgeData`.
        posted 101 graph_dependencies: GraphDependencies {
            /// 0: these alone. 1: these too.
            adds: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Among a graph's records: a node that does nothing.
        posted 102 graph_empty: GraphEmpty {} -> ();
        /// Among a graph's records: a value that kernels can set. Where this number is among their parameters, the driver's
        /// own takes its place.
        posted 103 graph_condition: GraphCondition {
            /// A number that the client chose.
            condition: u64,
            /// The value at every launch, if the flags say so.
            value: u32,
            /// 1: it gets its value at every launch.
            flags: u32,
        } -> ();
        /// Among a graph's records: a node that runs graphs as a condition says. As many bodies follow.
        posted 104 graph_conditional: GraphConditional {
            /// Which condition.
            condition: u64,
            /// `CUgraphConditionalNodeType`
            kind: u32,
            /// How many graphs.
            bodies: u32,
        } -> ();
        /// Among a graph's records: until [`GraphBodyEnd`], those of a graph of the conditional node before.
        posted 105 graph_body: GraphBody {
            /// Which of them.
            index: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Ends a [`GraphBody`].
        posted 106 graph_body_end: GraphBodyEnd {} -> ();
    }

    /// Memory and events that other clients of the same function may have, too. Who knows a secret may.
    family IpcCommands {
        /// Lets others import an allocation or an object. Asked again, the answer is the same.
        awaited 112 memory_export: MemoryExport {
            /// Where the allocation begins, or which object.
            home: u64,
        } -> SecretReply;
        /// Makes memory that a client of the function exported an object of this one, too.
        awaited 113 memory_import: MemoryImport {
            /// Names the object here, as [`ObjectCreate`]'s.
            home: u64,
            /// Its length.
            bytes: u64,
            /// What the export was answered.
            secret: [u64; 2],
            /// The client that exported it.
            exporter: u64,
        } -> ();
        /// Lets others import an event that was made with `CU_EVENT_INTERPROCESS`. Asked again, the answer is the same.
        awaited 114 event_export: EventExport {
            /// Which.
            event: u32,
            /// Zero.
            reserved: u32,
        } -> SecretReply;
        /// Gives a number to an event that a client of the function exported.
        awaited 115 event_import: EventImport {
            /// Its number here, unused so far.
            event: u32,
            /// Zero.
            reserved: u32,
            /// What the export was answered.
            secret: [u64; 2],
            /// The client that exported it.
            exporter: u64,
        } -> ();
    }

    /// Arrays, and the texture and surface objects through which kernels reach them. Their handles are the driver's own, and the same on
    /// every GPU that the client goes to.
    family ArrayCommands {
        /// Makes an array, or one with several levels, which is cleared. The answer says how much memory it counts as.
        awaited 128 array_create: ArrayCreate {
            /// Its number, unused so far.
            array: u32,
            /// `CUarray_format`
            format: u32,
            /// 1, 2 or 4.
            channels: u32,
            /// `CUDA_ARRAY3D_*`
            flags: u32,
            /// Elements of a row.
            width: u64,
            /// Rows; 0 for one dimension.
            height: u64,
            /// Slices, or layers; 0 for one or two dimensions.
            depth: u64,
            /// Of a mipmapped array; 0 for one that has none.
            levels: u32,
            /// Zero.
            reserved: u32,
        } -> ArrayReply;
        /// The array is gone once all earlier work of the client is done.
        posted 129 array_destroy: ArrayDestroy {
            /// Which.
            array: u32,
            /// Zero.
            reserved: u32,
        } -> ();
        /// Copies a box from or to an array, or between two.
        posted 130 array_copy: ArrayCopy {
            /// What is written.
            destination: CopyEnd,
            /// What is read.
            source: CopyEnd,
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
        /// Makes a texture object; the answer is the driver's handle.
        awaited 131 texture_create: TextureCreate {
            /// What is read through it.
            resource: TextureResource,
            /// How it is read.
            sampler: Sampler,
            /// As what it is seen.
            view: ResourceView,
        } -> HandleReply;
        /// The texture object is gone once all earlier work of the client is done.
        posted 132 texture_destroy: TextureDestroy {
            /// The driver's handle.
            handle: u64,
        } -> ();
        /// Makes a surface object; the answer is the driver's handle.
        awaited 133 surface_create: SurfaceCreate {
            /// Of which array.
            array: u32,
            /// Of which level.
            level: u32,
        } -> HandleReply;
        /// The surface object is gone once all earlier work of the client is done.
        posted 134 surface_destroy: SurfaceDestroy {
            /// The driver's handle.
            handle: u64,
        } -> ();
    }
}
