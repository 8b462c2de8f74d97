//! Arrays, and the texture and surface objects through which kernels reach them.
//!
//! Handles of objects are the driver's own, because kernels use them as they are ([`handles`](crate::worker::gpu::handles)). What an
//! object is over is checked here: an array of the client's, or memory that all lies in its segments.

use super::memory::{note_staging, pitched, span};
use crate::driver::{Box3d, End, Pitched, Place};
use crate::worker::gpu::handles::Kind;
use crate::worker::objects::array::{ARRAY, ClientArray, Here, MIPMAPPED_ARRAY, Recipe};
use crate::worker::session::Session;
use std::rc::Rc;
use torpor_proto::command::{
    ArrayCommands, ArrayCopy, ArrayCreate, ArrayDestroy, ArrayReply, CopyEnd, END_IN_ARRAY, END_IN_MEMORY,
    HandleReply, Outcome, SurfaceCreate, SurfaceDestroy, TextureCreate, TextureDestroy, Ticket,
};
use torpor_proto::error::CudaError;

impl ArrayCommands for Session {
    fn array_create(
        &mut self,
        command: ArrayCreate,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<ArrayReply>, CudaError> {
        self.check_new_array(command.array)?;
        let bytes = self.make_array(&command)?;
        Ok(Outcome::done(ArrayReply { bytes }))
    }

    fn array_destroy(&mut self, command: ArrayDestroy, _: &[u8]) -> Result<(), CudaError> {
        self.arrays.table.get(command.array)?;
        self.drain()?;
        drop(self.arrays.remove(command.array)?);
        self.note_destroyed();
        Ok(())
    }

    fn array_copy(&mut self, command: ArrayCopy, _: &[u8]) -> Result<(), CudaError> {
        let ArrayCopy { width_bytes, height, depth, stream, .. } = command;
        let rows = (width_bytes, height, depth);
        if command.destination.place != END_IN_ARRAY && command.source.place != END_IN_ARRAY {
            return Err(CudaError::INVALID_VALUE);
        }
        if width_bytes == 0 || height == 0 || depth == 0 {
            return self.streams.peek(stream).map(drop);
        }
        self.activate()?;
        let to = Side::of(self, &command.destination, rows)?;
        let from = Side::of(self, &command.source, rows)?;
        if matches!(&to, Side::Memory(end, _) if end.place == Place::Host) {
            self.residency.answered = true;
        }
        let ranges: Vec<_> = [&to, &from].into_iter().filter_map(Side::range).collect();
        let group = self.group_of_ranges(&ranges)?;
        let extent =
            Box3d { width_bytes: width_bytes as usize, height: height as usize, depth: depth as usize };
        let entered = self.enter(stream, group)?;
        // SAFETY: boxes in arrays lie in these, ranges in memory were found in the client's segments, variables or locked
        // memory; both stay until the client's streams are idle.
        unsafe { entered.copy_box(to.end(), from.end(), extent)? };
        if let Some((address, bytes)) = to.range() {
            self.follow_into_banks(stream, address, bytes)?;
        }
        let address = |side: &Side| side.range().map_or(0, |(address, _)| address);
        note_staging(self, stream, [address(&to), address(&from)]);
        Ok(())
    }

    fn texture_create(
        &mut self,
        command: TextureCreate,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<HandleReply>, CudaError> {
        self.check_new_object()?;
        // What it is over has to be there.
        self.activate()?;
        let (resource, mut recipe) = (&command.resource, Recipe::Texture(command));
        let over = match resource.kind {
            ARRAY => Some(self.arrays.table.get(resource.array)?.clone()),
            MIPMAPPED_ARRAY => {
                let over = self.arrays.table.get(resource.array)?;
                Some(over.clone()).filter(|over| over.shape.is_mipmapped())
            }
            _ => {
                self.bring_whole()?;
                // All memory that it could read.
                let (address, bytes) = recipe.memory()?.ok_or(CudaError::INVALID_VALUE)?;
                if self.space.locate(address, bytes).is_err() {
                    recipe.end_within(self.space.bytes_from(address).ok_or(CudaError::INVALID_VALUE)?)?;
                }
                None
            }
        };
        let handle = self.make_object(recipe, over)?;
        Ok(Outcome::done(HandleReply { handle }))
    }

    fn texture_destroy(&mut self, command: TextureDestroy, _: &[u8]) -> Result<(), CudaError> {
        destroy_object(self, (Kind::Texture, command.handle))
    }

    fn surface_create(
        &mut self,
        command: SurfaceCreate,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<HandleReply>, CudaError> {
        self.check_new_object()?;
        self.activate()?;
        let over = self.arrays.table.get(command.array)?.clone();
        if !over.shape.is_for_surfaces() {
            return Err(CudaError::INVALID_VALUE);
        }
        let handle = self.make_object(Recipe::Surface(command), Some(over))?;
        Ok(Outcome::done(HandleReply { handle }))
    }

    fn surface_destroy(&mut self, command: SurfaceDestroy, _: &[u8]) -> Result<(), CudaError> {
        destroy_object(self, (Kind::Surface, command.handle))
    }
}

fn destroy_object(session: &mut Session, object: (Kind, u64)) -> Result<(), CudaError> {
    if !session.arrays.objects.contains_key(&object) {
        return Err(CudaError::INVALID_VALUE);
    }
    session.drain()?;
    drop(session.arrays.objects.remove(&object));
    session.note_destroyed();
    Ok(())
}

/// One end of a copy, all of which is the client's.
enum Side {
    /// With the length of the range.
    Memory(Pitched, u64),
    Array(Rc<Here>, CopyEnd),
}

impl Side {
    fn of(session: &mut Session, end: &CopyEnd, rows: (u64, u64, u64)) -> Result<Self, CudaError> {
        match end.place {
            END_IN_ARRAY => {
                let array: &Rc<ClientArray> = session.arrays.table.get(end.array)?;
                array.shape.check_box(end, rows)?;
                Ok(Self::Array(array.here()?, *end))
            }
            END_IN_MEMORY => {
                let memory = pitched(session, end.address, end.pitch, end.height, rows)?;
                let all_rows = span(memory.height as u64, rows.1, rows.2);
                let bytes = all_rows.and_then(|all| span(end.pitch, rows.0, all));
                Ok(Self::Memory(memory, bytes.ok_or(CudaError::INVALID_VALUE)?))
            }
            _ => Err(CudaError::INVALID_VALUE),
        }
    }

    /// Its memory, if it has an address.
    fn range(&self) -> Option<(u64, u64)> {
        match self {
            Self::Memory(end, bytes) => Some((end.address, *bytes)),
            Self::Array(..) => None,
        }
    }

    fn end(&self) -> End<'_> {
        match self {
            Self::Memory(end, _) => End::Memory(*end),
            Self::Array(array, end) => End::Array {
                array: &array.array,
                level: end.level,
                x_bytes: end.x_bytes as usize,
                y: end.y as usize,
                z: end.z as usize,
            },
        }
    }
}
