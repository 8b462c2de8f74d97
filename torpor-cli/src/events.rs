//! `torpor events`: what happens on the node.

use crate::DirectoryFlag;
use crate::admin::Admin;
use crate::error::CliError;
use crate::table::print;
use serde::Serialize;
use std::process::ExitCode;
use torpor_gpuserver::server::size::ByteSize;
use torpor_proto::control::admin::FollowEventsRequest;
use torpor_proto::control::event::{Event, event::What};

const EXAMPLES: &str = "\
Of the past, the last 1024 events are known. Turns, swap-ins, evictions and saves ahead of time are told of while somebody follows;
requests, where the router tells of them. With --json each line is an object: number (counted since the server began), unix_us, client
and function (0 and empty if it is nobody's), event, and what else there is to say of it, as torpor-proto/proto/event.proto lists it.

Examples:
  torpor events
  torpor events --follow
  torpor events --follow --json | jq 'select(.event == \"moved\") | [.function, .from_gpu, .to_gpu, .why]'";

/// Tell what happens: clients that come, go and move, turns, swap-ins, evictions, workers that are lost
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Events {
    #[command(flatten)]
    directory: DirectoryFlag,

    /// Go on until the server ends, or Ctrl-C
    #[arg(long, short)]
    follow: bool,

    /// Print a JSON object on each line
    #[arg(long)]
    json: bool,
}

impl Events {
    /// Prints what there is, and follows if asked to.
    pub fn run(self) -> Result<ExitCode, CliError> {
        let mut admin = Admin::connect(&self.directory.server())?;
        let request = FollowEventsRequest { follow: self.follow };
        let mut events = admin.call(async |api| api.follow_events(request).await)?;
        while let Some(event) = admin.wait(events.message())? {
            print(&if self.json { json(&event) } else { text(&event) });
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// An event as one object.
#[derive(Serialize)]
struct Line<'a> {
    number: u64,
    unix_us: u64,
    client: u64,
    function: &'a str,
    #[serde(flatten)]
    what: &'a Option<What>,
}

fn json(Event { number, unix_us, client, function, what }: &Event) -> String {
    let line = Line { number: *number, unix_us: *unix_us, client: *client, function, what };
    format!("{}\n", serde_json::to_string(&line).unwrap_or_default())
}

/// For people: the time of day (UTC), who, and what.
fn text(event: &Event) -> String {
    let (seconds, us) = (event.unix_us / 1_000_000, event.unix_us % 1_000_000);
    let time = format!("{:02}:{:02}:{:02}.{us:06}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let who = match (event.client, event.function.as_str()) {
        (0, "") => String::new(),
        (0, function) => format!("{function}: "),
        (client, function) => format!("{function} (client {client}): "),
    };
    format!("{time}  {who}{}\n", event.what.as_ref().map(said).unwrap_or_default())
}

fn said(what: &What) -> String {
    match what {
        What::EventsLost(lost) => format!("{} events were too fast to be followed", lost.count),
        What::FunctionCreated(_) => "created".to_owned(),
        What::WorkerStarted(it) => {
            format!("GPU {} serves, {} for functions", it.gpu, ByteSize(it.limit_bytes))
        }
        What::WorkerLost(it) => format!("GPU {} lost its worker: {}", it.gpu, it.reason),
        What::ClientAttached(it) => format!("attached to GPU {}", it.gpu),
        What::ClientFailed(it) => format!("failed: {}", it.reason),
        What::ClientLeft(_) => "left".to_owned(),
        What::RequestBegan(_) => "a request began".to_owned(),
        What::RequestEnded(_) => "a request ended".to_owned(),
        What::TurnAwaited(it) => format!("waits for GPU {}", it.gpu),
        What::TurnBegan(it) => format!("has GPU {}", it.gpu),
        What::TurnEnded(it) => format!("gave GPU {} up", it.gpu),
        What::SwappedIn(it) => {
            let from = match it.peer_bytes {
                0 => String::new(),
                bytes => format!(" ({} from another GPU)", ByteSize(bytes)),
            };
            format!("swapped in to GPU {}: {}{from}, posted in {} us", it.gpu, ByteSize(it.bytes), it.post_us)
        }
        What::Evicted(it) => {
            let (all, changed) = (ByteSize(it.bytes), ByteSize(it.copied_back_bytes));
            format!("evicted from GPU {}: {all}, of which {changed} had changed", it.gpu)
        }
        What::SavedAhead(it) => {
            let rest = if it.complete { "" } else { ", and not all" };
            format!(
                "saved ahead of time on GPU {}: {} had changed{rest}",
                it.gpu,
                ByteSize(it.copied_back_bytes)
            )
        }
        What::MoveBegan(it) => format!("goes to GPU {} ({})", it.to_gpu, it.why),
        What::Moved(it) => {
            format!("moved from GPU {} to {} in {} us ({})", it.from_gpu, it.to_gpu, it.took_us, it.why)
        }
        What::MoveFailed(it) => format!("did not go to GPU {} ({}): {}", it.to_gpu, it.why, it.reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::control::event::{FunctionCreated, Moved, WorkerLost};

    fn event(client: u64, function: &str, what: What) -> Event {
        let function = function.to_owned();
        Event { number: 9, unix_us: 86_400_000_000 + 3_723_000_042, client, function, what: Some(what) }
    }

    #[test]
    fn a_line_says_when_who_and_what() {
        let moved = Moved { from_gpu: 0, to_gpu: 1, why: "waiting".to_owned(), took_us: 900 };
        assert_eq!(
            text(&event(7, "f", What::Moved(moved))),
            "01:02:03.000042  f (client 7): moved from GPU 0 to 1 in 900 us (waiting)\n"
        );
        assert_eq!(
            text(&event(0, "g", What::FunctionCreated(FunctionCreated {}))),
            "01:02:03.000042  g: created\n"
        );
        let lost = WorkerLost { gpu: 2, reason: "killed".to_owned() };
        let line = text(&event(0, "", What::WorkerLost(lost)));
        assert_eq!(line, "01:02:03.000042  GPU 2 lost its worker: killed\n");
    }

    #[test]
    fn json_is_one_object_with_the_fields_of_what_happened() {
        let moved = Moved { from_gpu: 0, to_gpu: 1, why: "asked".to_owned(), took_us: 900 };
        let said: serde_json::Value =
            serde_json::from_str(&json(&event(7, "f", What::Moved(moved)))).unwrap();
        let expected = serde_json::json!({
            "number": 9, "unix_us": 90_123_000_042_u64, "client": 7, "function": "f",
            "event": "moved", "from_gpu": 0, "to_gpu": 1, "why": "asked", "took_us": 900
        });
        assert_eq!(said, expected);
        let created = json(&event(0, "g", What::FunctionCreated(FunctionCreated {})));
        let created: serde_json::Value = serde_json::from_str(&created).unwrap();
        assert_eq!(created["event"], "function_created");
    }
}
