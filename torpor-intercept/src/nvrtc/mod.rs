//! NVRTC, as libraries in the program load it: what it made of a source is kept, and a source that comes again is not compiled.
//!
//! cuDNN has its attention compiled anew for each length of a sequence, and hands over the same source and options for most of
//! them. The driver's own cache (`driver/export_table/compile_cache.rs`) spares NVRTC's later stages alone; the front end, 25 to 60 ms of
//! each new length, comes before it. So here the answer is found by what NVRTC is told.
//!
//! Libraries find NVRTC's functions by `dlsym`, which is this library's (`lookup.rs`) and gives them those of `functions.rs`. A program
//! whose code was found is not compiled, unless it is asked for something else than code: then NVRTC compiles it, late.
//!
//! Only programs of encoded sources are kept (`program.rs`): they come from NVIDIA's libraries and stand for themselves, while a
//! plain source may include files that change.

mod functions;
pub mod lookup;
mod options;
mod program;
