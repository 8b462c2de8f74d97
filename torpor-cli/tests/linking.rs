//! The driver's linker (`cuLink…`) from end to end: a program over the preloaded library, a real worker, a job of its compiler and
//! the simulated GPU.

mod support;

use std::path::Path;

#[test]
fn a_program_links_one_input_or_several_and_runs_kernels_of_each() {
    let home = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/linking/inputs.py");
    let mut command = support::torpor(home.path());
    command.args(["run", "--private", "--driver", "simulated", "--", "python3"]).arg(script);
    let output = command.output().unwrap();
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && printed.contains("linking passed"), "{printed}\n{errors}");
}
