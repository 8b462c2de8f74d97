//! Capturing streams into graphs, and launching those.

mod common;

use common::*;

fn end(stream: u64) -> Result<u64, i32> {
    let mut graph = 0;
    match cuStreamEndCapture(stream, &mut graph) {
        SUCCESS => Ok(graph),
        code => Err(code),
    }
}

fn status(stream: u64) -> u32 {
    let mut status = 9;
    assert_eq!(cuStreamIsCapturing(stream, &mut status), SUCCESS);
    status
}

#[test]
fn a_captured_fork_and_join_is_replayed() {
    passes("a_captured_fork_and_join_is_replayed", &[], || {
        use_device(0);
        let (first, second, fork, joined) = (stream(1), stream(1), event(), event());
        let memory = allocate(4096);
        put(memory, &[0_u32; 16]);
        assert_eq!(cuStreamBeginCapture_v2(first, 0), SUCCESS);
        assert_eq!((status(first), status(second)), (1, 0));
        assert_eq!(cuMemsetD32Async(memory, 1, 4, first), SUCCESS);
        assert_eq!(cuEventRecord(fork, first), SUCCESS);
        assert_eq!(cuStreamWaitEvent(second, fork, 0), SUCCESS);
        assert_eq!(status(second), 1);
        assert_eq!(cuMemcpyDtoDAsync_v2(memory + 32, memory, 8, second), SUCCESS);
        assert_eq!(cuMemsetD32Async(memory + 8, 3, 1, first), SUCCESS);
        assert_eq!(cuEventRecord(joined, second), SUCCESS);
        assert_eq!(cuStreamWaitEvent(first, joined, 0), SUCCESS);
        let graph = end(first).expect("joined");
        assert_eq!((status(first), status(second)), (0, 0));
        assert_eq!(get::<u32>(memory, 4), [0; 4], "capturing does nothing");

        let mut count = 0;
        assert_eq!(cuGraphGetNodes(graph, std::ptr::null_mut(), &mut count), SUCCESS);
        assert_eq!(count, 3);
        let mut nodes = [0; 8];
        count = 8;
        assert_eq!(cuGraphGetNodes(graph, nodes.as_mut_ptr(), &mut count), SUCCESS);
        assert!(count == 3 && nodes[..3].iter().all(|&node| node != 0) && nodes[3] == 0);

        let mut executable = 0;
        assert_eq!(cuGraphInstantiateWithFlags(&mut executable, graph, 0), SUCCESS);
        assert_eq!(cuGraphDestroy(graph), SUCCESS);
        for _ in 0..2 {
            put(memory, &[0_u32; 16]);
            assert_eq!(cuGraphLaunch(executable, second), SUCCESS);
            assert_eq!(cuStreamSynchronize(second), SUCCESS);
            assert_eq!(get::<u32>(memory, 10), [1, 1, 3, 1, 0, 0, 0, 0, 1, 1]);
        }
        assert_eq!(cuGraphExecDestroy(executable), SUCCESS);
        assert_eq!(cuGraphLaunch(executable, second), INVALID_HANDLE);
    });
}

#[test]
fn captures_that_cannot_be_are_refused() {
    passes("captures_that_cannot_be_are_refused", &[], || {
        use_device(0);
        let (first, second, marked) = (stream(1), stream(1), event());
        let memory = allocate(64);
        let begin = |stream| assert_eq!(cuStreamBeginCapture_v2(stream, 0), SUCCESS);

        begin(first);
        assert_eq!(cuStreamBeginCapture_v2(first, 0), 401, "captured already");
        assert_eq!(cuEventRecord(marked, first), SUCCESS);
        assert_eq!(cuStreamWaitEvent(second, marked, 0), SUCCESS);
        assert_eq!(cuMemsetD8Async(memory, 0, 1, second), SUCCESS);
        assert_eq!(end(second), Err(903), "begun elsewhere");
        assert_eq!(end(first), Err(901));

        begin(first);
        assert_eq!(cuEventRecord(marked, first), SUCCESS);
        assert_eq!(cuStreamWaitEvent(second, marked, 0), SUCCESS);
        assert_eq!(cuMemsetD8Async(memory, 0, 1, second), SUCCESS);
        assert_eq!(end(first), Err(904), "not joined");
        assert_eq!(status(second), 0);

        begin(first);
        assert_eq!(cuStreamSynchronize(first), 900);
        assert_eq!(status(first), 2);
        assert_eq!(cuMemsetD8Async(memory, 0, 1, first), 901);
        assert_eq!(end(first), Err(901));

        begin(first);
        assert_eq!(cuEventRecord(marked, first), SUCCESS);
        assert_eq!(cuEventQuery(marked), 907, "recorded in a capture");
        assert_eq!(end(first), Err(901));

        let outside = event();
        assert_eq!(cuEventRecord(outside, second), SUCCESS);
        begin(first);
        assert_eq!(cuStreamWaitEvent(first, outside, 0), 905);
        assert_eq!(end(first), Err(901));

        let blocking = stream(0);
        begin(blocking);
        assert_eq!(cuMemsetD8Async(memory, 0, 1, 0), 906, "stream 0 would wait for it");
        assert_eq!(end(blocking), Err(901));
        assert_eq!(end(blocking), Err(401));
        assert_eq!(cuStreamBeginCapture_v2(0, 0), 900);
    });
}

#[test]
fn a_graph_reads_its_source_when_it_is_launched() {
    passes("a_graph_reads_its_source_when_it_is_launched", &[], || {
        use_device(0);
        let (stream, memory) = (stream(1), allocate(64));
        let mut source = Box::new([1_u32, 2]);
        let (mut graph, mut executable) = (0, 0);
        assert_eq!(cuStreamBeginCapture_v2(stream, 0), SUCCESS);
        let pointer = source.as_mut_ptr();
        assert_eq!(cuMemcpyHtoDAsync_v2(memory, pointer.cast(), 8, stream), SUCCESS);
        assert_eq!(cuStreamEndCapture(stream, &mut graph), SUCCESS);
        assert_eq!(cuGraphInstantiateWithFlags(&mut executable, graph, 0), SUCCESS);
        // SAFETY: the box lives to the end of this function, and no launch is under way.
        unsafe { pointer.write(7) };
        assert_eq!(cuGraphLaunch(executable, stream), SUCCESS);
        assert_eq!(cuStreamSynchronize(stream), SUCCESS);
        assert_eq!(get::<u32>(memory, 2), [7, 2]);
        drop(source);
    });
}
