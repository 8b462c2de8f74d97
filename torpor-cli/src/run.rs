//! `torpor run`: a command as a client.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use crate::names;
use crate::private_server::PrivateServer;
use crate::several_devices;
use crate::signals::Signals;
use rustix::process::{Pid, kill_process};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;
use tokio::process::{Child, Command};
use torpor_gpuserver::server::TuningArgs;
use torpor_gpuserver::server::installation::INTERCEPT_LIBRARY;
use torpor_gpuserver::server::settings::{DeviceCount, Isolation};
use torpor_proto::control::admin::{self, EnsureFunctionRequest, ListGpusRequest, Terms};
use torpor_proto::directory::{DEFAULT_FUNCTION, InvalidName, check_function_name};

/// How often to look whether the private server is still there.
const SERVER_CHECK: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Uses the server of the directory if one listens there; else starts a private one, which ends with the command. The
flags that `torpor serve` has too are for the private server.

Examples:
  torpor run -- python infer.py
  torpor run --function resnet -- python -m my_server --port 8080
  torpor run --driver simulated -- python -c 'import torch; print(torch.cuda.get_device_name(0))'

Exits as the command does (128 + N if signal N killed it).";

/// Run a command whose CUDA calls go to the node's GPUs
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, override_usage = "torpor run [OPTIONS] -- COMMAND [ARGUMENT]...")]
pub struct Run {
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,

    /// The function that the command belongs to [default: $TORPOR_FUNCTION, else "default"]
    #[arg(long, value_name = "NAME", value_parser = function_name)]
    function: Option<String>,

    /// What the function's next processes are kept apart from others by, from now on, whatever the settings file says
    #[arg(long, value_name = "MODE")]
    isolation: Option<Isolation>,

    /// How many devices the function's next processes see, from now on, whatever the settings file says (`gpus` there); all that one
    /// process sees lie on one GPU, and processes that begin with different ones on different GPUs
    #[arg(long, value_name = "N")]
    devices: Option<DeviceCount>,

    #[command(flatten)]
    directory: DirectoryFlag,

    /// Start a private server even if one listens
    #[arg(long)]
    private: bool,

    #[command(flatten, next_help_heading = "Options of the private server")]
    tuning: TuningArgs,
}

impl Run {
    /// Runs the command. The exit code is the command's.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let library = INTERCEPT_LIBRARY.find()?;
        let preload = preload(&library, env::var_os("LD_PRELOAD"))?;
        let (mut admin, mut private) = self.server()?;
        let from_environment = || env::var("TORPOR_FUNCTION").ok().filter(|name| !name.is_empty());
        let name = self.function.or_else(from_environment).unwrap_or_else(|| DEFAULT_FUNCTION.to_owned());
        tell_if_simulated(&mut admin)?;
        let isolation = |isolation| i32::from(admin::Isolation::from(isolation));
        let said = self.isolation.is_some() || self.devices.is_some();
        let terms = said.then(|| Terms {
            isolation: self.isolation.map(isolation),
            gpus: self.devices.map(DeviceCount::get),
            ..Terms::default()
        });
        let made = admin.ask(async |api| {
            let name = name.clone();
            api.ensure_function(EnsureFunctionRequest { name, terms }).await
        })?;
        let (function, devices) = (made.directory, made.devices);
        drop(admin);

        let (program, arguments) = self.command.split_first().expect("clap requires a command");
        let mut command = std::process::Command::new(program);
        command.args(arguments).env("LD_PRELOAD", preload).env("TORPOR_SERVER", &function);
        command.env("LD_LIBRARY_PATH", names::prepare(Path::new(&function), &library)?);
        several_devices::variables(devices).for_each(|(name, value)| _ = command.env(name, value));
        let failed = |error| CliError::Command { command: program.clone(), error };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let status = runtime.block_on(async {
            let signals = Signals::catch()?;
            let child = Command::from(command).spawn().map_err(failed)?;
            attend(child, signals, private.as_mut()).await
        })?;
        Ok(exit_code(status))
    }

    fn server(&self) -> Result<(Admin, Option<PrivateServer>), CliError> {
        if !self.private {
            match Admin::connect(&self.directory.server()) {
                Ok(admin) => {
                    if self.tuning != TuningArgs::default() {
                        eprintln!(
                            "torpor: a server listens already, so flags for a private one do nothing (see --private)"
                        );
                    }
                    return Ok((admin, None));
                }
                Err(CliError::NoServer(directory)) => {
                    eprintln!("torpor: no server listens in {}: starting a private one", directory.display());
                }
                Err(error) => return Err(error),
            }
        }
        let server = PrivateServer::start(&self.tuning)?;
        Ok((Admin::connect(server.directory())?, Some(server)))
    }
}

/// What is not said by the program's errors: why PyTorch's kernels do not run.
fn tell_if_simulated(admin: &mut Admin) -> Result<(), CliError> {
    let gpus = admin.ask(async |api| api.list_gpus(ListGpusRequest {}).await)?.gpus;
    if gpus.iter().any(|gpu| gpu.simulated) {
        eprintln!(
            "torpor: the GPU is simulated, on the CPU: kernels that come as PTX run, PyTorch's own do not \
             (docs/simulated-gpu.md)"
        );
    }
    Ok(())
}

/// Waits for the command's end, passes signals on, and tells if the private server ends before it.
async fn attend(
    mut child: Child,
    mut signals: Signals,
    mut server: Option<&mut PrivateServer>,
) -> Result<ExitStatus, CliError> {
    let mut server_check = tokio::time::interval(SERVER_CHECK);
    let process = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            signal = signals.next() => {
                // A command that has ended meanwhile needs no signal.
                let _ = process.map(|process| kill_process(process, signal));
            }
            _ = server_check.tick() => if let Some(status) = server.as_mut().and_then(|server| server.has_ended()) {
                let log = server.take().map(|server| server.log().display().to_string()).unwrap_or_default();
                eprintln!("torpor: the private server ended ({status}); its log: {log}");
            }
        }
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Folders above a program's file, at most: as many steps up as lead from any to the root.
const DEPTH: usize = 40;

/// `LD_PRELOAD` with the library in front of what is there. Source: ld.so(8).
pub fn preload(library: &Path, existing: Option<OsString>) -> Result<OsString, CliError> {
    if library.as_os_str().as_bytes().iter().any(|byte| b" :\t\n".contains(byte)) {
        return Err(CliError::Unpreloadable(library.to_owned()));
    }
    let mut value = entry(library, fs::read_link("/proc/self/exe").is_ok());
    if let Some(existing) = existing.filter(|existing| !existing.is_empty()) {
        value.push(OsStr::new(":"));
        value.push(existing);
    }
    Ok(value)
}

/// The library, called so that glibc's loader finds it and musl's does not, which could not relocate it and would end the program: glibc puts
/// the folder of the program's file, which it has of `/proc`, in the place of `$ORIGIN`, from where steps up lead to the root; for musl it
/// is a name like any other, and it goes on without what is not there.
fn entry(library: &Path, has_proc: bool) -> OsString {
    match library.strip_prefix("/") {
        Ok(below) if has_proc => {
            let mut entry = OsString::from(format!("$ORIGIN/{}", "../".repeat(DEPTH)));
            entry.push(below);
            entry
        }
        _ => library.as_os_str().to_owned(),
    }
}

/// A function's name, as an argument.
pub fn function_name(name: &str) -> Result<String, InvalidName> {
    check_function_name(name).map(|()| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn what_is_preloaded_already_stays_behind_ours() {
        let library = PathBuf::from("/opt/libtorpor_intercept.so");
        let ours = entry(&library, true);
        assert_eq!(preload(&library, None).unwrap(), ours);
        assert_eq!(preload(&library, Some("".into())).unwrap(), ours);
        let value = preload(&library, Some("a.so b.so".into())).unwrap();
        assert_eq!(value.to_str().unwrap(), format!("{}:a.so b.so", ours.display()));
        assert!(matches!(preload(Path::new("/my tools/x.so"), None), Err(CliError::Unpreloadable(_))));
    }

    #[test]
    fn the_library_is_called_by_the_way_from_any_program_to_it() {
        let library = Path::new("/opt/libtorpor_intercept.so");
        let called = entry(library, true).into_string().unwrap();
        assert!(called.starts_with("$ORIGIN/../../") && called.ends_with("/../opt/libtorpor_intercept.so"));
        assert_eq!(entry(library, false), library);
        assert_eq!(entry(Path::new("here.so"), true), "here.so");
    }
}
