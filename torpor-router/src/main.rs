//! `torpor-router`: the serving front as a program of its own.

use clap::Parser;
use std::io;
use std::process::ExitCode;
use torpor_router::{RouterArgs, serve};
use tracing_subscriber::EnvFilter;

/// The serving front of a Torpor node
#[derive(Debug, Parser)]
#[command(name = "torpor-router", version)]
struct Arguments {
    #[command(flatten)]
    router: RouterArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("TORPOR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let torpor = std::env::current_exe().map(|path| path.with_file_name("torpor"));
    let torpor = torpor.ok().filter(|path| path.exists()).unwrap_or_else(|| "torpor".into());
    match serve(arguments.router, torpor).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("torpor-router: {error}");
            ExitCode::FAILURE
        }
    }
}
