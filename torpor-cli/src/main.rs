//! `torpor`: run GPU programs without a GPU of their own.

mod admin;
mod bench;
mod calibrate;
mod cdi;
mod completion;
mod config;
mod demo;
mod deploy;
mod doctor;
mod driver_api;
mod error;
mod events;
mod functions;
mod gpus;
mod groups;
mod how_far;
mod load;
mod load_test;
mod names;
mod pin;
mod private_server;
mod progress;
mod ps;
mod router;
mod run;
mod serve;
mod server_process;
mod several_devices;
mod signals;
mod simulate;
mod stop;
mod table;
mod top;
mod topology;
mod unload;
mod wait;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use torpor_proto::directory::ServerDirectory;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  error
  2  wrong usage, or an error in the settings file
  3  no server listens
  `torpor doctor` exits with 1 if something is wrong.
  `torpor run` exits as its command does (128 + N if signal N killed it; 126 if it cannot be executed, 127 if it is
  not there).";

/// Run GPU programs on this node's GPUs, from processes that cannot open a GPU
#[derive(Debug, Parser)]
#[command(name = "torpor", version, about, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Bench(bench::Bench),
    #[command(hide = true)]
    BenchBurst(bench::BenchBurst),
    Demo(demo::Demo),
    #[command(hide = true)]
    DemoFunction(demo::DemoFunction),
    Serve(serve::Serve),
    Run(run::Run),
    Ps(ps::Ps),
    Top(top::Top),
    Functions(functions::Functions),
    Gpus(gpus::Gpus),
    Topology(topology::ShowTopology),
    Events(events::Events),
    Doctor(doctor::Doctor),
    Load(load::Load),
    Unload(unload::Unload),
    Pin(pin::Pin),
    Router(router::Router),
    Deploy(deploy::Deploy),
    Invoke(router::Invoke),
    Logs(router::Logs),
    Scale(router::Scale),
    Delete(router::Delete),
    LoadTest(load_test::LoadTest),
    Report(load_test::Report),
    Simulate(simulate::Simulate),
    Calibrate(calibrate::Calibrate),
    Cdi(cdi::Cdi),
    Config(config::Config),
    Completion(completion::Completion),
    Manual(completion::Manual),
    Stop(stop::Stop),
    Wait(wait::Wait),
}

/// The flag of verbs that talk to a server.
#[derive(Debug, Args)]
struct DirectoryFlag {
    /// Where the server listens [default: $TORPOR_SERVER, else $XDG_RUNTIME_DIR/torpor, else /run/torpor]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl DirectoryFlag {
    fn server(&self) -> ServerDirectory {
        self.directory.clone().map_or_else(ServerDirectory::from_environment, ServerDirectory::new)
    }
}

/// What the command line says. A mistake is told with the verb that was meant, but never with one that ends something: a
/// slip must not bring people to it.
fn parse() -> Arguments {
    let matches = groups::grouped(Arguments::command()).try_get_matches();
    matches.and_then(|mut matches| Arguments::from_arg_matches_mut(&mut matches)).unwrap_or_else(
        |mut error| {
            if let Some(ContextValue::Strings(mut verbs)) = error.remove(ContextKind::SuggestedSubcommand) {
                verbs.retain(|verb| verb != "stop");
                if !verbs.is_empty() {
                    error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(verbs));
                }
            }
            error.exit()
        },
    )
}

fn main() -> ExitCode {
    let verb = parse().verb;
    // Of `torpor run`, what stands behind is the command's.
    let as_json = !matches!(verb, Verb::Run(_)) && std::env::args_os().any(|argument| argument == "--json");
    let done = match verb {
        Verb::Bench(verb) => verb.run(),
        Verb::BenchBurst(verb) => verb.run(),
        Verb::Demo(verb) => verb.run(),
        Verb::DemoFunction(verb) => Ok(verb.run()),
        Verb::Serve(verb) => verb.run(),
        Verb::Run(verb) => verb.run(),
        Verb::Ps(verb) => verb.run(),
        Verb::Top(verb) => verb.run(),
        Verb::Functions(verb) => verb.run(),
        Verb::Gpus(verb) => verb.run(),
        Verb::Topology(verb) => verb.run(),
        Verb::Events(verb) => verb.run(),
        Verb::Doctor(verb) => verb.run(),
        Verb::Load(verb) => verb.run(),
        Verb::Unload(verb) => verb.run(),
        Verb::Pin(verb) => verb.run(),
        Verb::Router(verb) => verb.run(),
        Verb::Deploy(verb) => verb.run(),
        Verb::Invoke(verb) => verb.run(),
        Verb::Logs(verb) => verb.run(),
        Verb::Scale(verb) => verb.run(),
        Verb::Delete(verb) => verb.run(),
        Verb::LoadTest(verb) => verb.run(),
        Verb::Report(verb) => verb.run(),
        Verb::Simulate(verb) => verb.run(),
        Verb::Calibrate(verb) => verb.run(),
        Verb::Cdi(verb) => verb.run(),
        Verb::Config(verb) => verb.run(),
        Verb::Completion(verb) => verb.run(),
        Verb::Manual(verb) => verb.run(),
        Verb::Stop(verb) => verb.run(),
        Verb::Wait(verb) => verb.run(),
    };
    done.unwrap_or_else(|error| {
        if as_json {
            eprintln!("{}", serde_json::json!({"error": error.to_string()}));
        } else {
            eprintln!("torpor: {error}");
        }
        error.exit_code()
    })
}
