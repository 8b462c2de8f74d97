//! Memory: virtual memory management at fixed addresses, copies, fills, host memory.

mod common;

use common::*;
use torpor_simgpu::abi::{Memcpy2d, Memcpy3d};

const WINDOW: u64 = 0x1000_0000_0000;
const WINDOW_BYTES: usize = 8 << 40;

fn reserve_window() {
    let mut pointer = 0;
    assert_eq!(cuMemAddressReserve(&mut pointer, WINDOW_BYTES, 0, WINDOW, 0), SUCCESS);
    assert_eq!(pointer, WINDOW);
}

#[test]
fn memory_is_mapped_where_it_is_wanted() {
    passes("memory_is_mapped_where_it_is_wanted", &[], || {
        use_device(0);
        reserve_window();
        let mut granularity = 0;
        assert_eq!(cuMemGetAllocationGranularity(&mut granularity, &prop(0), 0), SUCCESS);
        assert_eq!(granularity, 2 * MIB);

        // Two pieces side by side are one range for copies.
        let at = WINDOW + (1 << 40);
        let first = map(at, 2 * MIB, 0);
        map(at + 2 * MIB as u64, 4 * MIB, 0);
        let numbers: Vec<u32> = (0..MIB as u32).collect();
        put(at + MIB as u64, &numbers);
        assert_eq!(get::<u32>(at + MIB as u64, MIB), numbers);

        // The handle may go; the mapping keeps the memory.
        let (mut free_before, mut free_after, mut total) = (0, 0, 0);
        assert_eq!(cuMemGetInfo_v2(&mut free_before, &mut total), SUCCESS);
        assert_eq!(total - free_before, 6 * MIB);
        assert_eq!(cuMemRelease(first), SUCCESS);
        assert_eq!(get::<u32>(at + MIB as u64, 4), [0, 1, 2, 3]);
        assert_eq!(cuMemUnmap(at, 6 * MIB), SUCCESS);
        assert_eq!(cuMemGetInfo_v2(&mut free_after, &mut total), SUCCESS);
        assert_eq!(free_after - free_before, 2 * MIB, "the released piece is free, the other has a handle");
        let mut word = 0_u32;
        assert_eq!(cuMemcpyDtoH_v2((&raw mut word).cast(), at, 4), INVALID_VALUE);
    });
}

#[test]
fn contents_survive_a_move() {
    passes("contents_survive_a_move", &[], || {
        use_device(0);
        reserve_window();
        let handle = map(WINDOW, 2 * MIB, 0);
        put(WINDOW + 100, &[1_u8, 2, 3]);
        assert_eq!(cuMemUnmap(WINDOW, 2 * MIB), SUCCESS);
        let elsewhere = WINDOW + 64 * MIB as u64;
        assert_eq!(cuMemMap(elsewhere, 2 * MIB, 0, handle, 0), SUCCESS);
        assert_eq!(cuMemSetAccess(elsewhere, 2 * MIB, &access(0), 1), SUCCESS);
        assert_eq!(get::<u8>(elsewhere + 99, 5), [0xff, 1, 2, 3, 0xff], "poison around what was written");
    });
}

#[test]
fn wrong_mappings_are_refused() {
    passes("wrong_mappings_are_refused", &[("MEMORY", "16MiB")], || {
        use_device(0);
        reserve_window();
        let mut handle = 0;
        assert_eq!(
            cuMemCreate(&mut handle, MIB, &prop(0), 0),
            INVALID_VALUE,
            "no multiple of the granularity"
        );
        assert_eq!(cuMemCreate(&mut handle, 2 * MIB, &prop(1), 0), 101, "no such device");
        assert_eq!(cuMemCreate(&mut handle, 32 * MIB, &prop(0), 0), OUT_OF_MEMORY);
        assert_eq!(cuMemCreate(&mut handle, 4 * MIB, &prop(0), 0), SUCCESS);
        assert_eq!(cuMemMap(WINDOW, 4 * MIB, 2 * MIB, handle, 0), INVALID_VALUE, "offsets are not supported");
        assert_eq!(cuMemMap(WINDOW, 2 * MIB, 0, handle, 0), INVALID_VALUE, "part of a handle");
        assert_eq!(cuMemMap(0x7000, 4 * MIB, 0, handle, 0), INVALID_VALUE, "not reserved");
        assert_eq!(cuMemMap(WINDOW, 4 * MIB, 0, handle, 0), SUCCESS);
        assert_eq!(cuMemMap(WINDOW, 4 * MIB, 0, handle, 0), INVALID_VALUE, "occupied");
        assert_eq!(cuMemsetD8Async(WINDOW, 1, 16, 0), INVALID_VALUE, "no access yet");
        assert_eq!(cuMemSetAccess(WINDOW, 4 * MIB, &access(0), 1), SUCCESS);
        assert_eq!(cuMemsetD8Async(WINDOW, 1, 16, 0), SUCCESS);
        assert_eq!(cuMemsetD8Async(WINDOW, 1, 4 * MIB + 1, 0), INVALID_VALUE, "too long");
        assert_eq!(cuMemsetD8Async(u64::MAX - 3, 1, 16, 0), INVALID_VALUE, "overflow");
        assert_eq!(cuMemAddressFree(WINDOW, WINDOW_BYTES), INVALID_VALUE, "in use");
        assert_eq!(cuMemUnmap(WINDOW, 2 * MIB), INVALID_VALUE, "half a mapping");
        assert_eq!(cuMemUnmap(WINDOW, 4 * MIB), SUCCESS);
        assert_eq!(cuMemAddressFree(WINDOW, WINDOW_BYTES), SUCCESS);
        assert_eq!(cuMemRelease(handle), SUCCESS);
        assert_eq!(cuMemRelease(handle), INVALID_VALUE);
        assert_eq!(cuMemRelease(12345), INVALID_VALUE);
    });
}

#[test]
fn fills_have_patterns_and_pitches() {
    passes("fills_have_patterns_and_pitches", &[], || {
        use_device(0);
        let memory = allocate(4096);
        assert_eq!(cuMemsetD8Async(memory, 0x11, 4096, 0), SUCCESS);
        assert_eq!(cuMemsetD16Async(memory + 2, 0x2233, 2, 0), SUCCESS);
        assert_eq!(cuMemsetD32Async(memory + 8, 0x4455_6677, 1, 0), SUCCESS);
        let expected = [0x11, 0x11, 0x33, 0x22, 0x33, 0x22, 0x11, 0x11, 0x77, 0x66, 0x55, 0x44, 0x11];
        assert_eq!(get::<u8>(memory, 13), expected);
        assert_eq!(cuMemsetD2D32Async(memory, 64, 7, 2, 3, 0), SUCCESS);
        let words = get::<u32>(memory, 64);
        let sevens: Vec<usize> = (0..64).filter(|&index| words[index] == 7).collect();
        assert_eq!(sevens, [0, 1, 16, 17, 32, 33]);
        assert_eq!(cuMemsetD32Async(memory + 1, 0, 1, 0), INVALID_VALUE, "misaligned");
        assert_eq!(cuMemsetD2D32Async(memory, 4, 0, 2, 2, 0), INVALID_VALUE, "rows overlap");
    });
}

#[test]
fn copies_in_two_and_three_dimensions() {
    passes("copies_in_two_and_three_dimensions", &[], || {
        use_device(0);
        let source: Vec<u8> = (0..240).collect();
        let memory = allocate(4096);
        assert_eq!(cuMemsetD8Async(memory, 0xee, 4096, 0), SUCCESS);
        let plane = Memcpy2d {
            src_type: 1,
            src_host: source.as_ptr() as u64,
            src_pitch: 10,
            src_x_bytes: 2,
            src_y: 1,
            dst_type: 2,
            dst_device: memory,
            dst_pitch: 16,
            width_bytes: 3,
            height: 2,
            ..Memcpy2d::default()
        };
        assert_eq!(cuMemcpy2DAsync_v2(&plane, 0), SUCCESS);
        assert_eq!(get::<u8>(memory, 4), [12, 13, 14, 0xee]);
        assert_eq!(get::<u8>(memory + 16, 4), [22, 23, 24, 0xee]);
        assert_eq!(cuMemcpy2DAsync_v2(&Memcpy2d { dst_pitch: 2, ..plane }, 0), INVALID_VALUE);
        assert_eq!(
            cuMemcpy2DAsync_v2(&Memcpy2d { dst_type: 3, ..plane }, 0),
            INVALID_HANDLE,
            "no such array"
        );
        assert_eq!(
            cuMemcpy2DAsync_v2(&Memcpy2d { height: usize::MAX, ..plane }, 0),
            INVALID_VALUE,
            "overflow"
        );

        let cube = Memcpy3d {
            src_type: 1,
            src_host: source.as_ptr() as u64,
            src_pitch: 10,
            src_height: 4,
            src_z: 1,
            dst_type: 2,
            dst_device: memory,
            dst_pitch: 8,
            dst_height: 2,
            dst_y: 1,
            width_bytes: 2,
            height: 1,
            depth: 2,
            ..Memcpy3d::default()
        };
        assert_eq!(cuMemcpy3DAsync_v2(&cube, 0), SUCCESS);
        assert_eq!(get::<u8>(memory + 8, 2), [40, 41]);
        assert_eq!(get::<u8>(memory + 24, 2), [80, 81]);
    });
}

#[test]
fn host_memory_has_one_address() {
    passes("host_memory_has_one_address", &[], || {
        use_device(0);
        let host = pinned(8192);
        let mut device_pointer = 0;
        assert_eq!(cuMemHostGetDevicePointer_v2(&mut device_pointer, host, 0), SUCCESS);
        assert_eq!(device_pointer, host);
        let mut buffer = vec![0_u8; 16384];
        let address = buffer.as_mut_ptr() as u64;
        assert_eq!(cuMemHostRegister_v2(address, 16384, 0), SUCCESS);
        assert_eq!(cuMemHostRegister_v2(address + 4096, 4096, 0), 712, "registered already");
        assert_eq!(cuMemHostGetDevicePointer_v2(&mut device_pointer, address + 5, 0), SUCCESS);
        assert_eq!(device_pointer, address + 5);
        let mut kind = 0_u32;
        assert_eq!(cuPointerGetAttribute((&raw mut kind).cast(), 2, address), SUCCESS);
        assert_eq!(kind, 1, "host memory");
        assert_eq!(cuMemHostUnregister(address), SUCCESS);
        assert_eq!(cuMemHostUnregister(address), 713);
        assert_eq!(cuPointerGetAttribute((&raw mut kind).cast(), 2, address), INVALID_VALUE);
        assert_eq!(cuMemFreeHost(host + 4096), INVALID_VALUE);
        assert_eq!(cuMemFreeHost(host), SUCCESS);

        let memory = allocate(100);
        assert_eq!(cuPointerGetAttribute((&raw mut kind).cast(), 2, memory + 99), SUCCESS);
        assert_eq!(kind, 2, "device memory");
        let mut size = 0_u64;
        assert_eq!(cuPointerGetAttribute((&raw mut size).cast(), 12, memory), SUCCESS);
        assert_eq!(size, 100);
    });
}

#[test]
fn no_copy_reaches_from_one_registered_range_into_the_next() {
    passes("no_copy_reaches_from_one_registered_range_into_the_next", &[], || {
        use_device(0);
        let mut buffer = vec![7_u8; 8192];
        let (address, memory) = (buffer.as_mut_ptr() as u64, allocate(8192));
        assert_eq!(cuMemHostRegister_v2(address, 4096, 0), SUCCESS);
        assert_eq!(cuMemHostRegister_v2(address + 4096, 4096, 0), SUCCESS);
        for at in [address, address + 4096] {
            assert_eq!(cuMemcpyHtoD_v2(memory, at as *const _, 4096), SUCCESS);
        }
        assert_eq!(cuMemcpyHtoD_v2(memory, address as *const _, 8192), INVALID_VALUE);
        assert_eq!(cuMemcpyDtoH_v2((address + 2048) as *mut _, memory, 4096), INVALID_VALUE);
    });
}

#[test]
fn memory_runs_out_and_comes_back() {
    passes("memory_runs_out_and_comes_back", &[("MEMORY", "64MiB")], || {
        use_device(0);
        for _ in 0..3 {
            let all: Vec<u64> = (0..8).map(|_| allocate(8 * MIB)).collect();
            let mut pointer = 0;
            assert_eq!(cuMemAlloc_v2(&mut pointer, 1), OUT_OF_MEMORY);
            assert!(all.into_iter().all(|pointer| cuMemFree_v2(pointer) == SUCCESS));
        }
        let memory = allocate(64 * MIB);
        assert_eq!(cuMemFree_v2(memory + 256), INVALID_VALUE);
        assert_eq!(cuMemFree_v2(memory), SUCCESS);
        assert_eq!(cuMemFree_v2(memory), INVALID_VALUE);
        assert_eq!(cuMemFree_v2(0), SUCCESS);
    });
}

#[test]
fn a_large_device_costs_only_what_is_touched() {
    passes("a_large_device_costs_only_what_is_touched", &[], || {
        use_device(0);
        let memory = allocate(100 << 30);
        put(memory + (90 << 30), &[1_u64, 2, 3]);
        assert_eq!(get::<u64>(memory + (90 << 30), 4), [1, 2, 3, u64::MAX]);
    });
}
