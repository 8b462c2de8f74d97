//! Staging: how pageable memory reaches the GPU and comes back.
//!
//! The first part of the host range is page-locked from the start. Its first half is a ring of uploads: bytes are copied
//! in, a copy is posted, and marks in the command ring say from when the space is free again. The second half
//! is a set of chunks for downloads, each held until its bytes were copied out.

use super::channel::LOOK;
use super::profile::{Bracket, Side, Work, WorkKind};
use super::stream::{Stream, Turn};
use super::{Client, CudaResult, Remoting, copiers};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use torpor_proto::command::{Copy, StagingMark, StreamSynchronize};
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;
use torpor_proto::staging::{Copying, DOWNLOAD_BYTES, download_area, upload_area};

/// Bytes of one download: large enough for nine tenths of the bus's rate, small enough to overlap.
const CHUNK_BYTES: u64 = DOWNLOAD_BYTES;

/// Bytes of one upload at most: several threads fill it.
const UPLOAD_BYTES: u64 = 2 << 20;

/// Downloads in flight of one copy.
const DOWNLOADS_AHEAD: usize = 4;

/// Looks at what is free again before the thread sleeps.
const SPINS: u32 = 1000;

/// Between two looks at a worker that gives the pages of an idle client back.
const VACATING_NAP: Duration = Duration::from_micros(50);

/// Copies begin at a cache line.
const ALIGN_BYTES: u64 = 64;

/// The upload ring.
pub(super) struct Uploads {
    area: AddressRange,
    /// At most half of the area: the end of the area may have to be skipped.
    most_bytes: u64,
    progress: Mutex<Progress>,
}

/// Positions count bytes since the beginning; they never wrap, their place in the area does.
#[derive(Default)]
struct Progress {
    position: u64,
    marked: u64,
}

/// The download chunks.
pub(super) struct Downloads {
    area: AddressRange,
    free: Mutex<Vec<u64>>,
    freed: Condvar,
}

impl Uploads {
    pub(super) fn new(staging: AddressRange) -> Self {
        let area = upload_area(staging);
        Self { area, most_bytes: UPLOAD_BYTES.min(area.bytes / 2), progress: Mutex::default() }
    }
}

impl Downloads {
    pub(super) fn new(staging: AddressRange) -> Self {
        let area = download_area(staging);
        let chunks =
            (0..area.bytes / CHUNK_BYTES).map(|index| area.address + index * CHUNK_BYTES).rev().collect();
        Self { area, free: Mutex::new(chunks), freed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Copies pageable memory to the device in a stream's order. When it returns, the source may be changed.
    ///
    /// # Safety
    /// `source` is readable for `bytes` bytes.
    pub(super) unsafe fn upload(
        &self,
        destination: u64,
        source: *const u8,
        bytes: u64,
        stream: &'static Stream,
    ) -> CudaResult<()> {
        // Waiting for host functions while the space below is held would stop every upload.
        let turn = Turn::take(stream)?;
        let _copying = self.begin_copy()?;
        // Of any other address the worker has to say that it is wrong, which synchronising tells.
        let is_allocated =
            self.allocation_of(destination).is_ok_and(|found| found.contains(destination, bytes));
        let mut done = 0;
        while done < bytes {
            let length = (bytes - done).min(self.uploads.most_bytes);
            // Held until the copy is posted: a mark of another thread must not pass over it.
            let mut progress = self.uploads.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let staged = self.reserve_upload(&mut progress, length)?;
            // SAFETY: the source is readable (the caller's promise); the staged bytes lie in this process's host range, and
            // nobody else has them until the mark behind this copy is reached.
            unsafe {
                let to = std::ptr::with_exposed_provenance_mut::<u8>(staged as usize);
                copiers::copy(source.add(done as usize), to, length as usize);
            }
            let (destination, stream_number) = (destination + done, stream.number);
            let copy =
                Copy { destination, source: staged, bytes: length, stream: stream_number, reserved: 0 };
            if is_allocated {
                stream.post_upload(self, &copy, &turn)?;
            } else {
                stream.post_in_turn(self, &copy, &[], &turn)?;
            }
            if progress.position - progress.marked >= self.uploads.area.bytes / 8 {
                self.mark_uploads(&mut progress)?;
            }
            done += length;
        }
        Ok(())
    }

    /// Bytes for the worker to read with the CPU, in its ring's order: `post` posts the command that reads them.
    pub(super) fn stage_for_worker(
        &self,
        bytes: &[u8],
        mut post: impl FnMut(u64, u64, u64) -> CudaResult<()>,
    ) -> CudaResult<()> {
        let _copying = self.begin_copy()?;
        let mut offset = 0;
        for piece in bytes.chunks(self.uploads.most_bytes as usize) {
            let mut progress = self.uploads.progress.lock().unwrap_or_else(PoisonError::into_inner);
            let staged = self.reserve_upload(&mut progress, piece.len() as u64)?;
            // SAFETY: the staged bytes lie in this process's host range, and nobody else has them until the mark behind
            // the command that is posted below is reached.
            unsafe {
                let to = std::ptr::with_exposed_provenance_mut::<u8>(staged as usize);
                copiers::copy(piece.as_ptr(), to, piece.len());
            }
            post(staged, offset, piece.len() as u64)?;
            if progress.position - progress.marked >= self.uploads.area.bytes / 8 {
                self.mark_uploads(&mut progress)?;
            }
            offset += piece.len() as u64;
        }
        Ok(())
    }

    /// How much [`Self::stage_for_worker`] stages in one piece.
    pub(super) fn upload_bytes(&self) -> u64 {
        self.uploads.most_bytes
    }

    /// A copy through the staging area begins, and lasts as long as the guard. Its pages stay meanwhile.
    fn begin_copy(&self) -> CudaResult<Copying<'_>> {
        let staging = self.channel.staging();
        let copying = staging.begin_copy();
        while staging.is_vacating() {
            self.check_alive()?;
            thread::sleep(VACATING_NAP);
        }
        Ok(copying)
    }

    fn reserve_upload(&self, progress: &mut Progress, bytes: u64) -> CudaResult<u64> {
        let area = self.uploads.area;
        let offset = progress.position % area.bytes;
        let skipped = if offset + bytes > area.bytes { area.bytes - offset } else { 0 };
        let taken = skipped + bytes.next_multiple_of(ALIGN_BYTES);
        let staging = self.channel.staging();
        let mut attempts = 0;
        loop {
            let released = staging.released();
            let position = progress.position + taken;
            if position - released <= area.bytes && staging.reserve(position, area.bytes) {
                break;
            }
            if progress.marked < progress.position {
                self.mark_uploads(progress)?;
            }
            if self.remoting != Remoting::Full {
                self.send_held()?;
            }
            // The worker needs microseconds to release what is done, unless the GPU is busy.
            if attempts < SPINS {
                attempts += 1;
                std::hint::spin_loop();
            } else {
                staging.wait(released, LOOK);
                self.check_alive()?;
            }
        }
        let start = (progress.position + skipped) % area.bytes;
        progress.position += taken;
        Ok(area.address + start)
    }

    fn mark_uploads(&self, progress: &mut Progress) -> CudaResult<()> {
        self.post(&StagingMark { sequence: progress.position }, &[])?;
        progress.marked = progress.position;
        Ok(())
    }

    /// Copies device memory to pageable memory in a stream's order, and waits for it.
    ///
    /// # Safety
    /// `destination` is writable for `bytes` bytes, and nobody else uses it meanwhile.
    pub(super) unsafe fn download(
        &'static self,
        destination: *mut u8,
        source: u64,
        bytes: u64,
        stream: &'static Stream,
    ) -> CudaResult<()> {
        let work = || Work::Copy { from: Side::Device, to: Side::Pageable, bytes };
        let mut bracket = Some(Bracket::begin(WorkKind::Copies, stream, work)?);
        // As with uploads: no chunk is held meanwhile.
        let turn = Turn::take(stream)?;
        let _copying = self.begin_copy()?;
        let mut in_flight = VecDeque::with_capacity(DOWNLOADS_AHEAD);
        let (mut posted, mut done) = (0, 0);
        while done < bytes {
            while posted < bytes && in_flight.len() < DOWNLOADS_AHEAD {
                // With one chunk in hand, waiting for another could wait for a thread that waits for this one.
                let Some(chunk) = self.take_chunk(in_flight.is_empty())? else { break };
                let length = (bytes - posted).min(CHUNK_BYTES);
                let copy = Copy {
                    destination: chunk.address,
                    source: source + posted,
                    bytes: length,
                    stream: stream.number,
                    reserved: 0,
                };
                stream.post_in_turn(self, &copy, &[], &turn)?;
                if posted + length == bytes {
                    bracket.take().map_or(Ok(()), |bracket| bracket.end_in(Some(&turn)))?;
                }
                let position = stream.position();
                let arrival = self.start(&StreamSynchronize { stream: stream.number, reserved: 0 }, &[])?;
                in_flight.push_back((arrival, chunk, length, position));
                posted += length;
            }
            let Some((arrival, chunk, length, position)) = in_flight.pop_front() else { break };
            arrival.wait()?;
            stream.mark_done_up_to(position);
            // SAFETY: the destination is writable (the caller's promise); the chunk is this copy's alone, and the GPU is
            // done with it.
            unsafe {
                let from = std::ptr::with_exposed_provenance::<u8>(chunk.address as usize);
                copiers::copy(from, destination.add(done as usize), length as usize);
            }
            done += length;
        }
        self.write_text();
        self.check()
    }

    /// How much [`Self::receive`] brings at once.
    pub(super) fn download_bytes(&self) -> u64 {
        CHUNK_BYTES
    }

    /// Has something copied to a chunk, whose address `post` is given, and `take` reads it there when it has come.
    pub(super) fn receive(
        &'static self,
        stream: &'static Stream,
        post: impl FnOnce(u64) -> CudaResult<()>,
        take: impl FnOnce(*const u8),
    ) -> CudaResult<()> {
        let _copying = self.begin_copy()?;
        let chunk = self.take_chunk(true)?.ok_or(CudaError::OUT_OF_MEMORY)?;
        post(chunk.address)?;
        let position = stream.position();
        self.call(&StreamSynchronize { stream: stream.number, reserved: 0 }, &[])?;
        stream.mark_done_up_to(position);
        take(std::ptr::with_exposed_provenance(chunk.address as usize));
        Ok(())
    }

    fn take_chunk(&'static self, may_wait: bool) -> CudaResult<Option<Chunk>> {
        let mut free = self.downloads.lock();
        loop {
            if let Some(address) = free.pop() {
                return Ok(Some(Chunk { address, client: self }));
            }
            if !may_wait {
                return Ok(None);
            }
            let waited = self.downloads.freed.wait_timeout(free, Duration::from_millis(100));
            free = waited.unwrap_or_else(PoisonError::into_inner).0;
            self.check_alive()?;
        }
    }
}

/// A download chunk, given back on drop.
struct Chunk {
    address: u64,
    client: &'static Client,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        debug_assert!(self.client.downloads.area.contains(self.address, CHUNK_BYTES));
        self.client.downloads.lock().push(self.address);
        self.client.downloads.freed.notify_one();
    }
}
