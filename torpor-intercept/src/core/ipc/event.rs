//! Events of other processes, and this one's for them (`cuIpcGetEventHandle`, `cuIpcOpenEventHandle`).

use super::IpcHandle;
use crate::core::{CudaResult, Event, client};
use torpor_proto::command::{EventExport, EventImport};
use torpor_proto::error::CudaError;

impl Event {
    /// `cuIpcGetEventHandle`.
    ///
    /// # Errors
    /// `INVALID_HANDLE` for an event that was not created for that.
    pub fn export(&'static self) -> CudaResult<IpcHandle> {
        let client = client()?;
        client.begin_sharing()?;
        let secret = client.call(&EventExport { event: self.number, reserved: 0 }, &[])?.reply.secret;
        Ok(IpcHandle {
            kind: IpcHandle::EVENT,
            secret,
            exporter: client.id,
            bytes: 0,
            offset: 0,
            pool: 0,
            reserved: 0,
        })
    }

    /// `cuIpcOpenEventHandle`: an event of this process, which is another one's, too.
    ///
    /// # Errors
    /// `INVALID_CONTEXT` if it is of this process; `INVALID_VALUE` if the handle is none (any more), or another function's.
    pub fn open(handle: &IpcHandle) -> CudaResult<&'static Self> {
        let client = client()?;
        let IpcHandle { kind, secret, exporter, .. } = *handle;
        if kind != IpcHandle::EVENT {
            return Err(CudaError::INVALID_VALUE);
        }
        if exporter == client.id {
            return Err(CudaError::INVALID_CONTEXT);
        }
        client.begin_sharing()?;
        Self::import(|event| {
            client.call(&EventImport { event, reserved: 0, secret, exporter }, &[]).map(drop)
        })
    }
}
