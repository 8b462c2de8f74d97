//! Where managed memory should be, and what was said of it. Of other memory that cannot be said: the value is invalid, as
//! the driver has it on systems where GPUs do not reach ordinary memory.

use super::argument::{In, Out};
use super::{cuda_functions, stream_functions};
use crate::core::{Advice, CudaResult, NO_DEVICE, Place, RangeFacts, StreamHandle, client};
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;

/// `CUmemLocation`, `cudaMemLocation`: passed in one register.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Location {
    kind: i32,
    id: i32,
}

impl Location {
    pub(crate) fn place(self) -> CudaResult<Place> {
        Place::of_location(self.kind, self.id)
    }
}

/// `cuMemAdvise`, `cudaMemAdvise`
pub(crate) fn advise(
    address: u64,
    bytes: usize,
    advice: u32,
    place: impl FnOnce() -> CudaResult<Place>,
) -> CudaResult<()> {
    client()?.advise(address, bytes as u64, Advice::of(advice, place)?)
}

/// `cuMemPrefetchAsync`, `cudaMemPrefetchAsync`
pub(crate) fn prefetch(address: u64, bytes: usize, place: Place, stream: StreamHandle) -> CudaResult<()> {
    let range = AddressRange { address, bytes: bytes as u64 };
    client()?.prefetch(&[(range, place)], stream.find()?)
}

/// `cuMemRangeGetAttribute`, `cudaMemRangeGetAttribute`
pub(crate) fn range_attribute(
    data: Out<u8>,
    data_bytes: usize,
    attribute: u32,
    (address, bytes): (u64, usize),
) -> CudaResult<()> {
    put(&client()?.range_facts(address, bytes as u64)?, attribute, data.cast(), data_bytes)
}

/// `cuMemRangeGetAttributes`, `cudaMemRangeGetAttributes`
pub(crate) fn range_attributes(
    data: In<Out<u8>>,
    data_bytes: In<usize>,
    attributes: In<u32>,
    count: usize,
    (address, bytes): (u64, usize),
) -> CudaResult<()> {
    let facts = client()?.range_facts(address, bytes as u64)?;
    if count == 0 {
        return Err(CudaError::INVALID_VALUE);
    }
    let places = data.slice(count)?.into_iter().zip(data_bytes.slice(count)?);
    for (attribute, (place, bytes)) in attributes.slice(count)?.into_iter().zip(places) {
        put(&facts, attribute, place.cast(), bytes)?;
    }
    Ok(())
}

/// Writes a `CUmem_range_attribute`.
fn put(facts: &RangeFacts, attribute: u32, data: Out<i32>, data_bytes: usize) -> CudaResult<()> {
    let (preferred, prefetched) = (Place::location(facts.preferred), Place::location(facts.prefetched_to));
    let value = match attribute {
        1 => i32::from(facts.is_read_mostly),
        2 => Place::number(facts.preferred),
        3 => {
            if data_bytes == 0 || !data_bytes.is_multiple_of(size_of::<i32>()) {
                return Err(CudaError::INVALID_VALUE);
            }
            let devices = facts.accessed_by.iter().map(|&place| Place::number(Some(place)));
            let filled = devices.chain(std::iter::repeat(NO_DEVICE));
            return data.put_all(filled.take(data_bytes / size_of::<i32>()));
        }
        4 => Place::number(facts.prefetched_to),
        5 => preferred.0,
        6 => preferred.1,
        7 => prefetched.0,
        8 => prefetched.1,
        _ => return Err(CudaError::INVALID_VALUE),
    };
    if data_bytes == size_of::<i32>() { data.put(value) } else { Err(CudaError::INVALID_VALUE) }
}

/// Many ranges in one call.
#[derive(Clone, Copy)]
pub(crate) struct RangeBatch {
    pub(crate) addresses: In<u64>,
    pub(crate) sizes: In<usize>,
    pub(crate) count: usize,
    pub(crate) flags: u64,
}

/// Places for the ranges of a batch, each with the number of the first range that it is for.
#[derive(Clone, Copy)]
pub(crate) struct PlaceBatch {
    pub(crate) locations: In<Location>,
    pub(crate) first: In<usize>,
    pub(crate) count: usize,
}

impl RangeBatch {
    fn ranges(self) -> CudaResult<Vec<AddressRange>> {
        if self.count == 0 || self.flags != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        let range = |(address, bytes): (u64, usize)| AddressRange { address, bytes: bytes as u64 };
        let sizes = self.sizes.slice(self.count)?;
        Ok(self.addresses.slice(self.count)?.into_iter().zip(sizes).map(range).collect())
    }

    /// `cuMemDiscardBatchAsync`, `cudaMemDiscardBatchAsync`
    pub(crate) fn discard(self, stream: StreamHandle) -> CudaResult<()> {
        let (client, stream) = (client()?, stream.find()?);
        if stream.is_legacy() {
            return Err(CudaError::INVALID_VALUE);
        }
        client.discard(&self.ranges()?, stream)
    }

    /// `cuMemPrefetchBatchAsync` and `cuMemDiscardAndPrefetchBatchAsync`, with those of the runtime.
    pub(crate) fn prefetch(self, places: PlaceBatch, stream: StreamHandle) -> CudaResult<()> {
        let (client, stream) = (client()?, stream.find()?);
        let ranges = self.ranges()?;
        let first = places.first.slice(places.count)?;
        let is_right = !stream.is_legacy()
            && first.first() == Some(&0)
            && first.is_sorted_by(|one, next| one < next)
            && first.last().is_some_and(|&last| last < self.count);
        if !is_right {
            return Err(CudaError::INVALID_VALUE);
        }
        let places = places.locations.slice(places.count)?.into_iter().map(Location::place);
        let places = places.collect::<CudaResult<Vec<_>>>()?;
        let place_of = |number: usize| places[first.partition_point(|&first| first <= number) - 1];
        let ranges: Vec<_> =
            ranges.into_iter().enumerate().map(|(number, range)| (range, place_of(number))).collect();
        client.prefetch(&ranges, stream)
    }
}

cuda_functions! {
    fn cuMemAdvise(address: u64, bytes: usize, advice: u32, device: i32) {
        advise(address, bytes, advice, || Place::of_number(device))
    }

    fn cuMemAdvise_v2(address: u64, bytes: usize, advice: u32, location: Location) {
        advise(address, bytes, advice, || location.place())
    }

    fn cuMemRangeGetAttribute(data: Out<u8>, data_bytes: usize, attribute: u32, address: u64, bytes: usize) {
        range_attribute(data, data_bytes, attribute, (address, bytes))
    }

    fn cuMemRangeGetAttributes(
        data: In<Out<u8>>, data_bytes: In<usize>, attributes: In<u32>, count: usize, address: u64, bytes: usize,
    ) {
        range_attributes(data, data_bytes, attributes, count, (address, bytes))
    }
}

stream_functions! {
    fn cuMemPrefetchAsync / cuMemPrefetchAsync_ptsz(address: u64, bytes: usize, device: i32, @ stream) {
        prefetch(address, bytes, Place::of_number(device)?, stream)
    }

    fn cuMemPrefetchAsync_v2 / cuMemPrefetchAsync_v2_ptsz(
        address: u64, bytes: usize, location: Location, flags: u32, @ stream,
    ) {
        if flags != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        prefetch(address, bytes, location.place()?, stream)
    }

    fn cuMemDiscardBatchAsync / cuMemDiscardBatchAsync_ptsz(
        addresses: In<u64>, sizes: In<usize>, count: usize, flags: u64, @ stream,
    ) {
        RangeBatch { addresses, sizes, count, flags }.discard(stream)
    }

    fn cuMemPrefetchBatchAsync / cuMemPrefetchBatchAsync_ptsz(
        addresses: In<u64>, sizes: In<usize>, count: usize, locations: In<Location>, first: In<usize>,
        place_count: usize, flags: u64, @ stream,
    ) {
        let places = PlaceBatch { locations, first, count: place_count };
        RangeBatch { addresses, sizes, count, flags }.prefetch(places, stream)
    }

    /// What is discarded may stay until it is prefetched.
    fn cuMemDiscardAndPrefetchBatchAsync / cuMemDiscardAndPrefetchBatchAsync_ptsz(
        addresses: In<u64>, sizes: In<usize>, count: usize, locations: In<Location>, first: In<usize>,
        place_count: usize, flags: u64, @ stream,
    ) {
        let places = PlaceBatch { locations, first, count: place_count };
        RangeBatch { addresses, sizes, count, flags }.prefetch(places, stream)
    }
}
