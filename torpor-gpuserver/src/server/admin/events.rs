//! Following what happens on the node.

use crate::server::node::Node;
use crate::server::workers::gpu::{Gpu, stopped};
use crate::server::workers::order::Order;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use torpor_proto::control::event::{Event, EventsLost, event::What};

/// What a follower gets.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

/// Events on their way to one follower.
const UNDER_WAY: usize = 64;

/// What is kept, and with `on` what happens from now on.
pub(super) fn follow(node: &Arc<Node>, on: bool) -> Events {
    let (past, live) = node.events().chronicle().follow();
    let (sender, receiver) = channel(UNDER_WAY);
    let live = on.then(|| {
        tell_workers(node, true);
        live
    });
    tokio::spawn(pass_on(node.clone(), past, live, sender));
    Box::pin(ReceiverStream::new(receiver))
}

async fn pass_on(
    node: Arc<Node>,
    past: Vec<Event>,
    live: Option<Receiver<Event>>,
    to: Sender<Result<Event, Status>>,
) {
    for event in past {
        if to.send(Ok(event)).await.is_err() {
            break;
        }
    }
    if let Some(mut live) = live {
        let mut stopping = node.stopping();
        loop {
            let event = tokio::select! {
                heard = live.recv() => match heard {
                    Ok(event) => event,
                    Err(RecvError::Lagged(count)) => {
                        Event { what: Some(What::EventsLost(EventsLost { count })), ..Event::default() }
                    }
                    Err(RecvError::Closed) => break,
                },
                () = to.closed() => break,
                () = stopped(&mut stopping) => break,
            };
            if to.send(Ok(event)).await.is_err() {
                break;
            }
        }
        drop(live);
        if !node.events().chronicle().is_followed() {
            tell_workers(&node, false);
        }
    }
}

fn tell_workers(node: &Node, events: bool) {
    for executor in node.gpus().iter().flat_map(Gpu::executors) {
        // Fails when the server is ending.
        let _ = executor.order(Order::Follow { events });
    }
}
