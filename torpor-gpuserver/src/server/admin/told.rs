//! Requests that somebody tells of as they begin and end (the router): a client's memory comes before its first command then,
//! its turn ends with the request, and what the request took is told when it is answered.

use crate::server::admin::functions::client_of_group;
use crate::server::clients::ClientId;
use crate::server::node::Node;
use crate::server::workers::order::Order;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};
use torpor_proto::control::admin::{RequestCost, RequestMark, request_mark};
use torpor_proto::control::worker::{Cost, Mark, RequestPoint, to_worker};

/// What requests took, for whoever told of them.
pub(super) type Costs = UnboundedReceiverStream<Result<RequestCost, Status>>;

/// Numbers for workers: tellers choose theirs without knowing of each other.
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// What one teller has told of and not yet ended. Dropped, all of it has ended.
#[derive(Debug)]
pub(super) struct Told {
    node: Arc<Node>,
    /// Whose each is and its number for workers, by the teller's number.
    open: HashMap<u64, (ClientId, u64)>,
    costs: mpsc::UnboundedSender<Result<RequestCost, Status>>,
}

impl Told {
    pub(super) fn new(node: Arc<Node>) -> (Self, Costs) {
        let (costs, told) = mpsc::unbounded_channel();
        (Self { node, open: HashMap::new(), costs }, UnboundedReceiverStream::new(told))
    }

    /// Hears a teller out.
    pub(super) async fn hear(mut self, mut marks: Streaming<RequestMark>) {
        // An error is its end too.
        while let Ok(Some(mark)) = marks.message().await {
            self.mark(&mark);
        }
    }

    /// A request begins, is answered or has ended. One whose client is not known is nobody's: it is inferred from its commands.
    fn mark(&mut self, RequestMark { request, mark }: &RequestMark) {
        match mark {
            Some(request_mark::Mark::Begins(begins)) => {
                match client_of_group(&self.node, &begins.function, begins.process_group) {
                    Some(client) if !self.open.contains_key(request) => {
                        let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
                        self.open.insert(*request, (client, number));
                        self.tell(client, number, RequestPoint::Begun);
                    }
                    Some(_) => {}
                    None => self.say(unknown(*request)),
                }
            }
            Some(request_mark::Mark::Answered(_)) => match self.open.get(request) {
                Some(&(client, number)) => self.ask(*request, client, number),
                None => self.say(unknown(*request)),
            },
            Some(request_mark::Mark::Ends(_)) => {
                if let Some((client, number)) = self.open.remove(request) {
                    self.tell(client, number, RequestPoint::Ended);
                }
            }
            None => {}
        }
    }

    fn say(&self, cost: RequestCost) {
        // A teller that is gone does not want to know.
        let _ = self.costs.send(Ok(cost));
    }

    fn ask(&self, request: u64, client: ClientId, number: u64) {
        let (done, cost) = oneshot::channel();
        self.order(client, Order::ReportCost { client: client.0, request: number, done });
        let clients = self.node.clients();
        let gpu = clients.iter().find(|served| served.id == client).map(|served| served.introduction.gpu());
        let gpu = gpu.map(|gpu| self.node.gpus()[gpu].index);
        drop(clients);
        let costs = self.costs.clone();
        tokio::spawn(async move {
            // Nothing comes of one whose client is gone.
            let known = cost.await.map_or_else(|_| unknown(request), |cost| told(request, &cost, gpu));
            let _ = costs.send(Ok(known));
        });
    }

    fn tell(&self, client: ClientId, request: u64, point: RequestPoint) {
        self.node.events().tell_request(client.0, point == RequestPoint::Begun);
        let body = to_worker::Body::Mark(Mark { client: client.0, request, point: point.into() });
        self.order(client, Order::Tell { client: client.0, body });
    }

    fn order(&self, client: ClientId, order: Order) {
        let clients = self.node.clients();
        // One that is gone, or between two workers, has no use for it.
        if let Some(served) = clients.iter().find(|served| served.id == client) {
            let _ = served.introduction.at.order(order);
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let open: Vec<_> = self.open.drain().map(|(_, whose)| whose).collect();
        open.into_iter().for_each(|(client, number)| self.tell(client, number, RequestPoint::Ended));
    }
}

fn unknown(request: u64) -> RequestCost {
    RequestCost { request, known: false, ..RequestCost::default() }
}

fn told(request: u64, cost: &Cost, gpu: Option<u32>) -> RequestCost {
    let &Cost { turns, swaps, waited_us, swapping_us, gpu_us, .. } = cost;
    RequestCost { request, known: true, turns, swaps, waited_us, swapping_us, gpu_us, gpu }
}
