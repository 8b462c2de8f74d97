//! Stub.
use std::sync::Mutex;
use torpor_proto::mapping::{Mapping, create_sealed};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) chunk: u64,
    pub(super) slot: u32,
}
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("{0}")]
    Refused(String),
    #[error("interrupted")]
    Interrupted,
    #[error("lost")]
    Lost,
}
#[derive(Debug)]
pub(super) struct Store {
    mapping: Mapping,
    free: Mutex<Vec<u32>>,
}
const SLOTS: usize = 512;
impl Store {
    pub(super) fn new() -> Self {
        let file = create_sealed("slab", (SLOTS as u64) << 21).unwrap();
        Self {
            mapping: Mapping::anywhere(&file, SLOTS << 21).unwrap(),
            free: Mutex::new((0..SLOTS as u32).rev().collect()),
        }
    }
    pub(super) fn reserve(
        &self,
        _client: u64,
        count: usize,
        _interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<Place>, StoreError> {
        let mut free = self.free.lock().unwrap();
        if free.len() < count {
            return Err(StoreError::Refused("full".to_owned()));
        }
        let at = free.len() - count;
        let mut slots = free.split_off(at);
        slots.sort();
        Ok(slots.into_iter().map(|slot| Place { chunk: u64::from(slot), slot }).collect())
    }
    pub(super) fn identify(
        &self,
        _client: u64,
        chunks: &[(u64, [u8; 32])],
        _interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<Place>, StoreError> {
        Ok(chunks.iter().map(|c| Place { chunk: c.0, slot: c.0 as u32 }).collect())
    }
    pub(super) fn lease(
        &self,
        _client: u64,
        _interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<Place>, StoreError> {
        Err(StoreError::Lost)
    }
    pub(super) fn release(&self, _client: u64, chunks: &[u64]) {
        self.free.lock().unwrap().extend(chunks.iter().map(|&c| c as u32));
    }
    pub(super) fn lease_revoked(&self, _client: u64) {}
    pub(super) fn pageable_address(&self, slot: u32) -> Option<u64> {
        self.address(slot)
    }
    pub(super) fn address(&self, slot: u32) -> Option<u64> {
        Some(self.mapping.address().as_ptr() as u64 + (u64::from(slot) << 21))
    }
    pub(super) fn hash(&self, _slot: u32) -> Option<[u8; 32]> {
        Some([0; 32])
    }
}
impl Store {
    pub(super) fn words(&self, slot: u32) -> Option<impl Iterator<Item = u64> + '_> {
        let base = self.address(slot)?;
        Some((0..(1u64 << 18)).map(move |i| unsafe { ((base + i * 8) as *const u64).read_volatile() }))
    }
}
