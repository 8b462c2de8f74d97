//! The built library, opened as a program opens it.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::PathBuf;

/// The library that Cargo built with this test.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folders = test.ancestors().skip(1).take(2);
    let candidates =
        folders.map(|folder| folder.join("libtorpor_intercept.so")).filter(|path| path.is_file());
    let built = |path: &PathBuf| std::fs::metadata(path).and_then(|file| file.modified()).ok();
    candidates.max_by_key(built).expect("the library is missing: run `cargo build --workspace` first")
}

#[test]
fn every_name_of_the_tables_is_exported() {
    let rows = include_str!("../driver-names.tsv").lines().skip(1);
    let driver = rows.filter_map(|row| row.split('\t').next());
    let rows = include_str!("../runtime-names.tsv").lines().skip(1);
    let runtime = rows.filter_map(|row| row.split(['\t', '@']).next());
    let nvml = torpor_intercept::nvml::names().into_iter();
    let nvml = nvml.chain(torpor_intercept::nvml::unsupported_names());
    let cupti = torpor_intercept::cupti::NAMES;
    let names: BTreeSet<&str> =
        driver.chain(runtime).chain(nvml).chain(torpor_intercept::children::NAMES).chain(cupti).collect();
    assert!(names.len() > 1000);
    let path = CString::new(library().into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: opening the library runs none of its code, and all arguments are C strings.
    let missing: Vec<&str> = unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!handle.is_null());
        let is_missing = |name: &&str| libc::dlsym(handle, CString::new(*name).unwrap().as_ptr()).is_null();
        names.into_iter().filter(is_missing).collect()
    };
    assert_eq!(missing, [""; 0]);
}

#[test]
fn the_loader_knows_it_as_libcuda() {
    let bytes = std::fs::read(library()).unwrap();
    let name = b"\0libcuda.so.1\0";
    assert!(bytes.windows(name.len()).any(|window| window == name));
}
