//! Whether a CUDA driver works, found out in a process of its own: the node server itself never holds a driver.

use crate::server::installation::{MissingPart, SIMULATED_DRIVER};
use crate::server::options::DriverChoice;
use std::error::Error;
use std::ffi::{OsStr, c_int, c_uint};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The system's driver, by the name that the dynamic linker knows it by.
const SYSTEM_DRIVER: &str = "libcuda.so.1";

/// How long a driver may take to initialise; a node with many GPUs and no persistence daemon takes seconds.
const PROBE_TIMEOUT: Duration = Duration::from_secs(60);

/// A driver that works.
#[derive(Debug)]
pub struct UsableDriver {
    /// Its library.
    pub library: PathBuf,
    /// Its GPUs.
    pub devices: u32,
    /// Whether it simulates them.
    pub simulated: bool,
}

/// Why there is no driver.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The one that was asked for does not work.
    #[error("the driver {library} does not work: {reason}")]
    Unusable {
        /// Its library.
        library: PathBuf,
        /// What it says.
        reason: String,
    },
    /// The system's does not work, though there is a GPU.
    #[error(
        "{error}; but there is an NVIDIA GPU here ({trace}), so none is simulated: repair the driver (what does `nvidia-smi` \
         say?), or ask for a simulated one with --driver simulated"
    )]
    Broken {
        /// What shows that there is a GPU.
        trace: PathBuf,
        /// What is wrong with its driver.
        error: Box<ProbeError>,
    },
    /// The simulated one is not installed.
    #[error(transparent)]
    Simulated(#[from] MissingPart),
}

/// Finds the driver that `choice` means. Tells on standard error if a simulated one stands in for the system's.
///
/// # Errors
/// [`ProbeError`].
pub fn find_driver(choice: &DriverChoice, program: &Path) -> Result<UsableDriver, ProbeError> {
    let usable = |library: PathBuf, simulated| match probe_in_child(program, library.as_os_str()) {
        Ok(devices) => Ok(UsableDriver { library, devices, simulated }),
        Err(reason) => Err(ProbeError::Unusable { library, reason }),
    };
    match choice {
        DriverChoice::Library(library) => usable(library.clone(), SIMULATED_DRIVER.is_at(library)),
        DriverChoice::Simulated => usable(SIMULATED_DRIVER.find()?, true),
        DriverChoice::Auto => match usable(SYSTEM_DRIVER.into(), false) {
            Ok(driver) => Ok(driver),
            Err(error) => match trace_of_gpu(Path::new("/")) {
                Some(trace) => Err(ProbeError::Broken { trace, error: Box::new(error) }),
                None => {
                    eprintln!("torpor: {error}; simulating GPUs instead");
                    usable(SIMULATED_DRIVER.find()?, true)
                }
            },
        },
    }
}

/// What NVIDIA's kernel module or its device nodes leave in a file system: a node that has GPUs for real must not serve
/// simulated ones because its driver is broken today.
fn trace_of_gpu(root: &Path) -> Option<PathBuf> {
    let is_device = |name: &str| {
        name.strip_prefix("nvidia").is_some_and(|rest| {
            rest == "ctl" || (!rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
        })
    };
    let entries = fs::read_dir(root.join("dev")).into_iter().flatten().flatten();
    let mut devices = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_device));
    let module = root.join("proc/driver/nvidia/version");
    devices.next().map(|entry| entry.path()).or_else(|| module.exists().then_some(module))
}

fn probe_in_child(program: &Path, library: &OsStr) -> Result<u32, String> {
    let mut command = Command::new(program);
    command.arg("probe").arg("--driver").arg(library);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.spawn().map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
    let deadline = Instant::now() + PROBE_TIMEOUT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("it did not initialise within {} seconds", PROBE_TIMEOUT.as_secs()));
            }
        }
    };
    let (mut answer, mut complaint) = (String::new(), String::new());
    // Both are short enough for a pipe's buffer, so the child never waits to be read.
    let _ = child.stdout.take().map(|mut pipe| pipe.read_to_string(&mut answer));
    let _ = child.stderr.take().map(|mut pipe| pipe.read_to_string(&mut complaint));
    match answer.trim().parse() {
        Ok(0) => Err("it has no GPU".to_owned()),
        Ok(devices) if status.success() => Ok(devices),
        _ if complaint.trim().is_empty() => Err(format!("its probe ended with {status}")),
        _ => {
            let last = complaint.trim().lines().last().unwrap_or_default();
            Err(last.trim_start_matches("torpor-gpuserver: ").to_owned())
        }
    }
}

/// In the child: loads the driver, initialises it, and counts its GPUs.
///
/// # Errors
/// What is wrong with it, for people.
pub fn probe(library: &Path) -> Result<u32, String> {
    type Init = unsafe extern "C" fn(c_uint) -> c_uint;
    type DeviceGetCount = unsafe extern "C" fn(*mut c_int) -> c_uint;
    let check = |what, code| if code == 0 { Ok(()) } else { Err(format!("{what} gives CUDA error {code}")) };

    // SAFETY: the constructors of a library that somebody names as a driver are trusted as that driver is.
    let driver = unsafe { libloading::Library::new(library) }.map_err(|error| last_cause(&error))?;
    // SAFETY: `CUresult cuInit(unsigned int)` in cuda.h; CUresult is an int-sized enum.
    let init = unsafe { driver.get::<Init>(b"cuInit\0") }.map_err(|error| last_cause(&error))?;
    // SAFETY: `CUresult cuDeviceGetCount(int *)` in cuda.h.
    let get_count =
        unsafe { driver.get::<DeviceGetCount>(b"cuDeviceGetCount\0") }.map_err(|error| last_cause(&error))?;

    // SAFETY: cuInit takes no pointer, and flags must be 0.
    check("cuInit", unsafe { init(0) })?;
    let mut devices = 0;
    // SAFETY: the pointer is to a live int.
    check("cuDeviceGetCount", unsafe { get_count(&raw mut devices) })?;
    // Drivers have threads of their own by now and do not expect to be unloaded.
    std::mem::forget(driver);
    u32::try_from(devices).map_err(|_| format!("it counts {devices} GPUs"))
}

/// What the dynamic linker said; the errors around it only say that it said something.
fn last_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_gpus_is_known_by_device_nodes_or_module() {
        let root = tempfile::tempdir().unwrap();
        let found = || trace_of_gpu(root.path());
        fs::create_dir_all(root.path().join("dev/nvidia-caps")).unwrap();
        assert_eq!(found(), None);
        let module = root.path().join("proc/driver/nvidia/version");
        fs::create_dir_all(module.parent().unwrap()).unwrap();
        fs::write(&module, "NVRM").unwrap();
        assert_eq!(found(), Some(module));
        for name in ["nvidiactl", "nvidia12"] {
            let device = root.path().join("dev").join(name);
            fs::write(&device, "").unwrap();
            assert_eq!(found(), Some(device.clone()));
            fs::remove_file(&device).unwrap();
        }
    }

    #[test]
    fn a_library_that_is_no_driver_is_named_with_its_fault() {
        assert!(probe(Path::new("/nonexistent/libcuda.so")).unwrap_err().contains("/nonexistent/libcuda.so"));
        assert!(probe(Path::new("libc.so.6")).unwrap_err().contains("cuInit"));
    }
}
