//! `torpor-kube`: Torpor for the kubelet.

use clap::{Parser, Subcommand};
use std::error::Error;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use torpor_gpuserver::server::logging;
use torpor_kube::device_plugin::DevicePlugin;
use torpor_kube::dra::Dra;

const NOTES: &str = "\
Both run on every node beside the node server, as root, with the kubelet's folder mounted where it is on the host. Neither has a GPU, nor a
capability. They end at SIGTERM and take their sockets along; pods that run go on, and what they have is known to the next one.

Exit codes: 0 ended by a signal; 1 error; 2 wrong usage.
docs/kubernetes.md has the manifests, and what to do about each message.";

/// Pods as functions of a Torpor node
#[derive(Debug, Parser)]
#[command(name = "torpor-kube", version, after_help = NOTES)]
struct Arguments {
    #[command(subcommand)]
    way: Way,
}

#[derive(Debug, Subcommand)]
enum Way {
    Dra(Dra),
    DevicePlugin(DevicePlugin),
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse().way).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("torpor-kube: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(way: Way) -> Result<(), Box<dyn Error>> {
    logging::begin(match &way {
        Way::Dra(dra) => dra.log(),
        Way::DevicePlugin(plugin) => plugin.log(),
    })?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let serving = async {
        match way {
            Way::Dra(dra) => match dra.run().await? {},
            Way::DevicePlugin(plugin) => match plugin.run().await? {},
        }
    };
    tokio::select! {
        ended = serving => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}
