//! What the end-to-end tests need to start: the parts of Torpor that Cargo built.

#![allow(dead_code, reason = "each of the test programs that share this uses a part of it")]

pub mod running;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The `torpor` program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_torpor");

/// A part of Torpor that Cargo builds beside the program, or into `deps` if only a test wants it; the newest of both.
pub fn part(file: &str) -> PathBuf {
    let beside = Path::new(PROGRAM).parent().unwrap();
    let candidates = [beside.join(file), beside.join("deps").join(file)];
    let built = |path: &PathBuf| fs::metadata(path).and_then(|file| file.modified()).ok();
    let found = candidates.into_iter().filter(|path| path.is_file()).max_by_key(built);
    found.unwrap_or_else(|| panic!("{file} is missing: run `cargo build --workspace` first"))
}

/// A Python that has PyTorch: `$TORPOR_TORCH_PYTHON`, or that of `scripts/install-torch`.
pub fn torch_python() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
    let python = std::env::var_os("TORPOR_TORCH_PYTHON").map_or(default, PathBuf::from);
    assert!(
        python.exists(),
        "no {}: run scripts/install-torch, or set TORPOR_TORCH_PYTHON",
        python.display()
    );
    python
}

/// `torpor` with all its parts, and with `home` for what it puts somewhere.
pub fn torpor(home: &Path) -> Command {
    let mut command = Command::new("env");
    // Ignored signals stay ignored, and SIGINT is if these tests run in the background of a shell.
    command.arg("--default-signal").arg(PROGRAM);
    command.env("XDG_RUNTIME_DIR", home).env_remove("LD_PRELOAD").env_remove("TORPOR_SERVER");
    command.env_remove("TORPOR_CONFIG").env("CUDA_CACHE_PATH", home.join("ComputeCache"));
    command.env("TORPOR_GPUSERVER", part("torpor-gpuserver"));
    command.env("TORPOR_INTERCEPT", part("libtorpor_intercept.so"));
    command.env("TORPOR_SIMGPU", part("libtorpor_simgpu.so"));
    command
}
