//! Putting commands in a stream's order.

use super::Stream;
use super::host_function::{self, Turn};
use crate::core::event::{EXTERNAL, Event};
use crate::core::{Client, CudaResult, client};
use std::sync::atomic::Ordering;
use torpor_proto::command::{Command, Copy, StreamWaitEvent};
use torpor_proto::error::CudaError;

impl Stream {
    /// Puts a command in the order of this stream: into the ring, or into the capture it is part of; behind host functions
    /// that come before it, for whose end nobody waits here.
    #[inline]
    pub(in crate::core) fn post<C: Command<Reply = ()>>(
        &'static self,
        client: &Client,
        command: &C,
        tail: &[u8],
    ) -> CudaResult<()> {
        self.post_behind(client, command, tail, None).map(|_| ())
    }

    /// As [`Self::post`], and behind what is held at the place `after`. Gives the command's own place if it is held.
    #[inline]
    pub(in crate::core) fn post_behind<C: Command<Reply = ()>>(
        &'static self,
        client: &Client,
        command: &C,
        tail: &[u8],
        after: Option<u64>,
    ) -> CudaResult<Option<u64>> {
        if self.is_capturing.load(Ordering::Relaxed) {
            return self.current_capture()?.append(self, command, tail).map(|()| None);
        }
        client.check()?;
        self.come_behind_deferred(client)?;
        // Asked when nobody else can post: what gets into the ring now comes before the synchronisation of any function
        // that is added now.
        let held = if client.post_unless(host_function::are_pending, command, tail)? {
            None
        } else {
            host_function::post_or_hold(self, client, command, tail, after)?
        };
        self.count_posted();
        Ok(held)
    }

    /// Puts a command in the order of this stream, for who has taken a turn: it waits for no host function.
    pub(in crate::core) fn post_in_turn<C: Command<Reply = ()>>(
        &'static self,
        client: &Client,
        command: &C,
        tail: &[u8],
        _turn: &Turn,
    ) -> CudaResult<()> {
        client.check()?;
        self.come_behind_deferred(client)?;
        client.post(command, tail)?;
        self.count_posted();
        Ok(())
    }

    /// As [`Self::post_in_turn`], for a copy of staged memory into an allocation of the device: nobody can tell when it is
    /// done but by the stream's later work.
    pub(in crate::core) fn post_upload(
        &'static self,
        client: &Client,
        copy: &Copy,
        _turn: &Turn,
    ) -> CudaResult<()> {
        client.check()?;
        self.come_behind_deferred_of_others(client)?;
        client.post(copy, &[])?;
        // An upload to a blocking stream is done only when the legacy stream's earlier work is, and that can be told.
        if self.lane().is_blocking() {
            self.count_posted();
        } else {
            self.progress.count_upload();
        }
        Ok(())
    }

    #[inline]
    fn count_posted(&self) {
        self.progress.count();
        if self.lane().is_blocking() {
            Self::legacy_of(self.place()).progress.count();
        }
    }

    /// `cuStreamWaitEvent`. Waiting for an event of a capture makes the stream part of it; in a capture, an external wait is
    /// made by each launch of the graph.
    ///
    /// # Errors
    /// `STREAM_CAPTURE_ISOLATION` if a capturing stream would wait for an event from outside; `CAPTURED_EVENT` for an event
    /// that was last recorded in a capture that has ended.
    pub fn wait_event(&'static self, event: &Event, flags: u32) -> CudaResult<()> {
        let client = client()?;
        self.refuse_barred()?;
        match event.captured() {
            _ if self.is_capturing() && flags & EXTERNAL != 0 => {}
            Some((capture, _)) if capture.is_over() => return Err(CudaError::CAPTURED_EVENT),
            // In the capture the event is only a name for nodes.
            Some((capture, nodes)) => {
                self.join_capture(&capture)?;
                capture.come_behind(self, &nodes);
                return client.check();
            }
            None if self.is_capturing() => {
                self.current_capture()?.invalidate();
                return Err(CudaError::STREAM_CAPTURE_ISOLATION);
            }
            None if event.is_done() => return client.check(),
            None => {}
        }
        let command = StreamWaitEvent { stream: self.number, event: event.number, flags, reserved: 0 };
        self.post_behind(client, &command, &[], event.held_record()).map(|_| ())
    }
}
