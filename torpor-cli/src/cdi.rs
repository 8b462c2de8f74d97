//! `torpor cdi`: functions as devices of containers.

use crate::DirectoryFlag;
use crate::error::CliError;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use torpor_cdi::{Installation, Kind, Spec, is_device_name, replace};
use torpor_gpuserver::server::installation::INTERCEPT_LIBRARY;
use torpor_proto::directory::{ServerDirectory, check_function_name};

/// The specification, and what it mounts as `/etc/ld.so.preload`. Runtimes read `*.json` and `*.yaml` alone.
const FILE: &str = "torpor.json";
const PRELOAD_FILE: &str = "torpor.ld.so.preload";

/// Between two looks at the functions.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Each function of the server's directory becomes a device of containers: an unmodified image runs an unmodified command, and no
variable of the image is replaced. Docker Engine from 28.2, podman from 4.1, containerd from 2.0 and CRI-O read the file.

Examples:
  torpor cdi                     # once, for all functions there are
  torpor cdi --watch             # and whenever a function comes or goes
  docker run --device torpor.dev/gpu=resnet any/pytorch python app.py
  torpor cdi --remove";

/// Describe functions as devices, for `docker run --device torpor.dev/gpu=NAME`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Cdi {
    #[command(flatten)]
    directory: DirectoryFlag,

    /// Where container runtimes look for such files
    #[arg(long, value_name = "DIR", default_value = "/var/run/cdi")]
    spec_dir: PathBuf,

    /// Go on, and write the file again whenever a function comes or goes
    #[arg(long, conflicts_with = "remove")]
    watch: bool,

    /// Take the file away
    #[arg(long)]
    remove: bool,
}

impl Cdi {
    /// Writes the file, or takes it away.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let writer = Writer { server: self.directory.server(), folder: self.spec_dir };
        if self.remove {
            writer.remove()?;
            return Ok(ExitCode::SUCCESS);
        }
        let library = INTERCEPT_LIBRARY.find()?;
        let mut last = None;
        loop {
            let functions = writer.write(&library)?;
            if last.as_ref() != Some(&functions) {
                tell(&functions, &writer);
            }
            if !self.watch {
                return Ok(ExitCode::SUCCESS);
            }
            last = Some(functions);
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

fn tell(functions: &BTreeSet<String>, writer: &Writer) {
    for name in functions.iter().filter(|name| !is_device_name(name)) {
        eprintln!("torpor: {name} cannot be a device: its name must end with a letter or digit");
    }
    let devices: Vec<_> = functions.iter().filter(|name| is_device_name(name)).collect();
    if devices.is_empty() {
        let functions = writer.server.functions();
        eprintln!(
            "torpor: no function is in {}, so there is no device; name functions in the settings file",
            functions.display()
        );
    }
    for name in devices {
        println!("{}={name}", Kind::Gpu);
    }
}

struct Writer {
    server: ServerDirectory,
    folder: PathBuf,
}

impl Writer {
    /// Writes what is not there yet. Gives the functions that the server has.
    fn write(&self, library: &Path) -> Result<BTreeSet<String>, CliError> {
        let functions = self.functions()?;
        let devices: Vec<String> = functions.iter().filter(|name| is_device_name(name)).cloned().collect();
        if devices.is_empty() {
            self.remove()?;
            return Ok(functions);
        }
        let preload = self.folder.join(PRELOAD_FILE);
        let failed = |error| CliError::Cdi { folder: self.folder.clone(), error };
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        replace(&preload, Installation::PRELOAD_TEXT).map_err(failed)?;
        let spec = Spec::new(Kind::Gpu, &self.server, &devices, Installation { library, preload: &preload });
        replace(&self.folder.join(FILE), &spec.text()).map_err(failed)?;
        Ok(functions)
    }

    fn remove(&self) -> Result<(), CliError> {
        for file in [FILE, PRELOAD_FILE] {
            match std::fs::remove_file(self.folder.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(CliError::Cdi { folder: self.folder.clone(), error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A function has a directory as soon as the settings file names it, and keeps it when the server ends.
    fn functions(&self) -> Result<BTreeSet<String>, CliError> {
        let folder = self.server.functions();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(CliError::Cdi { folder, error }),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| check_function_name(name).is_ok()).collect())
    }
}
