//! Green contexts and the parts of the GPU that they have.

use super::argument::{In, Out};
use super::cuda_functions;
use super::device::ordinal;
use crate::core::green::{self, Green, Piece};
use crate::core::{CudaResult, Event, client, contexts};
use std::ffi::c_void;
use torpor_proto::command::PartShape;
use torpor_proto::error::CudaError;

/// `CU_DEV_RESOURCE_TYPE_SM`, the only kind there is.
const MULTIPROCESSORS: u32 = 1;

/// `CU_GREEN_CTX_DEFAULT_STREAM`, without which no green context is made.
const DEFAULT_STREAM: u32 = 1;

/// `CU_STREAM_NON_BLOCKING`, without which no stream of one is made.
const NON_BLOCKING: u32 = 1;

/// `CUdevResource`. Which part it is stands where cuda.h has padding.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Resource {
    kind: u32,
    cut: u32,
    group: u32,
    padding: [u32; 21],
    multiprocessors: u32,
    least: u32,
    alignment: u32,
    rest: [u32; 9],
}

const _: () = assert!(size_of::<Resource>() == size_of::<cudarc::driver::sys::CUdevResource>());

impl Resource {
    const NOTHING: Self = Self {
        kind: 0,
        cut: 0,
        group: 0,
        padding: [0; 21],
        multiprocessors: 0,
        least: 0,
        alignment: 0,
        rest: [0; 9],
    };

    fn new(piece: Piece) -> Self {
        let Piece { cut, group, shape } = piece;
        let PartShape { multiprocessors, least, alignment, .. } = shape;
        Self { kind: MULTIPROCESSORS, cut, group, multiprocessors, least, alignment, ..Self::NOTHING }
    }

    fn check(&self) -> CudaResult<()> {
        check_kind(self.kind)
    }
}

fn check_kind(kind: u32) -> CudaResult<()> {
    if kind == MULTIPROCESSORS { Ok(()) } else { Err(CudaError::INVALID_RESOURCE_TYPE) }
}

/// The green context that is current.
fn current() -> CudaResult<&'static Green> {
    Green::of_context(contexts::find(std::ptr::null_mut())?).ok_or(CudaError::INVALID_CONTEXT)
}

cuda_functions! {
    fn cuDeviceGetDevResource(device: i32, resource: Out<Resource>, kind: u32) {
        let device = ordinal(device)?;
        check_kind(kind)?;
        resource.put(Resource::new(green::whole(device)?))
    }

    fn cuCtxGetDevResource(context: *mut c_void, resource: Out<Resource>, kind: u32) {
        client()?;
        // Elsewhere no context is the current one (driver 580).
        if context.is_null() {
            return Err(CudaError::INVALID_CONTEXT);
        }
        let context = contexts::find(context)?;
        check_kind(kind)?;
        let piece = match Green::of_context(context) {
            Some(green) => green.piece()?,
            None => green::whole(context.device())?,
        };
        resource.put(Resource::new(piece))
    }

    fn cuGreenCtxGetDevResource(green: *mut c_void, resource: Out<Resource>, kind: u32) {
        client()?;
        let green = Green::find(green)?;
        check_kind(kind)?;
        resource.put(Resource::new(green.piece()?))
    }

    fn cuDevSmResourceSplitByCount(
        groups: Out<Resource>, count: Out<u32>, of: In<Resource>, rest: Out<Resource>, flags: u32, least: u32,
    ) {
        client()?;
        let (of, wanted) = (of.get()?, count.get()?);
        of.check()?;
        let wanted = (!groups.is_null()).then_some(wanted);
        let (found, pieces, remaining) = green::split(of.cut, wanted, (flags, least))?;
        if wanted.is_some() {
            groups.put_all(pieces.into_iter().map(Resource::new))?;
            rest.put_if_wanted(remaining.map_or(Resource::NOTHING, Resource::new));
        }
        count.put(found)
    }

    fn cuDevResourceGenerateDesc(description: Out<*mut c_void>, resources: In<Resource>, count: u32) {
        client()?;
        let resources = resources.slice(count as usize)?;
        resources.iter().try_for_each(Resource::check)?;
        let pieces: Vec<_> = resources.iter().map(|resource| (resource.cut, resource.group)).collect();
        description.put(green::describe(&pieces)?)
    }

    fn cuGreenCtxCreate(green: Out<*mut c_void>, description: *mut c_void, device: i32, flags: u32) {
        let device = ordinal(device)?;
        if green.is_null() || flags != DEFAULT_STREAM {
            return Err(CudaError::INVALID_VALUE);
        }
        green.put(Green::create(description, device)?.handle())
    }

    fn cuGreenCtxDestroy(green: *mut c_void) {
        client()?;
        let green = Green::find(green)?;
        super::export_table::context_storage::reset_context_storage(green.context()?.handle());
        green.destroy()
    }

    fn cuCtxFromGreenCtx(context: Out<*mut c_void>, green: *mut c_void) {
        client()?;
        context.put(Green::find(green)?.context()?.handle())
    }

    /// Null means the current one.
    fn cuGreenCtxGetId(green: *mut c_void, id: Out<u64>) {
        client()?;
        let green = if green.is_null() { current()? } else { Green::find(green)? };
        id.put(green.context()?.id())
    }

    fn cuGreenCtxStreamCreate(stream: Out<*mut c_void>, green: *mut c_void, flags: u32, priority: i32) {
        client()?;
        let green = Green::find(green)?;
        if stream.is_null() || flags != NON_BLOCKING {
            return Err(CudaError::INVALID_VALUE);
        }
        stream.put(green.create_stream(flags, priority)?.handle())
    }

    fn cuGreenCtxRecordEvent(green: *mut c_void, event: *mut c_void) {
        client()?;
        green::record(Green::find(green)?.context()?.place(), Event::find(event)?)
    }

    fn cuGreenCtxWaitEvent(green: *mut c_void, event: *mut c_void) {
        client()?;
        green::wait(Green::find(green)?.context()?.place(), Event::find(event)?)
    }

    fn cuCtxRecordEvent(context: *mut c_void, event: *mut c_void) {
        client()?;
        green::record(contexts::find(context)?.place(), Event::find(event)?)
    }

    fn cuCtxWaitEvent(context: *mut c_void, event: *mut c_void) {
        client()?;
        green::wait(contexts::find(context)?.place(), Event::find(event)?)
    }
}
