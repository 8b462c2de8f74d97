//! Linker options of the shared library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Threads of the simulator run its code until the process ends, so unloading it must do nothing.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
