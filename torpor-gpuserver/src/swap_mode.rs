//! How memory comes from the host store to a GPU: what the paper's Figure 7 compares.

use clap::ValueEnum;

/// How memory is swapped in. Each way is the one before and something more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SwapMode {
    /// All of it before the first kernel, from memory that is not page-locked
    Pageable,
    /// From page-locked memory
    Locked,
    /// Kernels wait only for the segments that they can reach
    Pipelined,
    /// Segments are grouped: copies of 8 MiB run at 54.5 of 55.2 GB/s
    Grouped,
}

impl SwapMode {
    /// From how many bytes on a group of segments is whole, if groups are to have `group_bytes`.
    #[must_use]
    pub fn group_bytes(self, group_bytes: u64) -> u64 {
        match self {
            Self::Pageable | Self::Locked => u64::MAX,
            Self::Pipelined => 1,
            Self::Grouped => group_bytes,
        }
    }

    /// Whether kernels run while memory is still on its way.
    #[must_use]
    pub fn is_pipelined(self) -> bool {
        matches!(self, Self::Pipelined | Self::Grouped)
    }
}
