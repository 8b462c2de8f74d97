//! Kernels: modules from PTX, launches, what happens when one goes wrong.

mod common;

use std::ffi::{CString, c_void};

use common::*;

/// Stores `value` at `pointer + 4 * thread`, counting threads over blocks of 32.
const STORE: &str = "
.version 8.0
.target sm_70
.address_size 64
.global .align 8 .u64 counter = 41;
.global .align 8 .u64 place = counter;
.visible .entry store(.param .u64 pointer, .param .u64 value) {
    .reg .u32 %r<4>;
    .reg .u64 %rd<5>;
    ld.param.u64 %rd1, [pointer];
    ld.param.u64 %rd2, [value];
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %tid.x;
    mad.lo.u32 %r3, %r1, 32, %r2;
    mul.wide.u32 %rd3, %r3, 4;
    add.u64 %rd4, %rd1, %rd3;
    cvt.u32.u64 %r1, %rd2;
    st.global.u32 [%rd4], %r1;
    ret;
}
.visible .entry load(.param .u64 pointer, .param .u64 target) {
    .reg .u32 %r<2>;
    .reg .u64 %rd<3>;
    ld.param.u64 %rd1, [pointer];
    ld.param.u64 %rd2, [target];
    ld.global.u32 %r1, [%rd1];
    st.global.u32 [%rd2], %r1;
    ret;
}
.visible .entry count() {
    .reg .u64 %rd<4>;
    ld.global.u64 %rd1, [place];
    ld.u64 %rd2, [%rd1];
    add.u64 %rd2, %rd2, 1;
    st.u64 [%rd1], %rd2;
    ret;
}
.visible .entry forever(.param .u64 pointer) {
    .reg .u64 %rd<2>;
    .reg .u32 %r<2>;
    .reg .pred %p<2>;
    ld.param.u64 %rd1, [pointer];
AGAIN:
    ld.volatile.global.u32 %r1, [%rd1];
    setp.eq.u32 %p1, %r1, 0;
    @%p1 bra AGAIN;
    ret;
}
";

#[test]
fn kernels_compute() {
    passes("kernels_compute", &[], || {
        use_device(0);
        let module = module(STORE).expect("PTX");
        let store = function(module, c"store");
        let memory = allocate(4096);
        assert_eq!(launch(store, 4, 32, 0, &[memory, 77]), SUCCESS);
        assert_eq!(get::<u32>(memory, 129), [[77; 128].as_slice(), &[u32::MAX]].concat());

        // Parameters in one buffer.
        let buffer = [memory, 78];
        let bytes = 16_usize;
        let extra = [
            std::ptr::without_provenance(1),
            buffer.as_ptr().cast(),
            std::ptr::without_provenance::<c_void>(2),
            (&raw const bytes).cast(),
            std::ptr::null(),
        ];
        assert_eq!(cuLaunchKernel(store, 1, 1, 1, 32, 1, 1, 0, 0, std::ptr::null(), extra.as_ptr()), SUCCESS);
        assert_eq!(get::<u32>(memory, 33), [[78; 32].as_slice(), &[77]].concat());

        assert_eq!(launch(store, 1, 1025, 0, &[memory, 0]), INVALID_VALUE);
        assert_eq!(launch(store, 0, 32, 0, &[memory, 0]), INVALID_VALUE);
        assert_eq!(launch(module, 1, 1, 0, &[memory, 0]), INVALID_HANDLE);
        let mut value = 0;
        assert_eq!(cuFuncGetAttribute(&mut value, 0, store), SUCCESS);
        assert_eq!(value, 1024);
        assert_eq!(cuFuncSetAttribute(store, 8, 200 << 10), SUCCESS);
        assert_eq!(cuFuncSetAttribute(store, 8, 300 << 10), INVALID_VALUE);
        assert_eq!(
            cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&mut value, store, 1024, 0, 0),
            SUCCESS
        );
        assert_eq!(value, 2);
        let mut missing = 0;
        assert_eq!(cuModuleGetFunction(&mut missing, module, c"absent".as_ptr()), 500);
        assert_eq!(cuModuleUnload(module), SUCCESS);
        assert_eq!(launch(store, 1, 1, 0, &[memory, 0]), INVALID_HANDLE);
    });
}

#[test]
fn libraries_have_kernels_and_variables() {
    passes("libraries_have_kernels_and_variables", &[("DEVICES", "2")], || {
        use_device(0);
        let text = CString::new(STORE).expect("no NUL");
        let (mut library, mut kernel, mut found, mut count) = (0, 0, 0, 0);
        assert_eq!(cuLibraryLoadData(&mut library, text.as_ptr().cast(), 0, 0, 0, 0, 0, 0), SUCCESS);
        assert_eq!(cuLibraryGetKernelCount(&mut count, library), SUCCESS);
        assert_eq!(count, 4);
        assert_eq!(cuLibraryGetKernel(&mut kernel, library, c"store".as_ptr()), SUCCESS);
        let (mut offset, mut bytes) = (0, 0);
        assert_eq!(cuKernelGetParamInfo(kernel, 1, &mut offset, &mut bytes), SUCCESS);
        assert_eq!((offset, bytes), (8, 8));
        assert_eq!(cuKernelGetParamInfo(kernel, 2, &mut offset, &mut bytes), INVALID_VALUE);
        let memory = allocate(64);
        assert_eq!(launch(kernel, 1, 1, 0, &[memory, 5]), SUCCESS, "a CUkernel is launched as it is");
        assert_eq!(cuKernelGetFunction(&mut found, kernel), SUCCESS);
        assert_eq!(launch(found, 1, 1, 0, &[memory + 4, 6]), SUCCESS);
        assert_eq!(get::<u32>(memory, 2), [5, 6]);

        // Each device has its own variables.
        let mut count_kernel = 0;
        assert_eq!(cuLibraryGetKernel(&mut count_kernel, library, c"count".as_ptr()), SUCCESS);
        for (device, launches) in [(0, 1), (1, 3)] {
            use_device(device);
            for _ in 0..launches {
                assert_eq!(launch(count_kernel, 1, 1, 0, &[]), SUCCESS);
            }
            let (mut counter, mut size) = (0, 0);
            assert_eq!(cuLibraryGetGlobal(&mut counter, &mut size, library, c"counter".as_ptr()), SUCCESS);
            assert_eq!((size, get::<u64>(counter, 1)), (8, vec![41 + launches]));
        }
        assert_eq!(cuLibraryUnload(library), SUCCESS);
        assert_eq!(launch(kernel, 1, 1, 0, &[memory, 5]), INVALID_HANDLE);
    });
}

/// Stores what the table of functions holds, and then the addresses that the code has for them.
const POINTING: &str = "
.version 8.0
.target sm_70
.address_size 64
.func helper() {
    ret;
}
.global .align 8 .u64 table[3] = {helper, 0, tell};
.visible .entry tell(.param .u64 pointer) {
    .reg .u64 %rd<6>;
    ld.param.u64 %rd1, [pointer];
    ld.global.u64 %rd2, [table];
    ld.global.u64 %rd3, [table+16];
    mov.u64 %rd4, helper;
    mov.u64 %rd5, tell;
    st.global.u64 [%rd1], %rd2;
    st.global.u64 [%rd1+8], %rd3;
    st.global.u64 [%rd1+16], %rd4;
    st.global.u64 [%rd1+24], %rd5;
    ret;
}
";

#[test]
fn each_module_has_its_functions_elsewhere() {
    passes("each_module_has_its_functions_elsewhere", &[], || {
        use_device(0);
        let memory = allocate(64);
        let mut seen = Vec::new();
        for _ in 0..2 {
            let module = module(POINTING).expect("PTX");
            assert_eq!(launch(function(module, c"tell"), 1, 1, 0, &[memory]), SUCCESS);
            let addresses = get::<u64>(memory, 4);
            assert_eq!(addresses[..2], addresses[2..], "the table has what the code has");
            let (mut table, mut bytes) = (0, 0);
            assert_eq!(cuModuleGetGlobal_v2(&mut table, &mut bytes, module, c"table".as_ptr()), SUCCESS);
            assert_eq!((bytes, get::<u64>(table, 3)), (24, vec![addresses[0], 0, addresses[1]]));
            seen.extend_from_slice(&addresses[..2]);
        }
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), all, "{seen:x?}");
        assert_eq!(
            module(&POINTING.replace("{helper,", "{nobody,")),
            Err(INVALID_IMAGE),
            "a pointer to nothing"
        );
    });
}

#[test]
fn an_illegal_address_ends_the_process_s_work() {
    let ended = passes("an_illegal_address_ends_the_process_s_work", &[], || {
        use_device(0);
        let store = function(module(STORE).expect("PTX"), c"store");
        let memory = allocate(2 * MIB);
        assert_eq!(launch(store, 1, 32, 0, &[memory + 2 * MIB as u64 - 64, 1]), SUCCESS, "only issued");
        assert_eq!(cuCtxSynchronize(), ILLEGAL_ADDRESS);
        assert_eq!(cuMemFree_v2(memory), ILLEGAL_ADDRESS);
        assert_eq!(launch(store, 1, 1, 0, &[memory, 1]), ILLEGAL_ADDRESS);
        let mut context = 0;
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), ILLEGAL_ADDRESS);
    });
    assert_eq!(ended.log_lines("kernel `store`: Write of 4 bytes at"), 1, "{}", ended.log);
}

#[test]
fn a_kernel_needs_access_of_its_device() {
    let environment = [("DEVICES", "2")];
    passes("a_kernel_needs_access_of_its_device", &environment, || {
        use_device(1);
        let (mut window, bytes) = (0, 2 * MIB);
        assert_eq!(cuMemAddressReserve(&mut window, bytes, 0, 0, 0), SUCCESS);
        map(window, bytes, 0);
        let store = function(module(STORE).expect("PTX"), c"store");
        // Access for both devices: a plain peer store.
        assert_eq!(cuMemSetAccess(window, bytes, &access(1), 1), SUCCESS);
        assert_eq!(launch(store, 1, 1, 0, &[window, 9]), SUCCESS);
        assert_eq!(get::<u32>(window, 1), [9]);
        let nothing = Access { flags: 0, ..access(1) };
        assert_eq!(cuMemSetAccess(window, bytes, &nothing, 1), SUCCESS);
        assert_eq!(launch(store, 1, 1, 0, &[window, 9]), SUCCESS);
        assert_eq!(cuCtxSynchronize(), ILLEGAL_ADDRESS);
    });
}

#[test]
fn launches_fail_on_demand() {
    let faults = [("FAULTS", "launch:load:illegal-address; launch:count:hang")];
    passes("launches_fail_on_demand", &faults, || {
        use_device(0);
        let module = module(STORE).expect("PTX");
        let (memory, stream) = (allocate(64), stream(1));
        assert_eq!(launch(function(module, c"count"), 1, 1, stream, &[]), SUCCESS);
        assert_eq!(launch(function(module, c"store"), 1, 1, 0, &[memory, 3]), SUCCESS);
        assert_eq!(get::<u32>(memory, 1), [3]);
        assert_eq!(cuStreamQuery(stream), NOT_READY, "hangs");
        assert_eq!(launch(function(module, c"load"), 1, 1, 0, &[memory, memory + 8]), SUCCESS);
        assert_eq!(cuStreamSynchronize(0), ILLEGAL_ADDRESS);
        assert_eq!(cuStreamSynchronize(stream), ILLEGAL_ADDRESS, "the hanging one ends with it");
    });
}

#[test]
fn an_endless_kernel_ends_when_the_process_fails() {
    passes("an_endless_kernel_ends_when_the_process_fails", &[], || {
        use_device(0);
        let module = module(STORE).expect("PTX");
        let (endless, other, flag) = (stream(1), stream(1), allocate(64));
        put(flag, &[0_u32]);
        assert_eq!(launch(function(module, c"forever"), 1, 1, endless, &[flag]), SUCCESS);
        assert_eq!(launch(function(module, c"store"), 1, 1, other, &[flag + 32, 3]), SUCCESS);
        assert_eq!(cuStreamSynchronize(other), SUCCESS);
        assert_eq!(cuStreamQuery(endless), NOT_READY);
        assert_eq!(launch(function(module, c"store"), 1, 1, other, &[8, 3]), SUCCESS);
        assert_eq!(cuStreamSynchronize(endless), ILLEGAL_ADDRESS);
    });
}

#[test]
fn code_is_unloaded_when_no_kernel_runs() {
    passes("code_is_unloaded_when_no_kernel_runs", &[], || {
        use_device(0);
        let (running, unused) = (module(STORE).expect("PTX"), module(STORE).expect("PTX"));
        let text = CString::new(STORE).expect("no NUL");
        let (mut library, mut kernel) = (0, 0);
        assert_eq!(cuLibraryLoadData(&mut library, text.as_ptr().cast(), 0, 0, 0, 0, 0, 0), SUCCESS);
        assert_eq!(cuLibraryGetKernel(&mut kernel, library, c"store".as_ptr()), SUCCESS);
        let (endless, memory) = (stream(1), allocate(64));
        assert_eq!(launch(kernel, 1, 1, 0, &[memory + 32, 3]), SUCCESS);
        for is_library in [true, false] {
            put(memory, &[0_u32]);
            assert_eq!(launch(function(running, c"forever"), 1, 1, endless, &[memory]), SUCCESS);
            let unloaded = std::thread::spawn(move || {
                let status = if is_library { cuLibraryUnload(library) } else { cuModuleUnload(unused) };
                assert_eq!(status, SUCCESS);
                use_device(0);
                cuStreamQuery(endless)
            });
            std::thread::sleep(std::time::Duration::from_millis(50));
            put(memory, &[1_u32]);
            assert_eq!(unloaded.join().expect("it does not panic"), SUCCESS, "the kernel has ended before");
        }
    });
}

#[test]
fn ptx_that_is_not_understood_is_refused_by_name() {
    let ended = passes("ptx_that_is_not_understood_is_refused_by_name", &[], || {
        use_device(0);
        assert_eq!(module(&STORE.replace("st.global.u32 [%rd4]", "st.bogus.u32 [%rd4]")), Err(218));
        assert_eq!(module("hello"), Err(218));
        let mut module = 0;
        assert_eq!(cuModuleLoadData(&mut module, std::ptr::null()), 200);
    });
    assert_eq!(ended.log_lines("st.bogus.u32"), 1, "{}", ended.log);
}

#[test]
fn a_graph_keeps_its_parameters() {
    passes("a_graph_keeps_its_parameters", &[], || {
        use_device(0);
        let store = function(module(STORE).expect("PTX"), c"store");
        let (stream, memory) = (stream(1), allocate(4096));
        put(memory, &[0_u32; 8]);
        assert_eq!(cuStreamBeginCapture_v2(stream, 0), SUCCESS);
        for value in 1..4_u64 {
            assert_eq!(launch(store, 1, 1, stream, &[memory + 4 * value, value]), SUCCESS);
        }
        let (mut graph, mut executable) = (0, 0);
        assert_eq!(cuStreamEndCapture(stream, &mut graph), SUCCESS);
        assert_eq!(cuGraphInstantiateWithFlags(&mut executable, graph, 0), SUCCESS);
        assert_eq!(cuGraphLaunch(executable, stream), SUCCESS);
        assert_eq!(cuStreamSynchronize(stream), SUCCESS);
        assert_eq!(get::<u32>(memory, 5), [0, 1, 2, 3, 0]);
    });
}

/// A fatbin entry: kind 1 is PTX, 2 a cubin.
fn entry(kind: u16, sm: u32, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..2].copy_from_slice(&kind.to_le_bytes());
    header[4..8].copy_from_slice(&64_u32.to_le_bytes());
    header[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[28..32].copy_from_slice(&sm.to_le_bytes());
    [&header, payload].concat()
}

fn fatbin(entries: &[Vec<u8>]) -> Vec<u8> {
    let body = entries.concat();
    let mut header = vec![0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0];
    header.extend((body.len() as u64).to_le_bytes());
    [header, body].concat()
}

#[test]
fn the_best_entry_of_a_fatbin_is_taken() {
    let ended = passes("the_best_entry_of_a_fatbin_is_taken", &[], || {
        use_device(0);
        let load = |image: &[u8]| {
            let mut module = 0;
            (cuModuleLoadData(&mut module, image.as_ptr().cast()), module)
        };
        let text =
            |name: &str| format!("{}\0", STORE.replace("entry store", &format!("entry {name}"))).into_bytes();
        let entries = [
            entry(2, 80, b"a cubin for another device"),
            entry(1, 70, &text("older")),
            entry(1, 90, &text("newer")),
            entry(1, 100, b"PTX for a later device\0"),
        ];
        let (code, module) = load(&fatbin(&entries));
        assert_eq!(code, SUCCESS);
        let memory = allocate(64);
        assert_eq!(launch(function(module, c"newer"), 1, 1, 0, &[memory, 5]), SUCCESS);
        assert_eq!(get::<u32>(memory, 1), [5]);
        assert_eq!(
            load(&fatbin(&[entry(2, 80, b"x"), entry(1, 100, b"y\0")])).0,
            209,
            "nothing for this device"
        );
        assert_eq!(load(&fatbin(&[entry(2, 90, b"no ELF file")])).0, 200);
        let mut damaged = fatbin(&entries);
        damaged[16 + 8..16 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(load(&damaged).0, 200, "an entry longer than its container");
    });
    assert_eq!(ended.log_lines("an image is refused"), 2, "{}", ended.log);
}
