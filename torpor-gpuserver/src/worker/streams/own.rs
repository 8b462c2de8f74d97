//! The worker's own streams for a client: in one its memory is cleared and comes, in another it is looked at before it goes.
//!
//! A copy engine serves one stream as long as that has work (H200, docs/benchmarks.md). Where a client's memory comes all the time,
//! others' copies would never have their turn: so the first one takes turns with a second, in the same order as if it was one.

use crate::driver::{Device, Stream};
use crate::worker::gpu::fence::{Fence, Fences};
use crate::worker::streams::Streams;
use crate::worker::streams::live::Live;
use std::sync::Arc;
use torpor_proto::command::ALL_DEVICES;
use torpor_proto::error::CudaError;

/// The streams that no command belongs to.
#[derive(Debug)]
pub(super) struct Own {
    /// Where memory is cleared and comes.
    setup: Box<Live>,
    /// What was that before.
    other_setup: Option<Box<Live>>,
    looks: Option<Box<Live>>,
}

impl Own {
    pub(super) fn new(device: &Arc<Device>, fences: &mut Fences) -> Result<Self, CudaError> {
        Ok(Self { setup: live(device, fences)?, other_setup: None, looks: None })
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Live> {
        let Self { setup, other_setup, looks } = self;
        std::iter::once(&mut **setup).chain(other_setup.as_deref_mut()).chain(looks.as_deref_mut())
    }
}

fn live(device: &Arc<Device>, fences: &mut Fences) -> Result<Box<Live>, CudaError> {
    Live::new(Stream::new(device, 0)?, fences, ALL_DEVICES)
}

impl Streams {
    /// The setup stream, if work posted there now is in order for every stream of the client: none has work of its own.
    pub(crate) fn enter_setup_for_all(&mut self) -> Option<&Stream> {
        let Self { table, retiring, fences, .. } = &*self;
        let is_free = |live: &Live| live.follows_setup || live.is_idle(fences);
        let named = table.iter().filter_map(|(_, entry)| entry.live.as_deref());
        if self.capture.is_some() || !named.chain(retiring).all(is_free) {
            return None;
        }
        Some(self.enter_setup())
    }

    /// What is posted to a stream from now on waits for what [`Self::enter_setup_for_all`] was used for.
    pub(crate) fn follow_setup(&mut self, id: u32) -> Result<(), CudaError> {
        self.enter(id)?;
        let Self { table, own, .. } = self;
        let live = table.get_mut(id)?.live.as_deref_mut().ok_or(CudaError::INVALID_HANDLE)?;
        live.stream.wait(own.setup.record_join()?, 0)?;
        live.follows_setup = true;
        Ok(())
    }

    /// A stream that no command belongs to, for questions that name one.
    pub(crate) fn neutral(&self) -> &Stream {
        &self.own.setup.stream
    }

    /// The worker's own stream for this client.
    pub(crate) fn enter_setup(&mut self) -> &Stream {
        self.own.setup.unfenced = true;
        &self.own.setup.stream
    }

    /// Whether the setup stream has work that is not known to be done, see [`Self::check`].
    pub(crate) fn is_setting_up(&self) -> bool {
        !self.own.setup.is_idle(&self.fences)
    }

    /// A fence behind all work of the setup stream.
    pub(crate) fn fence_setup(&mut self) -> Result<Option<Fence>, CudaError> {
        self.own.setup.fence(&self.fences)
    }

    /// What is posted to the setup stream from now on lets others' copies pass, behind all that was posted there.
    pub(crate) fn change_setup(&mut self) -> Result<(), CudaError> {
        let Self { device, fences, own: Own { setup, other_setup, .. }, .. } = self;
        let other = match other_setup {
            Some(other) => other,
            None => other_setup.insert(live(device, fences)?),
        };
        other.stream.wait(setup.record_join()?, 0)?;
        other.unfenced = true;
        std::mem::swap(setup, other);
        Ok(())
    }

    /// Where memory is looked at that nothing is posted for meanwhile.
    pub(crate) fn enter_looks(&mut self) -> Result<&Stream, CudaError> {
        let Self { device, fences, own: Own { looks, .. }, .. } = self;
        let looks = match looks {
            Some(looks) => looks,
            None => looks.insert(live(device, fences)?),
        };
        looks.unfenced = true;
        Ok(&looks.stream)
    }

    /// A fence behind all looks.
    pub(crate) fn fence_looks(&mut self) -> Result<Option<Fence>, CudaError> {
        let Self { fences, own: Own { looks, .. }, .. } = self;
        looks.as_mut().map_or(Ok(None), |looks| looks.fence(fences))
    }
}
