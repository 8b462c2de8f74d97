//! The graph functions that both surfaces have, with the same arguments: the driver's name, the runtime's, what both do.

/// Gives the list to a macro.
macro_rules! alike_functions {
    ($define:ident) => {
        $define! {
            cuGraphCreate cudaGraphCreate edit::create(graph: Out<*mut c_void>, flags: u32);
            cuGraphDestroy cudaGraphDestroy edit::destroy(graph: *mut c_void);
            cuGraphClone cudaGraphClone edit::clone(clone: Out<*mut c_void>, graph: *mut c_void);
            cuGraphNodeFindInClone cudaGraphNodeFindInClone edit::find_in_clone(
                found: Out<*mut c_void>, node: *mut c_void, clone: *mut c_void);
            cuGraphDestroyNode cudaGraphDestroyNode edit::destroy_node(node: *mut c_void);
            cuGraphDebugDotPrint cudaGraphDebugDotPrint edit::print(graph: *mut c_void, path: Text, flags: u32);
            cuGraphNodeGetType cudaGraphNodeGetType edit::node_type(node: *mut c_void, found: Out<u32>);

            cuGraphGetNodes cudaGraphGetNodes edges::nodes(
                graph: *mut c_void, nodes: Out<*mut c_void>, count: Out<usize>);
            cuGraphGetRootNodes cudaGraphGetRootNodes edges::roots(
                graph: *mut c_void, nodes: Out<*mut c_void>, count: Out<usize>);
            cuGraphGetEdges cudaGraphGetEdges_v1 edges::all_plain(
                graph: *mut c_void, from: Out<*mut c_void>, to: Out<*mut c_void>, count: Out<usize>);
            cuGraphGetEdges_v2 cudaGraphGetEdges edges::all(
                graph: *mut c_void, from: Out<*mut c_void>, to: Out<*mut c_void>, data: Out<EdgeData>, count: Out<usize>);
            cuGraphNodeGetDependencies cudaGraphNodeGetDependencies_v1 edges::dependencies_plain(
                node: *mut c_void, nodes: Out<*mut c_void>, count: Out<usize>);
            cuGraphNodeGetDependencies_v2 cudaGraphNodeGetDependencies edges::dependencies(
                node: *mut c_void, nodes: Out<*mut c_void>, data: Out<EdgeData>, count: Out<usize>);
            cuGraphNodeGetDependentNodes cudaGraphNodeGetDependentNodes_v1 edges::dependents_plain(
                node: *mut c_void, nodes: Out<*mut c_void>, count: Out<usize>);
            cuGraphNodeGetDependentNodes_v2 cudaGraphNodeGetDependentNodes edges::dependents(
                node: *mut c_void, nodes: Out<*mut c_void>, data: Out<EdgeData>, count: Out<usize>);
            cuGraphAddDependencies cudaGraphAddDependencies_v1 edges::connect_plain(
                graph: *mut c_void, from: In<*mut c_void>, to: In<*mut c_void>, count: usize);
            cuGraphAddDependencies_v2 cudaGraphAddDependencies edges::connect(
                graph: *mut c_void, from: In<*mut c_void>, to: In<*mut c_void>, data: In<EdgeData>, count: usize);
            cuGraphRemoveDependencies cudaGraphRemoveDependencies_v1 edges::disconnect_plain(
                graph: *mut c_void, from: In<*mut c_void>, to: In<*mut c_void>, count: usize);
            cuGraphRemoveDependencies_v2 cudaGraphRemoveDependencies edges::disconnect(
                graph: *mut c_void, from: In<*mut c_void>, to: In<*mut c_void>, data: In<EdgeData>, count: usize);

            cuGraphAddEmptyNode cudaGraphAddEmptyNode nodes::add_empty(
                node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize);
            cuGraphAddChildGraphNode cudaGraphAddChildGraphNode nodes::add_child(
                node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, child: *mut c_void);
            cuGraphChildGraphNodeGetGraph cudaGraphChildGraphNodeGetGraph nodes::child(
                node: *mut c_void, graph: Out<*mut c_void>);
            cuGraphAddHostNode cudaGraphAddHostNode nodes::add_host(
                node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, call: In<HostParams>);
            cuGraphHostNodeGetParams cudaGraphHostNodeGetParams nodes::host(node: *mut c_void, call: Out<HostParams>);
            cuGraphHostNodeSetParams cudaGraphHostNodeSetParams nodes::set_host(node: *mut c_void, call: In<HostParams>);
            cuGraphExecHostNodeSetParams cudaGraphExecHostNodeSetParams nodes::set_host_in_exec(
                exec: *mut c_void, node: *mut c_void, call: In<HostParams>);
            cuGraphAddEventRecordNode cudaGraphAddEventRecordNode nodes::add_event_record(
                node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, event: *mut c_void);
            cuGraphAddEventWaitNode cudaGraphAddEventWaitNode nodes::add_event_wait(
                node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, event: *mut c_void);
            cuGraphEventRecordNodeGetEvent cudaGraphEventRecordNodeGetEvent nodes::event(
                node: *mut c_void, event: Out<*mut c_void>);
            cuGraphEventWaitNodeGetEvent cudaGraphEventWaitNodeGetEvent nodes::event(
                node: *mut c_void, event: Out<*mut c_void>);
            cuGraphEventRecordNodeSetEvent cudaGraphEventRecordNodeSetEvent nodes::set_event_record(
                node: *mut c_void, event: *mut c_void);
            cuGraphEventWaitNodeSetEvent cudaGraphEventWaitNodeSetEvent nodes::set_event_wait(
                node: *mut c_void, event: *mut c_void);
            cuGraphExecEventRecordNodeSetEvent cudaGraphExecEventRecordNodeSetEvent nodes::set_event_record_in_exec(
                exec: *mut c_void, node: *mut c_void, event: *mut c_void);
            cuGraphExecEventWaitNodeSetEvent cudaGraphExecEventWaitNodeSetEvent nodes::set_event_wait_in_exec(
                exec: *mut c_void, node: *mut c_void, event: *mut c_void);

            cuGraphMemsetNodeGetParams cudaGraphMemsetNodeGetParams fill::params(
                node: *mut c_void, params: Out<FillParams>);
            cuGraphMemsetNodeSetParams cudaGraphMemsetNodeSetParams fill::set(node: *mut c_void, params: In<FillParams>);
            cuGraphAddMemAllocNode cudaGraphAddMemAllocNode memory::add_allocation(
                node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize,
                params: Out<AllocationParams>);
            cuGraphMemAllocNodeGetParams cudaGraphMemAllocNodeGetParams memory::allocation(
                node: *mut c_void, params: Out<AllocationParams>);
            cuGraphAddMemFreeNode cudaGraphAddMemFreeNode memory::add_free(
                node: Out<*mut c_void>, graph: *mut c_void, behind: In<*mut c_void>, count: usize, address: u64);
            cuGraphMemFreeNodeGetParams cudaGraphMemFreeNodeGetParams memory::freed(
                node: *mut c_void, address: Out<u64>);
            cuDeviceGetGraphMemAttribute cudaDeviceGetGraphMemAttribute memory::attribute(
                device: i32, attribute: u32, value: Out<u64>);
            cuDeviceSetGraphMemAttribute cudaDeviceSetGraphMemAttribute memory::set_attribute(
                device: i32, attribute: u32, value: Out<u64>);
            cuDeviceGraphMemTrim cudaDeviceGraphMemTrim memory::trim(device: i32);

            cuGraphKernelNodeGetAttribute cudaGraphKernelNodeGetAttribute kernel::attribute(
                node: *mut c_void, attribute: u32, value: Out<[u64; 8]>);
            cuGraphKernelNodeSetAttribute cudaGraphKernelNodeSetAttribute kernel::set_attribute(
                node: *mut c_void, attribute: u32, value: In<[u64; 8]>);
            cuGraphKernelNodeCopyAttributes cudaGraphKernelNodeCopyAttributes kernel::copy_attributes(
                to: *mut c_void, from: *mut c_void);

            cuGraphInstantiateWithFlags cudaGraphInstantiateWithFlags exec::instantiate(
                exec: Out<*mut c_void>, graph: *mut c_void, flags: u64);
            cuGraphInstantiateWithParams cudaGraphInstantiateWithParams exec::instantiate_with(
                exec: Out<*mut c_void>, graph: *mut c_void, params: Out<InstantiateParams>);
            cuGraphInstantiateWithParams_ptsz cudaGraphInstantiateWithParams_ptsz exec::instantiate_with(
                exec: Out<*mut c_void>, graph: *mut c_void, params: Out<InstantiateParams>);
            cuGraphExecDestroy cudaGraphExecDestroy exec::destroy(exec: *mut c_void);
            cuGraphExecGetFlags cudaGraphExecGetFlags exec::flags(exec: *mut c_void, flags: Out<u64>);
            cuGraphExecUpdate_v2 cudaGraphExecUpdate exec::update(
                exec: *mut c_void, graph: *mut c_void, told: Out<UpdateInfo>);
            cuGraphExecChildGraphNodeSetParams cudaGraphExecChildGraphNodeSetParams exec::set_child(
                exec: *mut c_void, node: *mut c_void, child: *mut c_void);
            cuGraphNodeSetEnabled cudaGraphNodeSetEnabled exec::set_enabled(
                exec: *mut c_void, node: *mut c_void, is_enabled: u32);
            cuGraphNodeGetEnabled cudaGraphNodeGetEnabled exec::is_enabled(
                exec: *mut c_void, node: *mut c_void, is_enabled: Out<u32>);

            cuUserObjectCreate cudaUserObjectCreate user_object::create(
                object: Out<*mut c_void>, data: *mut c_void, destructor: Option<LaunchedFunction>, references: u32,
                flags: u32);
            cuUserObjectRetain cudaUserObjectRetain user_object::retain(object: *mut c_void, count: u32);
            cuUserObjectRelease cudaUserObjectRelease user_object::release(object: *mut c_void, count: u32);
            cuGraphRetainUserObject cudaGraphRetainUserObject user_object::retain_by(
                graph: *mut c_void, object: *mut c_void, count: u32, flags: u32);
            cuGraphReleaseUserObject cudaGraphReleaseUserObject user_object::release_by(
                graph: *mut c_void, object: *mut c_void, count: u32);
        }
    };
}

pub(crate) use alike_functions;
