//! Memory objects (cuMemCreate): what the program maps, and where.
//!
//! An object is a segment like any other, but that the program reaches it at its views alone. It has physical memory from the
//! beginning, so that the program hears at once that there is none, and is cleared when it is first mapped. While it is
//! mapped nowhere it keeps its contents, leaves the GPU with the rest, and comes back when it is mapped again.

use crate::worker::memory::segment::Backing;
use crate::worker::objects::pending::Pending;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use torpor_proto::command::{
    ObjectCommands, ObjectCreate, ObjectMap, ObjectRelease, ObjectUnmap, Outcome, Ticket,
};
use torpor_proto::error::CudaError;

impl ObjectCommands for Session {
    fn object_create(
        &mut self,
        command: ObjectCreate,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<()>, CudaError> {
        let ObjectCreate { home, bytes } = command;
        self.check_new(home, bytes)?;
        self.activate_with(bytes)?;
        self.space.allocate(home, bytes).inspect_err(|_| {
            // The limit is another one than before the client waited for its turn.
            self.shared.memory.unreserve(self.link.client, bytes);
        })?;
        self.space.set_views(home, Vec::new());
        let taken = self.take_physical(bytes);
        if taken.is_err() {
            drop(self.space.free(home)?);
        }
        let backing = Backing::new(taken?, &self.shared.memory, self.link.client);
        if let Some((_, segment)) = self.space.segment_of_mut(home) {
            segment.backing = Some(backing);
        }
        self.tell_memory();
        Ok(Outcome::done(()))
    }

    fn object_release(&mut self, command: ObjectRelease, _: &[u8]) -> Result<(), CudaError> {
        if !views_of(self, command.home)?.is_empty() {
            return Err(CudaError::INVALID_VALUE);
        }
        Ok(self.free_segment(command.home)?)
    }

    fn object_map(&mut self, command: ObjectMap, _: &[u8], ticket: Ticket) -> Result<Outcome<()>, CudaError> {
        let ObjectMap { home, address } = command;
        let mut views = views_of(self, home)?;
        let bytes = self.space.segment_of(home).map_or(0, |(_, segment)| segment.bytes);
        self.space.check_view(address, bytes)?;
        reserve_for_view(self, home, bytes)?;
        views.push(address);
        self.space.set_views(home, views);
        let fence = match show(self, home, address, bytes) {
            Ok(()) => self.streams.fence_setup(),
            Err(halt) => Err(halt.into()),
        };
        if fence.is_err() {
            hide(self, home, address)?;
        }
        self.tell_memory();
        match fence? {
            None => Ok(Outcome::done(())),
            Some(fence) => {
                self.pending.push(Pending::Answer(ticket, vec![fence]));
                Ok(Outcome::Pending)
            }
        }
    }

    fn object_unmap(&mut self, command: ObjectUnmap, _: &[u8]) -> Result<(), CudaError> {
        let home = self.space.home_of_view(command.address).ok_or(CudaError::INVALID_VALUE)?;
        self.spare_swap_in(home)?;
        self.drain()?;
        hide(self, home, command.address)
    }
}

/// Where an object is mapped.
///
/// # Errors
/// `CUDA_ERROR_INVALID_VALUE` if there is no such object.
fn views_of(session: &Session, home: u64) -> Result<Vec<u64>, CudaError> {
    let segment = session.space.segment_of(home).filter(|&(start, _)| start == home);
    segment.and_then(|(_, segment)| segment.views.clone()).ok_or(CudaError::INVALID_VALUE)
}

/// Becomes active and reserves memory for an object that has none.
fn reserve_for_view(session: &mut Session, home: u64, bytes: u64) -> Result<(), Halt> {
    session.activate()?;
    if !views_of(session, home)?.is_empty() {
        // It may be about to come without the new view.
        session.spare_swap_in(home)?;
    }
    let (has_memory, is_shared) = session
        .space
        .segment_of(home)
        .map_or((false, false), |(_, segment)| (segment.backing.is_some(), segment.shared.is_some()));
    match is_shared {
        _ if has_memory => Ok(()),
        true => session.activate_in(home),
        false => session.activate_with(bytes),
    }
}

/// Puts an object's memory, or what is reserved for it, behind a view; what is not there yet arrives behind the setup stream.
fn show(session: &mut Session, home: u64, address: u64, bytes: u64) -> Result<(), Halt> {
    let (_, segment) = session.space.segment_of_mut(home).ok_or(CudaError::UNKNOWN)?;
    let is_filled = segment.is_filled();
    match segment.backing.as_mut() {
        Some(backing) => {
            backing.map(address)?;
            backing.is_filled = true;
            if is_filled {
                return Ok(());
            }
        }
        None => session.back(home, bytes)?,
    }
    let posted = session.post_contents(home).and_then(|_| session.arrive(home));
    if posted.is_err() {
        session.unback(home)?;
    }
    posted
}

/// Takes an object away from a view. The device must have done with it.
fn hide(session: &mut Session, home: u64, address: u64) -> Result<(), CudaError> {
    let mut views = views_of(session, home)?;
    views.retain(|&view| view != address);
    session.space.set_views(home, views);
    match session.space.segment_of_mut(home).and_then(|(_, segment)| segment.backing.as_mut()) {
        Some(backing) => backing.unmap(address),
        None => Ok(()),
    }
}
