//! Requests that somebody tells of: memory comes before the first command, the turn ends with the request, and what it took is
//! told.

mod served;
mod server_support;
mod worker_support;

use served::{Attached, attach};
use server_support::server::{Server, eventually};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::UnboundedReceiverStream;
use torpor_proto::control::admin::admin_client::AdminClient;
use torpor_proto::control::admin::{
    Function, ListGpusRequest, RequestAnswered, RequestBegins, RequestCost, RequestEnds, RequestMark,
    request_mark,
};

const MIB: u64 = 1 << 20;

/// A server whose clients keep their turns for an hour, unless they know better.
fn start() -> Server {
    served::serve(
        "--gpus 0 --pinned-limit 8MiB --staging 4MiB --linger 1h --host-pool 64MiB --host-slab 16MiB",
    )
}

/// Whoever tells.
struct Teller {
    _runtime: tokio::runtime::Runtime,
    marks: UnboundedSender<RequestMark>,
    costs: UnboundedReceiver<RequestCost>,
}

impl Teller {
    fn new(server: &Server) -> Self {
        let (marks, told) = unbounded_channel();
        let (costs, told_costs) = unbounded_channel();
        let address = format!("unix://{}", server.directory.admin_socket().display());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect().await.unwrap();
            let told = UnboundedReceiverStream::new(told);
            let mut stream = AdminClient::new(channel).mark_requests(told).await.unwrap().into_inner();
            while let Ok(Some(cost)) = stream.message().await {
                let _ = costs.send(cost);
            }
        });
        Self { _runtime: runtime, marks, costs: told_costs }
    }

    fn begins(&self, request: u64, function: &str) {
        let begins = RequestBegins { function: function.to_owned(), process_group: 0 };
        self.marks.send(RequestMark { request, mark: Some(request_mark::Mark::Begins(begins)) }).unwrap();
    }

    /// What it took so far.
    fn answered(&mut self, request: u64) -> RequestCost {
        let mark = request_mark::Mark::Answered(RequestAnswered {});
        self.marks.send(RequestMark { request, mark: Some(mark) }).unwrap();
        loop {
            let cost = self.costs.blocking_recv().unwrap();
            if cost.request == request {
                return cost;
            }
        }
    }

    fn ends(&self, request: u64) {
        self.marks
            .send(RequestMark { request, mark: Some(request_mark::Mark::Ends(RequestEnds {})) })
            .unwrap();
    }
}

fn is_there(function: &Function) -> bool {
    function.state == "active" && function.resident_bytes == 4 * MIB
}

/// A function with 4 MiB that are not on the GPU, and where they are.
fn away(server: &Server, name: &str, teller: &Teller) -> (Attached, u64) {
    let mut attached = attach(server, name);
    let address = attached.client.allocate(0, 4 * MIB).unwrap();
    attached.client.upload(address, &[7; 5000]);
    // Its own turn would last for an hour.
    teller.begins(999, name);
    teller.ends(999);
    eventually("its turn is over", || server.listed(name).state == "idle");
    server.unload(name);
    assert_eq!(server.listed(name).resident_bytes, 0);
    (attached, address)
}

#[test]
fn memory_comes_with_the_word_and_the_turn_ends_with_the_request() {
    let (server, name) = (start(), "f");
    let teller = Teller::new(&server);
    let (Attached { mut client, lifeline: _lifeline }, address) = away(&server, name, &teller);
    teller.begins(1, name);
    eventually("its memory is there before any command", || is_there(&server.listed(name)));
    teller.begins(2, name);
    teller.ends(1);
    assert_eq!(client.download(address, 3), [7; 3]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(is_there(&server.listed(name)), "the other request goes on");
    teller.ends(2);
    eventually("its turn is over", || server.listed(name).state == "idle");
    assert_eq!(server.listed(name).resident_bytes, 4 * MIB, "but its memory stays");
}

#[test]
fn what_a_teller_has_not_ended_ends_with_it() {
    let (server, name) = (start(), "f");
    let teller = Teller::new(&server);
    let attached = away(&server, name, &teller);
    teller.begins(1, name);
    eventually("its memory is there", || is_there(&server.listed(name)));
    drop(teller);
    eventually("its turn is over", || server.listed(name).state == "idle");
    drop(attached);
}

#[test]
fn a_word_that_says_nothing_is_nobody_s() {
    let (server, name) = (start(), "f");
    let teller = Teller::new(&server);
    let one = away(&server, name, &teller);
    let other = attach(&server, name);
    teller.begins(1, "nobody");
    teller.begins(2, name);
    teller.ends(3);
    teller.marks.send(RequestMark { request: 4, mark: None }).unwrap();
    let elsewhere = away(&server, "g", &teller);
    teller.begins(5, "g");
    eventually("the next word counts", || is_there(&server.listed("g")));
    assert_eq!(server.listed(name).resident_bytes, 0, "which of its two clients was meant?");
    drop((one, other, elsewhere));
}

#[test]
fn a_request_that_finds_its_process_at_work_has_had_that_turn() {
    let (server, name) = (start(), "f");
    let mut teller = Teller::new(&server);
    let (Attached { mut client, lifeline: _lifeline }, address) = away(&server, name, &teller);
    teller.begins(1, name);
    eventually("its memory is there", || is_there(&server.listed(name)));
    teller.begins(2, name);
    client.download(address, 3);
    let second = teller.answered(2);
    assert_eq!((second.turns, second.swaps), (1, 0), "{second:?}");
}

#[test]
fn what_a_request_took_is_told_when_it_is_answered() {
    let (server, name) = (start(), "f");
    let mut teller = Teller::new(&server);
    let (Attached { mut client, lifeline: _lifeline }, address) = away(&server, name, &teller);
    teller.begins(1, name);
    eventually("its memory is there", || is_there(&server.listed(name)));
    client.download(address, 3);
    let swapped = teller.answered(1);
    assert!(
        swapped.known && (swapped.turns, swapped.swaps) == (1, 1) && swapped.swapping_us > 0,
        "{swapped:?}"
    );
    teller.ends(1);
    eventually("its turn is over", || server.listed(name).state == "idle");
    teller.begins(2, name);
    eventually("it has its turn", || is_there(&server.listed(name)));
    client.download(address, 3);
    let hot = teller.answered(2);
    assert!(hot.known && (hot.turns, hot.swaps, hot.swapping_us) == (1, 0, 0), "{hot:?}");
    assert!(!teller.answered(3).known, "nobody said that it begins");
    teller.begins(4, "nobody");
    assert!(!teller.answered(4).known, "it is nobody's");
}

#[test]
fn gpu_time_is_counted_by_function_and_outlives_its_processes() {
    let server = start();
    let gpu_us = |name: &str| {
        let listed = server.admin(async |mut api| api.list_gpus(ListGpusRequest {}).await).unwrap();
        let time = listed.gpus[0].times.iter().find(|time| time.function == name);
        time.map_or(0, |time| time.gpu_us)
    };
    let (mut busy, idle) = (attach(&server, "busy"), attach(&server, "idle"));
    let address = busy.client.allocate(0, 4 * MIB).unwrap();
    busy.client.upload(address, &[7; 5000]);
    eventually("its time is told", || gpu_us("busy") > 0);
    drop(busy);
    eventually("it is gone", || server.listed("busy").clients == 0);
    assert!(gpu_us("busy") > 0);
    assert_eq!(gpu_us("idle"), 0);
    drop(idle);
}
