//! Whole programs over a simulated GPU that skips kernels: what unmodified PyTorch asks of the shim, library by library, and
//! how often an inference waits.

mod support;

use std::path::Path;

/// What an inference waits for: its answer.
const AWAITED: usize = 1;

#[test]
fn no_call_of_a_program_is_refused_and_a_steady_inference_hardly_waits() {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("shim.log");
    let mut command = support::torpor(home.path());
    command.args(["run", "--private", "--driver", "simulated", "--"]).arg(support::torch_python());
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch/models.py"));
    command.envs([("TORPOR_SIMGPU_CUBINS", "skip"), ("TORPOR_LOG", "trace")]).env("TORPOR_SHIM_LOG", &log);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{printed}\n{errors}", output.status);
    let inferences: usize = printed.trim().strip_prefix("models passed ").unwrap().parse().unwrap();

    let log = std::fs::read_to_string(log).unwrap();
    let refused: Vec<_> = log.lines().filter(|line| line.contains("is not supported")).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    let mut marked = log.lines().skip_while(|line| !line.ends_with(": cuProfilerStart"));
    let steady: Vec<_> = marked.by_ref().take_while(|line| !line.ends_with(": cuProfilerStop")).collect();
    assert!(marked.next().is_some(), "the second mark is missing");
    let launches = steady.iter().filter(|line| line.contains("LaunchKernel")).count();
    assert!(launches > 20 * inferences, "{launches} launches are no network");
    let awaited: Vec<_> = steady.iter().filter(|line| line.contains(": awaited ")).collect();
    assert!(!awaited.is_empty() && awaited.len() <= AWAITED * inferences, "{awaited:#?}");
}
