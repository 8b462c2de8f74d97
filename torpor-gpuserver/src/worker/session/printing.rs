//! What a client's kernels print, from their launch until the client takes it.
//!
//! The driver writes text at a synchronisation of the process, and a worker has none: so an event is recorded behind each launch
//! that may print, and waited for when it is reached, which costs nothing but has the driver write. That is done before
//! any answer, so that a client that was told that its kernels have ended finds their text.

use crate::driver::Event;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use torpor_proto::completion::PAYLOAD_BYTES;
use torpor_proto::error::CudaError;
use torpor_proto::image::DriverCalls;

/// Text that is kept for a client that does not synchronise; more is lost.
const MOST_BYTES: usize = 16 << 20;

/// How long kernels that print wait for those of another client.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a client that launches one after the other keeps others waiting.
const SHARE: Duration = Duration::from_millis(2);

/// Launches of one client that print.
#[derive(Debug, Default)]
pub(crate) struct Printing {
    /// Since when it has the pen.
    pen_since: Option<Instant>,
    /// Recorded behind launches that may print, the last of each stream that is still there.
    launches: Vec<(Option<u32>, Event)>,
    text: Vec<u8>,
    is_told_of_loss: bool,
}

impl Printing {
    /// What the client has not taken.
    pub(crate) fn untaken(&self) -> &[u8] {
        &self.text
    }

    /// A stream's number may be another stream's soon.
    pub(crate) fn forget_stream(&mut self, stream: u32) {
        let of_it = self.launches.iter_mut().filter(|(known, _)| *known == Some(stream));
        of_it.for_each(|(known, _)| *known = None);
    }

    /// Whether launches that may print are not known to be over.
    #[inline]
    fn is_under_way(&self) -> bool {
        !self.launches.is_empty()
    }
}

impl Session {
    /// Before a launch, or the recording of one: waits for the pen, if the kernel may print.
    ///
    /// # Errors
    /// [`Halt::Lost`], or [`Halt::Interrupted`].
    #[inline]
    pub(crate) fn may_say(&mut self, calls: DriverCalls) -> Result<(), Halt> {
        if calls.asserts {
            self.link.may_assert.store(true, Ordering::Relaxed);
        }
        match &mut self.streams.capture {
            Some(capture) => capture.note_calls(calls),
            None if calls.prints => self.take_pen()?,
            None => {}
        }
        Ok(())
    }

    /// After a launch.
    #[inline]
    pub(crate) fn has_said(&mut self, calls: DriverCalls, stream: u32) -> Result<(), CudaError> {
        if !calls.prints || self.streams.capture.is_some() {
            return Ok(());
        }
        let launches = &mut self.printing.launches;
        let at = launches.iter().position(|(known, _)| *known == Some(stream)).unwrap_or(launches.len());
        if at == launches.len() {
            launches.push((Some(stream), Event::untimed(&self.shared.device)?));
        }
        launches[at].1.record(self.streams.enter(stream)?, 0)
    }

    fn take_pen(&mut self) -> Result<(), Halt> {
        let (shared, link) = (self.shared.clone(), self.link.clone());
        match self.printing.pen_since {
            Some(since) if since.elapsed() >= SHARE && shared.pen.is_wanted() => {
                self.drain()?;
                self.put_pen_down()?;
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let since = Instant::now();
        while !shared.pen.take(&link) {
            if since.elapsed() >= PATIENCE {
                shared.pen.do_without(&link);
                self.tell_of_loss("another client's kernel that may print does not end");
                break;
            }
            self.wait_around()?;
        }
        self.printing.pen_since = Some(Instant::now());
        Ok(())
    }

    /// Lets others print, if somebody wants to and this client's kernels that do have ended.
    #[inline]
    pub(crate) fn lend_pen(&mut self) -> Result<(), Halt> {
        if self.printing.pen_since.is_some() && self.shared.pen.is_wanted() {
            self.put_pen_down()?;
        }
        Ok(())
    }

    /// As [`Self::lend_pen`], whether or not somebody wants to.
    pub(crate) fn put_pen_down(&mut self) -> Result<(), Halt> {
        if self.printing.pen_since.is_none() {
            return Ok(());
        }
        self.read_text()?;
        if !self.printing.is_under_way() {
            self.printing.pen_since = None;
            self.shared.pen.give_up(self.link.client);
        }
        Ok(())
    }

    /// As [`Self::read_text`], for those who come by often.
    #[inline]
    pub(crate) fn read_text_if_due(&mut self) -> Result<(), Halt> {
        if self.printing.is_under_way() { self.read_text() } else { Ok(()) }
    }

    /// Reads what kernels have printed that have ended.
    ///
    /// # Errors
    /// The context's.
    pub(crate) fn read_text(&mut self) -> Result<(), Halt> {
        let before = self.printing.launches.len();
        let mut failed = Ok(());
        // All that are over together: the driver's buffer is one.
        self.printing.launches.retain(|(_, launch)| {
            match launch.query().and_then(|()| launch.synchronize()) {
                Ok(()) => false,
                Err(CudaError::NOT_READY) => true,
                Err(error) => {
                    failed = Err(error);
                    true
                }
            }
        });
        failed?;
        if self.printing.launches.len() == before {
            return Ok(());
        }
        // Before the text is read: who goes without meanwhile may have printed into it.
        let text = self.shared.console.as_ref().map_or_else(Vec::new, |console| console.take_text());
        if !self.shared.pen.is_sole_writer(self.link.client) {
            if !text.is_empty() {
                self.tell_of_loss("it may be another client's");
            }
        } else if self.printing.text.len() + text.len() > MOST_BYTES {
            self.tell_of_loss("the client does not take it");
        } else if !text.is_empty() {
            self.printing.text.extend(text);
            self.announce_text();
        }
        Ok(())
    }

    /// Takes up what the client had not taken at another worker.
    pub(crate) fn restore_text(&mut self, text: Vec<u8>) {
        self.printing.text = text;
        self.announce_text();
    }

    /// What the client takes with one answer.
    pub(crate) fn take_text(&mut self) -> Vec<u8> {
        let bytes = self.printing.text.len().min(PAYLOAD_BYTES);
        let taken = self.printing.text.drain(..bytes).collect();
        self.announce_text();
        taken
    }

    fn announce_text(&self) {
        if let Some(channel) = self.link.channel.get() {
            channel.announce_text(!self.printing.text.is_empty());
        }
    }

    fn tell_of_loss(&mut self, why: &str) {
        if !std::mem::replace(&mut self.printing.is_told_of_loss, true) {
            let (client, function) = (self.link.client, &self.link.function);
            tracing::warn!(client, %function, "text that kernels print is lost: {why}");
        }
    }
}
