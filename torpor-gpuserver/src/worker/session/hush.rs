//! What a session does for the [quiet](crate::worker::gpu::quiet) of the GPU: it launches nothing while another one keeps it, and waits for it
//! before it has the driver do what waits for every kernel.

use crate::worker::gpu::fence::Fence;
use crate::worker::gpu::quiet::{Silence, Windows};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::pause::WATCH_NAP;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a session keeps its core for it: kernels that were just launched have mostly ended by then.
const AT_ONCE: Duration = Duration::from_micros(100);

/// How long a session waits for quiet that can do nothing for others meanwhile: then it goes without, and the driver waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last window of another session's, and the client's kernels that had not ended when it was last looked.
#[derive(Debug, Default)]
pub(crate) struct Hush {
    window: u64,
    fences: Vec<Fence>,
}

/// A session's wait for quiet.
#[derive(Debug)]
pub(crate) struct Hushing {
    /// Its own kernels that have not ended, once they are known: it launches none meanwhile, and nobody else need wait for them.
    own: Option<Vec<Fence>>,
    windows: Windows,
}

impl Hushing {
    pub(crate) fn new() -> Self {
        Self { own: None, windows: Windows::new() }
    }
}

impl Session {
    /// Whether another session keeps the GPU quiet: this one launches nothing then, and says once its kernels have ended.
    ///
    /// # Errors
    /// The context's.
    #[inline]
    pub(crate) fn is_hushed(&mut self) -> Result<bool, Halt> {
        match self.shared.quiet.kept_by_other(self.link.client) {
            None => Ok(false),
            Some(window) => self.hush(window).map(|()| true),
        }
    }

    #[cold]
    fn hush(&mut self, window: u64) -> Result<(), Halt> {
        if self.hush.window != window {
            self.hush = Hush { window, fences: self.streams.fence_clients()? };
        }
        if self.streams.fences.all_reached(&mut self.hush.fences) {
            self.link.hushed.store(window, Ordering::Release);
        }
        self.poll()
    }

    /// Waits as long as another session keeps the GPU quiet.
    ///
    /// # Errors
    /// The context's.
    pub(crate) fn stay_hushed(&mut self) -> Result<(), Halt> {
        while !self.is_interrupted() && self.is_hushed()? {
            // Its kernels may wait for the rest of its memory.
            self.keep_bringing(false)?;
            std::thread::sleep(WATCH_NAP);
        }
        Ok(())
    }

    /// Quiet, for what a command does next that the driver waits for every kernel over. The command has done nothing yet.
    ///
    /// # Errors
    /// [`Halt::Parked`], if it is to be executed again when it is quiet; why it waited in vain; the context's.
    pub(crate) fn silence(&mut self) -> Result<Silence, Halt> {
        if let Some(silence) = self.parking.take_silence() {
            return Ok(silence);
        }
        let (mut hushing, began) = (Hushing::new(), Instant::now());
        while began.elapsed() < AT_ONCE {
            if let Some(silence) = self.seek_silence(&mut hushing)? {
                return Ok(silence);
            }
            std::hint::spin_loop();
        }
        Err(self.parking.park_until_quiet(hushing))
    }

    /// As [`Self::silence`], for what cannot be parked. `None` if it was not to be had for long.
    ///
    /// # Errors
    /// [`Halt::Interrupted`]; the context's.
    pub(crate) fn wait_for_silence(&mut self) -> Result<Option<Silence>, Halt> {
        let (mut hushing, deadline) = (Hushing::new(), Instant::now() + PATIENCE);
        loop {
            if let Some(silence) = self.seek_silence(&mut hushing)? {
                return Ok(Some(silence));
            }
            if self.is_interrupted() {
                return Err(Halt::Interrupted);
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            self.is_hushed()?;
            self.keep_bringing(false)?;
            std::thread::sleep(WATCH_NAP);
        }
    }

    /// Looks whether it is quiet, for the command that is parked. True if it is, and stays so until the command has been executed again.
    ///
    /// # Errors
    /// The context's.
    pub(crate) fn come_to_quiet(&mut self, hushing: &mut Hushing) -> Result<bool, Halt> {
        // Its kernels may wait for the rest of its memory.
        self.keep_bringing(false)?;
        let silence = self.seek_silence(hushing)?;
        let is_quiet = silence.is_some();
        silence.into_iter().for_each(|silence| self.parking.keep_silence(silence));
        Ok(is_quiet)
    }

    fn seek_silence(&mut self, hushing: &mut Hushing) -> Result<Option<Silence>, Halt> {
        let own = match &mut hushing.own {
            Some(own) => own,
            none => none.insert(self.streams.fence_clients()?),
        };
        if !self.streams.fences.all_reached(own) {
            return Ok(None);
        }
        Ok(self.shared.look_for_quiet(&mut hushing.windows, self.link.client))
    }
}
