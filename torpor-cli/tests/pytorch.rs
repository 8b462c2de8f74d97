//! Unmodified PyTorch over the simulated GPU. `TORPOR_TORCH_PYTHON` names a Python that has torch 2.11, as
//! `scripts/install-torch` makes it; without one these tests fail and say so, because nothing else shows what they show.

mod support;

use std::path::Path;
use std::process::Output;

/// Runs one of the programs in `tests/torch` as a client of a private server.
fn run(script: &str, settings: &[(&str, &str)]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(script);
    let mut command = support::torpor(home.path());
    command
        .args(["run", "--private", "--driver", "simulated", "--"])
        .arg(support::torch_python())
        .arg(script);
    command.envs(settings.iter().copied());
    command.output().unwrap()
}

fn passes(script: &str, settings: &[(&str, &str)]) -> String {
    let output = run(script, settings);
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {}\n{printed}\n{errors}", output.status);
    printed.into_owned()
}

#[test]
fn tensors_travel_there_and_back() {
    assert!(passes("tensors.py", &[]).contains("tensors passed"));
}

#[test]
fn events_time_and_order() {
    assert!(passes("events.py", &[]).contains("events passed"));
}

#[test]
fn uploads_are_there_for_every_stream() {
    let real_time = [("TORPOR_SIMGPU_TIME", "real")];
    assert!(passes("uploads.py", &real_time).contains("uploads passed"));
    assert!(passes("synchronised.py", &real_time).contains("synchronised passed"));
}

#[test]
fn nothing_is_known_of_a_stream_or_an_event_that_was_true_of_another() {
    assert!(passes("order.py", &[]).contains("order passed"));
}

#[test]
fn the_check_of_order_finds_nothing() {
    let reports = tempfile::tempdir().unwrap();
    let log = reports.path().join("log");
    let settings = [
        ("TORPOR_SIMGPU_CHECKS", "unordered"),
        ("TORPOR_SIMGPU_LOG", log.to_str().expect("a path of ASCII")),
    ];
    let scripts =
        ["tensors.py", "events.py", "registered.py", "uploads.py", "synchronised.py", "graph_copies.py"];
    for script in scripts {
        passes(script, &settings);
    }
    let said = std::fs::read_to_string(log).unwrap();
    assert!(!said.is_empty() && !said.contains("check "), "{said}");
}

#[test]
fn out_of_memory_is_an_exception_of_pytorch() {
    assert!(passes("memory.py", &[("TORPOR_SIMGPU_MEMORY", "1GiB")]).contains("memory passed"));
}

#[test]
fn pools_keep_memory_in_the_order_of_streams() {
    assert!(passes("pools.py", &[("TORPOR_SIMGPU_MEMORY", "1GiB")]).contains("pools passed"));
}

#[test]
fn pools_may_be_of_the_host_or_of_managed_memory() {
    assert!(passes("host_pools.py", &[]).contains("host pools passed"));
}

#[test]
fn pytorch_may_allocate_from_a_pool() {
    let settings = [("PYTORCH_CUDA_ALLOC_CONF", "backend:cudaMallocAsync"), ("TORPOR_SIMGPU_MEMORY", "1GiB")];
    for script in ["tensors.py", "memory.py"] {
        passes(script, &settings);
    }
}

#[test]
fn cublas_and_cudnn_make_their_handles() {
    assert!(passes("libraries.py", &[]).contains("libraries passed"));
}

#[test]
fn a_forked_child_gets_the_error_that_the_driver_gives() {
    assert!(passes("fork.py", &[]).contains("fork passed"));
}

#[test]
fn registered_memory_is_pinned_and_keeps_its_contents() {
    assert!(passes("registered.py", &[]).contains("registered passed"));
}

#[test]
fn host_functions_are_called_in_the_order_of_streams() {
    assert!(passes("host_functions.py", &[]).contains("host functions passed"));
}

#[test]
fn streams_write_words_and_wait_for_words() {
    // Two processes that have no room together are among its last ones.
    let settings = [("TORPOR_SIMGPU_MEMORY", "512MiB"), ("WORDS_MIB", "300")];
    assert!(passes("words.py", &settings).contains("words passed"));
}

#[test]
fn nvml_says_what_cuda_says_and_makes_no_client() {
    assert!(passes("nvml.py", &[]).contains("nvml passed"));
}

#[test]
fn symmetric_memory_does_without_a_fabric() {
    assert!(passes("symmetric.py", &[]).contains("symmetric passed"));
}

#[test]
fn a_device_is_shown_by_number_or_uuid() {
    assert!(passes("visible.py", &[]).contains("visible passed"));
}

#[test]
fn graphs_are_built_edited_and_captured() {
    assert!(passes("graphs.py", &[]).contains("graphs passed"));
}

#[test]
fn graphs_copy_pageable_memory_as_it_is_at_each_launch() {
    assert!(passes("graph_copies.py", &[]).contains("graph copies passed"));
}

#[test]
fn the_profiler_sees_kernels_copies_and_fills_with_where_they_come_from() {
    // The times of its kernels are the simulated GPU's: of the right order among each other and with the host's, in real time.
    let settings = [("TORPOR_SIMGPU_CUBINS", "skip"), ("TORPOR_SIMGPU_TIME", "real")];
    assert!(passes("profiler.py", &settings).contains("profiler passed"));
}

#[test]
fn a_hidden_device_is_not_there() {
    assert!(passes("hidden.py", &[("CUDA_VISIBLE_DEVICES", "")]).contains("hidden passed"));
}

#[test]
fn a_device_address_that_is_none_is_an_error() {
    assert!(passes("wild_pointers.py", &[]).contains("wild pointers passed"));
}

#[test]
fn what_programs_for_cuda_13_take_for_granted() {
    assert!(passes("cuda13.py", &[]).contains("cuda13 passed"));
}

#[test]
fn batches_of_boxes_are_copied_and_wrong_ones_named() {
    assert!(passes("boxes.py", &[]).contains("boxes passed"));
}

#[test]
fn functions_that_few_programs_call_are_answered_as_without_a_choice() {
    assert!(passes("seldom.py", &[]).contains("seldom passed"));
}

#[test]
fn a_program_that_closes_the_connection_is_told_what_it_did() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let settings = [("TORPOR_SHIM_LOG", log.path().to_str().expect("a path of ASCII"))];
    assert!(passes("closed.py", &settings).contains("closed passed"));
}

#[test]
fn a_server_that_dies_is_an_error_within_a_second() {
    assert!(passes("dead_server.py", &[]).contains("dead server passed"));
}
