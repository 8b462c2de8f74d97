//! The runtime surface over the simulated GPU, under unmodified PyTorch for CUDA 13 and under a program for CUDA 12: that calls
//! bind to it, that it has every name, that it answers as the real libcudart of each version does, and that it can be
//! switched off.

mod support;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::Command;

/// Runs Python as a client of a private server; gives what it printed and the shim's log.
fn passes(arguments: &[&str], settings: &[(&str, &str)]) -> (String, String) {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("shim.log");
    let mut command = support::torpor(home.path());
    command
        .args(["run", "--private", "--driver", "simulated", "--"])
        .arg(support::torch_python())
        .args(arguments);
    command.env("TORPOR_SHIM_LOG", &log).env_remove("TORPOR_RUNTIME_SURFACE");
    command.envs(settings.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {}\n{printed}\n{errors}", output.status);
    (printed, std::fs::read_to_string(log).unwrap_or_default())
}

fn script(name: &str) -> String {
    format!("{}/tests/torch/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// The libcudart that PyTorch brings.
fn real_runtime() -> String {
    let code = "import torch; print(next(line.split()[-1] for line in open('/proc/self/maps') if 'libcudart.so' in line))";
    let output = Command::new(support::torch_python()).args(["-c", code]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The libcudart of CUDA 12 that `scripts/install-cuda12` puts there.
fn real_runtime_12() -> String {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cuda12/nvidia/cuda_runtime/lib/libcudart.so.12");
    let path =
        path.canonicalize().unwrap_or_else(|_| panic!("no {}: run scripts/install-cuda12", path.display()));
    path.to_str().unwrap().to_owned()
}

/// The functions that a library exports.
fn exported(library: &Path) -> HashSet<String> {
    let output = Command::new("nm").args(["--dynamic", "--defined-only"]).arg(library).output().unwrap();
    assert!(output.status.success(), "nm (binutils) lists {}", library.display());
    let listing = String::from_utf8(output.stdout).unwrap();
    let functions = listing.lines().filter_map(|line| {
        let [_, kind, name] = line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        let name = name.split('@').next()?;
        (kind == "T" || kind == "W").then(|| name.to_owned())
    });
    functions.collect()
}

/// What the calls of a libcudart (`libcudart.so.13`, say) are bound to in a client, at the latest when it is loaded: by file,
/// the symbols.
fn bound(arguments: &[&str], runtime: &str) -> BTreeMap<String, HashSet<String>> {
    let traces = tempfile::tempdir().unwrap();
    let prefix = traces.path().join("bindings");
    let settings =
        [("LD_DEBUG", "bindings"), ("LD_DEBUG_OUTPUT", prefix.to_str().unwrap()), ("LD_BIND_NOW", "1")];
    passes(arguments, &settings);
    // One file per process; `binding file A [0] to B [0]: normal symbol `S' [V]`.
    let mut bound: BTreeMap<String, HashSet<String>> = BTreeMap::new();
    for file in std::fs::read_dir(traces.path()).unwrap() {
        let trace = String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()).into_owned();
        for line in trace.lines().filter(|line| line.ends_with(&format!("[{runtime}]"))) {
            let target = line.split(" to ").nth(1).unwrap().split(" [").next().unwrap();
            let symbol = line.split(['`', '\'']).nth(1).unwrap();
            bound.entry(target.rsplit('/').next().unwrap().to_owned()).or_default().insert(symbol.to_owned());
        }
    }
    bound
}

#[test]
fn pytorchs_runtime_calls_bind_to_the_shim() {
    let code = "import torch; torch.empty(1, device='cuda'); print(torch.zeros(5).cuda().cpu())";
    let bound = bound(&["-c", code], "libcudart.so.13");
    let targets: Vec<&String> = bound.keys().collect();
    assert_eq!(targets, ["libtorpor_intercept.so"], "who else is bound to: {bound:?}");
    let own = &bound["libtorpor_intercept.so"];
    // All but those of libraries that this program does not load.
    assert!(
        own.len() > 80 && own.contains("__cudaLaunchKernel") && own.contains("cudaMemcpyAsync"),
        "{own:?}"
    );
}

#[test]
fn runtime_calls_of_a_program_for_cuda_12_bind_to_the_shim() {
    let bound = bound(&[&script("cuda12.py"), &real_runtime_12()], "libcudart.so.12");
    let targets: Vec<&String> = bound.keys().collect();
    assert_eq!(targets, ["libtorpor_intercept.so"], "who else is bound to: {bound:?}");
    let own = &bound["libtorpor_intercept.so"];
    assert!(own.contains("__cudaRegisterFatBinary") && own.contains("cudaLaunchKernel"), "{own:?}");
}

#[test]
fn a_program_for_cuda_12_finds_its_names_structures_and_launches() {
    for setting in ["on", "off"] {
        let settings = [("TORPOR_RUNTIME_SURFACE", setting)];
        let (printed, log) = passes(&[&script("cuda12.py"), &real_runtime_12()], &settings);
        assert!(printed.contains("cuda12 passed"), "{printed}");
        assert_eq!(log.contains("CUDA runtime calls are left to /"), setting == "off", "{log}");
    }
}

#[test]
fn with_both_versions_each_finds_the_structures_that_it_asks_for() {
    // What code for CUDA 12 and for CUDA 13 calls cudaGetDeviceProperties; where each has the number of multiprocessors.
    let code = format!(
        "import ctypes as c, struct; [c.CDLL(path) for path in ({:?}, {:?})]; own = c.CDLL(None)\n\
         release = c.c_int(); assert own.cudaRuntimeGetVersion(c.byref(release)) == 0\n\
         def told(name, at):\n    \
             place = (c.c_uint8 * 1032)(); assert getattr(own, name)(place, 0) == 0\n    \
             return struct.unpack_from('i', place, at)[0]\n\
         same = told('cudaGetDeviceProperties_v2', 388) == told('cudaGetDeviceProperties', 384) > 1\n\
         print(release.value // 1000, same)",
        real_runtime_12(),
        real_runtime()
    );
    let (printed, log) = passes(&["-c", &code], &[]);
    assert_eq!(printed.trim(), "13 True");
    assert!(!log.contains("are left to"), "{log}");
}

#[test]
fn every_name_of_the_real_runtimes_is_exported() {
    let real: HashSet<String> =
        [real_runtime(), real_runtime_12()].iter().flat_map(|path| exported(Path::new(path))).collect();
    let own = exported(&support::part("libtorpor_intercept.so"));
    assert!(real.len() > 440, "{}", real.len());
    let missing: Vec<_> = real.difference(&own).collect();
    assert!(missing.is_empty(), "a program would fall through to the real libcudart: {missing:?}");
    let invented: Vec<_> = own
        .iter()
        .filter(|name| name.trim_start_matches('_').starts_with("cuda") && !real.contains(*name))
        .collect();
    assert!(invented.is_empty(), "{invented:?}");
}

#[test]
fn answers_are_those_of_the_real_runtime() {
    for runtime in [real_runtime(), real_runtime_12()] {
        let (printed, log) = passes(&[&script("same_answers.py"), &runtime], &[]);
        assert!(printed.contains("same answers passed"), "{runtime}");
        assert!(!log.contains("are left to"), "{log}");
    }
}

#[test]
fn an_extension_loaded_later_launches_its_kernels() {
    assert!(passes(&[&script("extension.py")], &[]).0.contains("extension passed"));
}

#[test]
fn arrays_and_objects_over_them_are_there_on_both_surfaces() {
    for setting in ["on", "off"] {
        let settings = [("TORPOR_RUNTIME_SURFACE", setting)];
        let (printed, log) = passes(&[&script("arrays.py")], &settings);
        assert!(printed.contains("arrays passed"), "{printed}");
        assert!(!log.contains("is not supported"), "{log}");
    }
}

#[test]
fn the_surface_can_be_switched_off() {
    let off = [("TORPOR_RUNTIME_SURFACE", "off")];
    for name in ["tensors", "events", "libraries", "extension", "fork", "registered", "host_functions"] {
        let (printed, log) = passes(&[&script(&format!("{name}.py"))], &off);
        assert!(printed.contains("passed"), "{name}: {printed}");
        let lines = log.lines().filter(|line| line.contains("CUDA runtime calls are left to /"));
        assert!(lines.count() >= 1, "{name}: {log}");
    }
}

#[test]
fn a_program_for_another_version_keeps_its_own_runtime() {
    // A libcudart.so.14 in name only: it is asked, and answers with a version that nobody else gives.
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("runtime.c"), folder.path().join("libcudart.so.14"));
    std::fs::write(&source, "int cudaRuntimeGetVersion(int *version) { *version = 14321; return 0; }")
        .unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-Wl,-soname,libcudart.so.14", "-o"]).arg(&library).arg(&source);
    assert!(compiler.status().unwrap().success());
    let code = format!(
        "import ctypes as c; c.CDLL({library:?}); v = c.c_int(); own = c.CDLL(None)\n\
         assert own.cudaRuntimeGetVersion(c.byref(v)) == 0; print(v.value, own.cudaMalloc(None, 1))"
    );
    let (printed, log) = passes(&["-c", &code], &[]);
    assert_eq!(printed.trim(), "14321 801", "what it does not have is not supported");
    assert_eq!(log.lines().filter(|line| line.contains("it is CUDA 14")).count(), 1, "{log}");
}

#[test]
fn ways_of_remoting_differ_in_what_is_awaited_alone() {
    let pings = |way: &str| {
        let settings = [("TORPOR_REMOTING", way), ("TORPOR_LOG", "trace")];
        let (printed, log) = passes(&[&script("extension.py")], &settings);
        assert!(printed.contains("extension passed"), "{way}: {printed}");
        assert_eq!(log.contains("it is taken for full"), way == "half", "{way}");
        log.lines().filter(|line| line.contains("awaited Ping for")).count()
    };
    assert_eq!((pings("full"), pings("half")), (0, 0));
    let [unbatched, batched, no_local, awaited] = ["unbatched", "batched", "no-local", "awaited"].map(pings);
    let questions = [unbatched, batched, no_local];
    assert!(questions.iter().all(|&asked| asked > 100), "{questions:?}");
    assert!(awaited > unbatched + 100, "posted calls are awaited too: {awaited} and {unbatched}");
}
