//! Memory as data: which segments and objects there are, what of the host store is in them, and what is page-locked.

use super::saved::Saved;
use crate::chunk::CHUNK_BYTES;
use crate::worker::memory::address_space::AddressSpace;
use crate::worker::memory::host_range::HostMemory;
use crate::worker::memory::segment::ClientSegment;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use torpor_proto::control::migration::{self, Origin};

impl Saved for AddressSpace {
    const NAME: &'static str = "device memory";
    type State = Vec<migration::Segment>;

    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        Ok(session.space.segments().map(|(address, segment)| segment.save(address)).collect())
    }

    /// Up to the GPU's limit: the client's may be less by now than what it has.
    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        session.space.set_limit_bytes(session.shared.memory.limit_bytes());
        for migration::Segment { address, chunks, object, shared } in state {
            let mut segment = ClientSegment::new(chunks.len() as u64 * CHUNK_BYTES);
            segment.restore(chunks);
            match shared {
                Some(shared) if shared.origin() == Origin::Import => {
                    session.regain_import(address, segment, &shared)?;
                }
                shared => {
                    session.space.allocate(address, segment.bytes)?;
                    if let Some((_, own)) = session.space.segment_of_mut(address) {
                        *own = segment;
                    }
                    if let Some(shared) = shared {
                        session.regain_shared(address, &shared)?;
                    }
                }
            }
            if let Some(object) = object {
                session.space.set_views(address, object.views);
            }
        }
        Ok(())
    }
}

impl Saved for HostMemory {
    const NAME: &'static str = "page-locked memory";
    type State = Vec<migration::HostPiece>;

    /// What was locked beside the staging area.
    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        Ok(session.space.host.locked().collect())
    }

    /// What was locked when the client was here before, and has not been unlocked since, is locked.
    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        session.space.host.keep_locked(&state);
        for migration::HostPiece { address, bytes, number } in state {
            if !session.space.host.is_lock(address) {
                let share = session.pinned_share(bytes)?;
                session.space.host.lock_as(address, bytes, number, share)?;
            }
        }
        session.tell_pinned();
        Ok(())
    }
}
