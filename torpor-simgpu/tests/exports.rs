//! The shared library as a loader sees it: what it exports, and what it finds by name.

mod common;

use std::path::PathBuf;

use common::*;
use torpor_simgpu::exports::table;

/// The shared library, which cargo puts beside the tests.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    let name = "libtorpor_simgpu.so";
    let places: Vec<PathBuf> =
        test.ancestors().skip(1).take(2).map(|directory| directory.join(name)).collect();
    places.iter().find(|place| place.exists()).unwrap_or_else(|| panic!("none of {places:?}")).clone()
}

#[test]
fn every_function_of_the_table_is_exported() {
    // SAFETY: loading the simulator runs no code of its own.
    let loaded = unsafe { libloading::Library::new(library()) }.expect("it loads");
    for export in table() {
        // SAFETY: the symbol is only looked up.
        let symbol = unsafe { loaded.get::<unsafe extern "C" fn() -> i32>(export.symbol.as_bytes()) };
        assert!(symbol.is_ok(), "{}", export.symbol);
    }
    type Init = unsafe extern "C" fn(u32) -> i32;
    // SAFETY: the type is that of cuda.h.
    let init = unsafe { loaded.get::<Init>(b"cuInit") }.expect("exported");
    // SAFETY: any flags may be passed.
    assert_eq!(unsafe { init(0) }, SUCCESS);
}

#[test]
fn the_worker_s_list_is_complete() {
    let list = include_str!("worker-functions.txt");
    let names: Vec<&str> = list.split_whitespace().collect();
    assert!(names.len() > 100);
    for name in names {
        assert!(table().iter().any(|export| export.symbol == name), "{name}");
    }
}

#[test]
fn names_are_found_by_version() {
    passes("names_are_found_by_version", &[], || {
        let find = |name: &std::ffi::CStr, version, flags| {
            let (mut function, mut status) = (1, 9);
            assert_eq!(
                cuGetProcAddress_v2(name.as_ptr(), &mut function, version, flags, &mut status),
                SUCCESS
            );
            (function, status)
        };
        let address =
            |symbol| table().iter().find(|export| export.symbol == symbol).expect("in the table").address;
        assert_eq!(find(c"cuMemAlloc", 13000, 0), (address("cuMemAlloc_v2"), 0));
        assert_eq!(find(c"cuMemAlloc", 2000, 0), (0, 2), "introduced later");
        assert_eq!(find(c"cuNothing", 13000, 0), (0, 1));
        assert_eq!(find(c"", 13000, 0), (0, 1));
        assert_eq!(find(c"cuCtxGetDevice", 12080, 0), (address("cuCtxGetDevice"), 0));
        assert_eq!(find(c"cuCtxGetDevice", 13000, 0), (address("cuCtxGetDevice_v2"), 0));
        assert_eq!(find(c"cuStreamQuery", 13000, 2), (0, 1), "no variant for per-thread default streams");
        assert_eq!(find(c"cuInit", 13000, 2).1, 0);
    });
}
