//! The functions of green contexts.

use super::{Export, THREAD_VARIANTS};
use crate::abi::{DevResource, In, Out};
use crate::context::find_or_current;
use crate::entry::call;
use crate::green;

#[rustfmt::skip]
exports! {
    call cuDeviceGetDevResource = "cuDeviceGetDevResource" 12040 (device: i32, resource: Out<DevResource>, kind: u32) |m| green::of_device(m, device, resource, kind);
    call cuCtxGetDevResource = "cuCtxGetDevResource" 12040 (context: u64, resource: Out<DevResource>, kind: u32) |m| green::of_context(m, context, resource, kind);
    call cuGreenCtxGetDevResource = "cuGreenCtxGetDevResource" 12040 (context: u64, resource: Out<DevResource>, kind: u32) |m| green::of_green(m, context, resource, kind);
    call cuDevSmResourceSplitByCount = "cuDevSmResourceSplitByCount" 12040 (found: Out<DevResource>, count: Out<u32>, of: In<DevResource>, rest: Out<DevResource>, flags: u32, least: u32) |m| green::split(m, found, count, of, rest, (flags, least));
    call cuDevResourceGenerateDesc = "cuDevResourceGenerateDesc" 12040 (description: Out<u64>, resources: In<DevResource>, count: u32) |m| green::describe(m, description, resources, count);
    call cuGreenCtxCreate = "cuGreenCtxCreate" 12040 (context: Out<u64>, description: u64, device: i32, flags: u32) |m| green::create(m, context, description, device, flags);
    call cuGreenCtxDestroy = "cuGreenCtxDestroy" 12040 (context: u64) |m| green::destroy(m, context);
    call cuCtxFromGreenCtx = "cuCtxFromGreenCtx" 12040 (context: Out<u64>, green: u64) |m| green::to_context(m, context, green);
    call cuGreenCtxGetId = "cuGreenCtxGetId" 12090 (context: u64, id: Out<u64>) |m| green::id(m, context, id);
    call cuGreenCtxStreamCreate = "cuGreenCtxStreamCreate" 12050 (created: Out<u64>, context: u64, flags: u32, priority: i32) |m| green::create_stream(m, created, context, flags, priority);
    call cuStreamGetGreenCtx = "cuStreamGetGreenCtx" 12040 (of: u64, context: Out<u64>) |m| green::of_stream(m, of, context);
    call cuGreenCtxRecordEvent = "cuGreenCtxRecordEvent" 12040 (context: u64, event: u64) |m| green::record_in(m, context, event);
    call cuGreenCtxWaitEvent = "cuGreenCtxWaitEvent" 12040 (context: u64, event: u64) |m| green::wait_in(m, context, event);
    call cuCtxRecordEvent = "cuCtxRecordEvent" 12050 (context: u64, event: u64) |m| green::record(m, &find_or_current(m, context)?, event);
    call cuCtxWaitEvent = "cuCtxWaitEvent" 12050 (context: u64, event: u64) |m| green::wait(m, &find_or_current(m, context)?, event);
}
