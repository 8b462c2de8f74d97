//! What a pool has to do with other processes, and how much it may have.

use super::free::give_back;
use super::{Pool, all_blocks};
use crate::core::CudaResult;
use bytemuck::{Pod, Zeroable};
use std::sync::atomic::{AtomicU64, Ordering};
use torpor_proto::error::CudaError;

/// Whether other processes may have a pool's blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// They may not.
    #[default]
    None,
    /// They may: their pool is called so, by this process's number for it.
    Exportable {
        /// Never that of another pool.
        number: u64,
    },
    /// It is another process's.
    Imported(PoolName),
}

/// Which pool of which client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PoolName {
    /// The client's number.
    pub exporter: u64,
    /// The client's number for it.
    pub number: u64,
}

impl Sharing {
    /// Of a new pool whose blocks other processes may have.
    #[must_use]
    pub fn exportable() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self::Exportable { number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Pool {
    /// What it has to do with other processes.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        self.lock().kind.sharing
    }

    /// The pool of the block that the program has there.
    #[must_use]
    pub fn of_used(address: u64) -> Option<&'static Self> {
        let all = all_blocks();
        all.as_ref()?.get(&address).filter(|block| block.is_used).map(|block| block.pool)
    }

    /// Gives back what is kept as far as a new block would else be beyond the limit.
    pub(super) fn make_room(&self, bytes: u64) -> CudaResult<()> {
        let (kept, is_room) = {
            let mut blocks = self.lock();
            let limit = if blocks.kind.limit_bytes == 0 { u64::MAX } else { blocks.kind.limit_bytes };
            let kept = blocks.take_free(limit.saturating_sub(bytes), |_, _| true);
            (kept, blocks.reserved.now_bytes.saturating_add(bytes) <= limit)
        };
        if !kept.is_empty() {
            give_back(&kept)?;
        }
        if is_room { Ok(()) } else { Err(CudaError::OUT_OF_MEMORY) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_with_a_limit_has_no_more_than_that() {
        let pool = Pool::new(1, 0);
        assert_eq!(pool.make_room(u64::MAX), Ok(()), "there is no limit");
        pool.lock().kind.limit_bytes = 4 << 20;
        pool.lock().reserved.add(2 << 20);
        assert_eq!(pool.make_room(2 << 20), Ok(()));
        assert_eq!(pool.make_room((2 << 20) + 1), Err(CudaError::OUT_OF_MEMORY));
    }

    #[test]
    fn no_two_pools_have_one_name() {
        assert_ne!(Sharing::exportable(), Sharing::exportable());
    }
}
