//! Attributes of streams: what was set is remembered and told. All but the priority are hints to the GPU, which other
//! functions share; the GPU is not told.

use super::Stream;
use crate::core::{CudaResult, client};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::error::CudaError;

/// `CUstreamAttrValue`, `cudaStreamAttrValue`: a union of 64 bytes.
pub type StreamAttributeValue = [u64; 8];

// CUstreamAttrID (cuda.h)
const ACCESS_POLICY_WINDOW: u32 = 1;
const SYNCHRONIZATION_POLICY: u32 = 3;
const PRIORITY: u32 = 8;
const MEMORY_SYNC_DOMAIN_MAP: u32 = 9;
const MEMORY_SYNC_DOMAIN: u32 = 10;

/// `CU_SYNC_POLICY_AUTO` to `CU_SYNC_POLICY_BLOCKING_SYNC`
const POLICIES: std::ops::RangeInclusive<u32> = 1..=4;

/// Those of one stream that are no other fields of it.
#[derive(Clone, Copy)]
struct Values {
    window: StreamAttributeValue,
    policy: u32,
    domain_map: [u8; 2],
    domain: u32,
}

impl Values {
    /// No window, `CU_SYNC_POLICY_AUTO`, and each domain by its own name.
    const DEFAULT: Self = Self { window: [0; 8], policy: 1, domain_map: [0, 1], domain: 0 };
}

pub(super) struct Attributes(Mutex<Values>);

impl Attributes {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Values::DEFAULT))
    }

    /// For a new stream in the place of an old one.
    pub(super) fn renew(&self) {
        *self.lock() = Values::DEFAULT;
    }

    fn lock(&self) -> MutexGuard<'_, Values> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_first_word(value: u32) -> StreamAttributeValue {
    [value.into(), 0, 0, 0, 0, 0, 0, 0]
}

impl Stream {
    /// `cuStreamGetAttribute`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for what is no attribute of streams.
    pub fn attribute(&self, attribute: u32) -> CudaResult<StreamAttributeValue> {
        let values = *self.attributes.lock();
        match attribute {
            ACCESS_POLICY_WINDOW => Ok(values.window),
            SYNCHRONIZATION_POLICY => Ok(in_first_word(values.policy)),
            PRIORITY => Ok(in_first_word(self.priority().cast_unsigned())),
            MEMORY_SYNC_DOMAIN_MAP => Ok(in_first_word(u16::from_le_bytes(values.domain_map).into())),
            MEMORY_SYNC_DOMAIN => Ok(in_first_word(values.domain)),
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    /// `cuStreamSetAttribute`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for what is no attribute of streams, or none of its values.
    pub fn set_attribute(&self, attribute: u32, value: StreamAttributeValue) -> CudaResult<()> {
        let word = value[0] as u32;
        let mut values = self.attributes.lock();
        match attribute {
            ACCESS_POLICY_WINDOW => values.window = value,
            SYNCHRONIZATION_POLICY if POLICIES.contains(&word) => values.policy = word,
            PRIORITY => {
                let (least, greatest) = client()?.device().stream_priorities;
                let priority = word.cast_signed().clamp(greatest.min(least), least.max(greatest));
                self.priority.store(priority, Ordering::Relaxed);
            }
            MEMORY_SYNC_DOMAIN_MAP => values.domain_map = [value[0] as u8, (value[0] >> 8) as u8],
            MEMORY_SYNC_DOMAIN if word <= 1 => values.domain = word,
            _ => return Err(CudaError::INVALID_VALUE),
        }
        Ok(())
    }

    /// `cuStreamCopyAttributes`.
    pub fn copy_attributes(&self, source: &Self) {
        let values = *source.attributes.lock();
        *self.attributes.lock() = values;
        self.priority.store(source.priority(), Ordering::Relaxed);
    }
}
