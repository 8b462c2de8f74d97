//! `torpor demo-function`: a program that serves one network from a GPU. It knows nothing of Torpor: the driver that it
//! loads is whatever `libcuda.so.1` is in its process.

use super::device_network::DeviceNetwork;
use super::network::{Kind, Network};
use super::protocol::{Answer, Message};
use crate::driver_api::{Driver, DriverError};
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

/// Serve a network to `torpor demo`: a seed per line of input, an answer per line of output
#[derive(Debug, clap::Args)]
pub struct DemoFunction {
    /// The network
    kind: Kind,

    /// Of its weights
    #[arg(long)]
    seed: u64,

    /// The CUDA driver, as the dynamic linker finds it
    #[arg(long, default_value = "libcuda.so.1")]
    libcuda: OsString,
}

#[derive(Debug, thiserror::Error)]
enum FunctionError {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("{0:?} is no seed of a request: write one number per line")]
    Request(String),
    #[error("standard input or output is gone: {0}")]
    Pipe(#[from] io::Error),
}

impl DemoFunction {
    /// Serves until standard input ends.
    pub fn run(self) -> ExitCode {
        match self.serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Whoever reads it may be gone, which then is the reason.
                let _ = say(&Message::Failed { reason: error.to_string() });
                ExitCode::FAILURE
            }
        }
    }

    fn serve(self) -> Result<(), FunctionError> {
        let network = Network::new(self.kind, self.seed);
        let driver = Driver::open(&self.libcuda)?;
        let device = driver.use_first_device()?;
        let mut told = Ok(());
        let progress = |bytes| {
            let now = say(&Message::Loaded { bytes });
            told = std::mem::replace(&mut told, Ok(())).and(now);
        };
        let mut loaded = DeviceNetwork::load(&driver, &network, progress)?;
        told?;
        say(&Message::Ready)?;
        for line in io::stdin().lock().lines() {
            let line = line?;
            let seed = line.parse().map_err(|_| FunctionError::Request(line))?;
            let (values, gpu_us) = loaded.answer(seed)?;
            say(&Message::Answer(Answer { seed, gpu_us, values: values.to_vec() }))?;
        }
        loaded.unload()?;
        driver.release_device(device)?;
        Ok(())
    }
}

fn say(message: &Message) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{message}")
}
