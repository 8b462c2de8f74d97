//! A PTX interpreter: parses PTX text, decodes it to a compact form and runs kernels on the CPU.
//!
//! Contract: what [`Module::parse`] accepts runs; an instruction, a modifier or a declaration that is missing is a
//! named [`PtxError`] there. Results follow the PTX ISA manual (IEEE rounding where it says so, fused `fma`, `.ftz`);
//! the `.approx` functions are evaluated with the host's library and rounded once, so they are closer to the true
//! value than a GPU's and differ from it in the last bits.
//!
//! How a kernel runs: the 32 lanes of a warp share one program counter while they agree; when they part at a branch,
//! the lanes that are behind go first, so they meet again (`warp.rs`). The warps of a block take turns on one host
//! thread and meet at barriers (`block.rs`); blocks spread over host threads (`launch.rs`). Every instruction is one
//! function over the 32 lanes, chosen when the module is parsed (`decode.rs`).
//!
//! Limits: textures are read in one to three dimensions, with layers, and surfaces without formats; no tensor-core or asynchronous-copy instructions, no recursion, no indirect calls,
//! no dynamic parallelism; `.target` is not checked. One file per family of instructions holds both their decoding
//! and their meaning.

mod address;
mod arithmetic;
mod atomic;
mod barrier;
mod bits;
mod block;
mod compare;
mod control;
mod convert;
mod cursor;
mod decode;
mod error;
mod function;
mod half;
mod instruction;
mod join;
mod launch;
mod lexer;
mod memory;
mod module;
mod opcode;
mod operands;
mod parser;
mod program;
mod real;
mod registers;
mod rounding;
mod shuffle;
mod space;
mod special;
mod syntax;
mod system;
mod texture;
mod transfer;
mod variable;
mod warp;

#[cfg(test)]
mod tests;

pub use error::{KernelFault, MemoryFault, Position, PtxError};
pub(crate) use half::f16_to_single;
pub use launch::{Launch, Statistics};
pub use module::{Global, Kernel, Module, Parameter};
pub use space::{Access, DeviceMemory, SurfacePlace, TexturePlace, Window};
pub use system::System;
