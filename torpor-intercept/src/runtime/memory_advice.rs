//! Where managed memory should be, and what was said of it: the driver's answers.

use super::{ready, runtime_functions, stream_functions};
use crate::core::Place;
use crate::driver::argument::{In, Out};
use crate::driver::memory_advice::{
    Location, PlaceBatch, RangeBatch, advise, prefetch, range_attribute, range_attributes,
};
use torpor_proto::error::CudaError;

runtime_functions! {
    fn cudaMemAdvise(address: u64, bytes: usize, advice: u32, location: Location) {
        ready()?;
        advise(address, bytes, advice, || location.place())
    }

    /// What CUDA 12 calls `cudaMemAdvise`.
    fn cudaMemAdvise_v1(address: u64, bytes: usize, advice: u32, device: i32) {
        ready()?;
        advise(address, bytes, advice, || Place::of_number(device))
    }

    fn cudaMemRangeGetAttribute(data: Out<u8>, data_bytes: usize, attribute: u32, address: u64, bytes: usize) {
        ready()?;
        range_attribute(data, data_bytes, attribute, (address, bytes))
    }

    fn cudaMemRangeGetAttributes(
        data: In<Out<u8>>, data_bytes: In<usize>, attributes: In<u32>, count: usize, address: u64, bytes: usize,
    ) {
        ready()?;
        range_attributes(data, data_bytes, attributes, count, (address, bytes))
    }
}

stream_functions! {
    fn cudaMemPrefetchAsync / cudaMemPrefetchAsync_ptsz(
        address: u64, bytes: usize, location: Location, flags: u32, @ stream,
    ) {
        ready()?;
        if flags != 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        prefetch(address, bytes, location.place()?, stream)
    }

    /// What CUDA 12 calls `cudaMemPrefetchAsync`.
    fn cudaMemPrefetchAsync_v1 / cudaMemPrefetchAsync_v1_ptsz(address: u64, bytes: usize, device: i32, @ stream) {
        ready()?;
        prefetch(address, bytes, Place::of_number(device)?, stream)
    }

    fn cudaMemDiscardBatchAsync / cudaMemDiscardBatchAsync_ptsz(
        addresses: In<u64>, sizes: In<usize>, count: usize, flags: u64, @ stream,
    ) {
        ready()?;
        RangeBatch { addresses, sizes, count, flags }.discard(stream)
    }

    fn cudaMemPrefetchBatchAsync / cudaMemPrefetchBatchAsync_ptsz(
        addresses: In<u64>, sizes: In<usize>, count: usize, locations: In<Location>, first: In<usize>,
        place_count: usize, flags: u64, @ stream,
    ) {
        ready()?;
        let places = PlaceBatch { locations, first, count: place_count };
        RangeBatch { addresses, sizes, count, flags }.prefetch(places, stream)
    }

    /// What is discarded may stay until it is prefetched.
    fn cudaMemDiscardAndPrefetchBatchAsync / cudaMemDiscardAndPrefetchBatchAsync_ptsz(
        addresses: In<u64>, sizes: In<usize>, count: usize, locations: In<Location>, first: In<usize>,
        place_count: usize, flags: u64, @ stream,
    ) {
        ready()?;
        let places = PlaceBatch { locations, first, count: place_count };
        RangeBatch { addresses, sizes, count, flags }.prefetch(places, stream)
    }
}
