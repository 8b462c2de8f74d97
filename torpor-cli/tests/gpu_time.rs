//! Who used the GPU for how long, beside what the simulated GPU counts itself (its events).

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use support::running::{Running, eventually};
use support::torpor;

/// Twice ten kernels of 20 ms each, and half a second of nothing between: prints how long the GPU says that the kernels took, and
/// how long all of it took, in seconds.
const BUSY: &str = r#"
import ctypes, time
cuda = ctypes.CDLL("libcuda.so.1")
def check(error):
    assert error == 0, error
began = time.monotonic()
check(cuda.cuInit(0))
context, module, kernel = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
first, last, ms, gpu = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float(), 0.0
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
check(cuda.cuCtxSetCurrent(context))
ptx = b".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry nothing() { ret; }\n\0"
check(cuda.cuModuleLoadData(ctypes.byref(module), ptx))
check(cuda.cuModuleGetFunction(ctypes.byref(kernel), module, b"nothing"))
for event in (first, last):
    check(cuda.cuEventCreate(ctypes.byref(event), 0))
for burst in range(2):
    time.sleep(0.5 * burst)
    check(cuda.cuEventRecord(first, None))
    for _ in range(10):
        check(cuda.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, None, None, None))
    check(cuda.cuEventRecord(last, None))
    check(cuda.cuEventSynchronize(last))
    check(cuda.cuEventElapsedTime(ctypes.byref(ms), first, last))
    gpu += ms.value / 1e3
print(gpu, time.monotonic() - began)
"#;

/// What the router tells Prometheus of the GPU time of a function, in seconds.
fn gpu_seconds(socket: &Path, function: &str) -> Option<f64> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: router\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let name = format!("torpor_gpu_seconds_total{{function=\"{function}\",gpu=\"0\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
}

#[test]
fn gpu_seconds_are_what_the_gpu_counts_and_nobody_else_s() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    std::fs::write(home.join("torpor.toml"), "[server]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let mut serve = torpor(home);
    serve.env("TORPOR_SIMGPU_TIME", "real").env("TORPOR_SIMGPU_PROFILE", "small:kernel_us=20000");
    let _server = Running::start(serve.args(["serve", "--driver", "simulated"]));
    assert!(torpor(home).arg("wait").status().unwrap().success());
    let _router = Running::start(torpor(home).args(["router", "--config", "torpor.toml"]).current_dir(home));
    let run = |function: &str, program: &str| {
        let output =
            torpor(home).args(["run", "--function", function, "python3", "-c", program]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    run("idle", "import ctypes; assert ctypes.CDLL('libcuda.so.1').cuInit(0) == 0");
    let told = run("busy", BUSY);
    let [own, wall] =
        told.split_whitespace().map(|word| word.parse::<f64>().unwrap()).collect::<Vec<_>>()[..]
    else {
        panic!("{told}");
    };
    let socket = home.join("torpor/router.sock");
    eventually("the router is there", || socket.exists());
    let counted = gpu_seconds(&socket, "busy").unwrap();
    // Of twenty kernels of 20 ms each; events around all of them count the pauses in between, too.
    assert!(own > 0.39, "{own} s");
    assert!(counted >= 0.98 * 0.4 && counted < wall, "{counted} s; {own} s by its events, {wall} s in all");
    assert_eq!(gpu_seconds(&socket, "idle"), None);
}
