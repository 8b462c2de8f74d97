//! Special registers: `%tid.x` and its kin.

use super::decode::Decoder;
use super::error::PtxError;
use super::instruction::{Handler, handler};
use super::launch::Shared;
use super::registers::Lane;

/// A special register that keeps its value while a block runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Special {
    Thread(u8),
    BlockSize(u8),
    Block(u8),
    GridSize(u8),
    Lane,
    Warp,
    Warps,
    LanesEqual,
    LanesLess,
    LanesLessOrEqual,
    LanesGreater,
    LanesGreaterOrEqual,
    DynamicShared,
    TotalShared,
    Multiprocessor,
    Multiprocessors,
    Zero,
    One,
}

impl Special {
    /// The special register of this name, if it is one that cannot change while a block runs.
    pub(super) fn named(name: &str) -> Option<Self> {
        if let Some((base, axis)) = name.rsplit_once('.') {
            let axis = match axis {
                "x" => 0,
                "y" => 1,
                "z" => 2,
                _ => return None,
            };
            return Some(match base {
                "%tid" => Self::Thread(axis),
                "%ntid" => Self::BlockSize(axis),
                "%ctaid" => Self::Block(axis),
                "%nctaid" => Self::GridSize(axis),
                "%clusterid" => Self::Block(axis),
                "%nclusterid" => Self::GridSize(axis),
                "%cluster_ctaid" => Self::Zero,
                "%cluster_nctaid" => Self::One,
                _ => return None,
            });
        }
        Some(match name {
            "%laneid" => Self::Lane,
            "%warpid" => Self::Warp,
            "%nwarpid" => Self::Warps,
            "%lanemask_eq" => Self::LanesEqual,
            "%lanemask_lt" => Self::LanesLess,
            "%lanemask_le" => Self::LanesLessOrEqual,
            "%lanemask_gt" => Self::LanesGreater,
            "%lanemask_ge" => Self::LanesGreaterOrEqual,
            "%dynamic_smem_size" => Self::DynamicShared,
            "%total_smem_size" => Self::TotalShared,
            "%smid" => Self::Multiprocessor,
            "%nsmid" => Self::Multiprocessors,
            "%gridid" | "%cluster_ctarank" | "%is_explicit_cluster" => Self::Zero,
            "%cluster_nctarank" => Self::One,
            _ => return None,
        })
    }

    /// Whether it differs from block to block.
    pub(super) fn varies_by_block(self) -> bool {
        matches!(self, Self::Block(_) | Self::Multiprocessor)
    }

    /// Its value in one thread of a block.
    pub(super) fn value(
        self,
        launch: &Shared<'_>,
        static_shared_bytes: usize,
        block: [u32; 3],
        thread: u32,
    ) -> u64 {
        let lane = thread % 32;
        let [x, y, _] = launch.block;
        let value = match self {
            Self::Thread(0) => thread % x,
            Self::Thread(1) => thread / x % y,
            Self::Thread(_) => thread / x / y,
            Self::BlockSize(axis) => launch.block[usize::from(axis)],
            Self::Block(axis) => block[usize::from(axis)],
            Self::GridSize(axis) => launch.grid[usize::from(axis)],
            Self::Lane => lane,
            Self::Warp => thread / 32,
            Self::Warps => launch.block.iter().product::<u32>().div_ceil(32),
            Self::LanesEqual => 1 << lane,
            Self::LanesLess => (1 << lane) - 1,
            Self::LanesLessOrEqual => u32::MAX >> (31 - lane),
            Self::LanesGreater => !(u32::MAX >> (31 - lane)),
            Self::LanesGreaterOrEqual => u32::MAX << lane,
            Self::DynamicShared => return launch.dynamic_shared_bytes as u64,
            Self::TotalShared => return (launch.dynamic_shared_bytes + static_shared_bytes) as u64,
            Self::Multiprocessor => launch.multiprocessor_of(block),
            Self::Multiprocessors => launch.all_multiprocessors,
            Self::Zero => 0,
            Self::One => 1,
        };
        u64::from(value)
    }
}

/// The handler of `mov` from a special register that changes while a block runs, and its width in bits.
pub(super) fn changing(name: &str) -> Option<(Handler, u32)> {
    macro_rules! splat {
        ($type:ty, |$context:ident| $value:expr) => {
            handler!(|warp, $context, instruction, mask| {
                let value: $type = $value;
                <$type>::write(&mut warp.registers, instruction.d, mask, &[value; 32]);
                Ok(())
            })
        };
    }
    Some(match name {
        "%clock" => (splat!(u32, |context| context.clock() as u32), 32),
        "%clock_hi" => (splat!(u32, |context| (context.clock() >> 32) as u32), 32),
        "%clock64" => (splat!(u64, |context| context.clock()), 64),
        "%globaltimer" => (splat!(u64, |context| context.nanoseconds()), 64),
        "%globaltimer_lo" => (splat!(u32, |context| context.nanoseconds() as u32), 32),
        "%globaltimer_hi" => (splat!(u32, |context| (context.nanoseconds() >> 32) as u32), 32),
        _ => return None,
    })
}

/// The error for a name that starts like a special register and is none.
pub(super) fn unknown(decoder: &Decoder<'_>, name: &str) -> PtxError {
    PtxError::UnknownName { line: decoder.line, name: name.to_owned() }
}
