//! Nodes that write words and wait for words.

use super::cuda_functions;
use super::nodes::{add, set_in_exec};
use crate::core::graph::{Node, Work};
use crate::core::{Context, CudaResult, WordOperation, client, devices};
use crate::driver::argument::{In, Out};
use crate::driver::word::batched;
use std::ffi::c_void;
use torpor_proto::error::CudaError;

/// `CUDA_BATCH_MEM_OP_NODE_PARAMS`
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct WordParams {
    context: *mut c_void,
    count: u32,
    operations: In<WordOperation>,
    flags: u32,
}

const _: () =
    assert!(size_of::<WordParams>() == size_of::<cudarc::driver::sys::CUDA_BATCH_MEM_OP_NODE_PARAMS>());

impl WordParams {
    pub(super) fn work(self) -> CudaResult<Work> {
        let operations = batched(self.count, self.operations, self.flags)?;
        // What cannot be is told now.
        client()?.check_words(&operations)?;
        Ok(Work::Words(operations.into()))
    }
}

cuda_functions! {
    fn cuGraphAddBatchMemOpNode(
        node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, params: In<WordParams>,
    ) {
        add(node, graph, behind, count, params.get()?.work()?)
    }

    /// The operations stay where they are told to be until the node does something else or is gone.
    fn cuGraphBatchMemOpNodeGetParams(node: *mut c_void, params: Out<WordParams>) {
        client()?;
        let Work::Words(operations) = Node::find(node)?.work()? else { return Err(CudaError::INVALID_VALUE) };
        params.put(WordParams {
            context: Context::primary(devices::current()).handle(),
            count: operations.len() as u32,
            operations: In::to(&operations),
            flags: 0,
        })
    }

    fn cuGraphBatchMemOpNodeSetParams(node: *mut c_void, params: In<WordParams>) {
        Node::find(node)?.set_work(params.get()?.work()?)
    }

    fn cuGraphExecBatchMemOpNodeSetParams(exec: *mut c_void, node: *mut c_void, params: In<WordParams>) {
        set_in_exec(exec, node, params.get()?.work()?)
    }
}
