//! Waiting for a stream's work, or for all of it.

use super::{Stream, host_function};
use crate::core::{Client, CudaResult, client, devices, pool, profile};
use std::sync::atomic::Ordering;
use torpor_proto::command::{ContextSynchronize, StreamQuery, StreamSynchronize, is_green};

impl Stream {
    /// `cuStreamSynchronize`. Answered here if nothing was posted since the last time, or uploads alone.
    ///
    /// # Errors
    /// Those of earlier posted commands; `STREAM_CAPTURE_UNSUPPORTED` while capturing.
    pub fn synchronize(&'static self) -> CudaResult<()> {
        let client = client()?;
        self.refuse_capture()?;
        self.wait_for_functions()?;
        self.synchronize_posted(client)
    }

    /// As [`Self::synchronize`], but does not wait for host functions.
    pub(in crate::core) fn synchronize_posted(&'static self, client: &'static Client) -> CudaResult<()> {
        self.refuse_capture()?;
        let position = self.position();
        // What other threads posted since may be held: then nothing is known of what is counted.
        if host_function::are_pending() {
            client.call(&StreamSynchronize { stream: self.number, reserved: 0 }, &[])?;
        } else if !self.is_done_up_to(position) && !self.defer_sync(client, position)? {
            client.call(&StreamSynchronize { stream: self.number, reserved: 0 }, &[])?;
            self.mark_done_up_to(position);
        }
        client.write_text();
        pool::release_surplus(false)?;
        client.check()
    }

    /// `cuStreamQuery`.
    ///
    /// # Errors
    /// `NOT_READY` while there is work.
    pub fn query(&'static self) -> CudaResult<()> {
        let client = client()?;
        self.refuse_capture()?;
        let position = self.position();
        if let Err(error) = self.query_functions() {
            client.check()?;
            return Err(error);
        }
        if self.is_done_up_to(position) || self.defer_sync(client, position)? {
            return client.check();
        }
        client.check()?;
        client.call(&StreamQuery { stream: self.number, reserved: 0 }, &[])?;
        self.mark_done_up_to(position);
        Ok(())
    }

    /// `cuCtxSynchronize`: waits for all work of a context, on a device with that of its green ones.
    ///
    /// # Errors
    /// Those of earlier posted commands.
    pub fn synchronize_context(place: u32) -> CudaResult<()> {
        if !devices::are_several() && !is_green(place) {
            return Self::synchronize_all();
        }
        let client = client()?;
        profile::seen_over(|| {
            // Not for those of other contexts, which may wait for what the program does next on this one.
            host_function::wait_for_context(place)?;
            let position = client.posted.load(Ordering::Acquire);
            if client.synchronized.load(Ordering::Acquire) < position {
                client.call(&ContextSynchronize { context: place, reserved: 0 }, &[])?;
            }
            client.write_text();
            pool::release_surplus(false)?;
            client.check()
        })
    }

    /// Waits for all work of the process.
    ///
    /// # Errors
    /// Those of earlier posted commands.
    pub fn synchronize_all() -> CudaResult<()> {
        client()?;
        profile::seen_over(|| {
            host_function::wait_for_all()?;
            Self::synchronize_all_posted()
        })
    }

    /// As [`Self::synchronize_all`], but does not wait for host functions.
    pub(in crate::core) fn synchronize_all_posted() -> CudaResult<()> {
        let client = client()?;
        let position = client.posted.load(Ordering::Acquire);
        if client.synchronized.load(Ordering::Acquire) < position {
            client.call(&ContextSynchronize::ALL, &[])?;
            // The synchronisation itself is one more; whoever posted meanwhile makes the numbers differ. Who sees it sees what
            // was taken from edges.
            client.synchronized.fetch_max(position + 1, Ordering::Release);
        }
        client.write_text();
        pool::release_surplus(true)?;
        client.check()
    }
}
