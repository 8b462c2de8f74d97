//! Which client runs on which GPU, and how it gets there.
//!
//! One task has the picture of the node and decides: it hears what everybody [tells](Teller), asks the workers when the
//! [decider](Decider) wants to know more, and carries out what that decides, unless the client is not as it was in the picture.

mod bench;
mod chronicle;
mod events;
mod figures;
mod gates;
mod gathering;
mod homes;
pub(crate) mod moves;
mod parties;
mod recovery;
mod trial;

pub(crate) use events::Teller;
pub(crate) use recovery::{Bereaved, Orphan};

use crate::policy::decider::{Decider, Decision};
use crate::policy::event::{Event, What};
use crate::policy::topology::Topology;
use crate::policy::view::NodeView;
use crate::server::clients::ClientId;
use crate::server::node::Node;
use crate::server::scheduler::events::Inbox;
use crate::server::scheduler::moves::MoveError;
use crate::server::workers::gpu::stopped;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a random placement draws from: the same order of events moves the same clients.
const SEED: u64 = 1;

/// Where the scheduler is told.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    /// Of what happens.
    pub(crate) events: Teller,
    /// A worker died, and this client did not.
    pub(crate) orphans: UnboundedSender<Bereaved>,
    /// The first wants what the second has exported, which another GPU's worker serves.
    pub(crate) seeking: UnboundedSender<(ClientId, ClientId)>,
    /// A client's program uses this one of its function's devices.
    pub(crate) homes: UnboundedSender<(ClientId, u32)>,
}

/// Where it hears.
#[derive(Debug)]
pub(crate) struct Ear {
    inbox: Inbox,
    orphans: UnboundedReceiver<Bereaved>,
    seeking: UnboundedReceiver<(ClientId, ClientId)>,
    homes: UnboundedReceiver<(ClientId, u32)>,
}

/// Both ends, for a node that begins now, with its GPUs as the driver counts them.
pub(crate) fn channel(gpus: Vec<u32>) -> (Words, Ear) {
    let ((events, inbox), (tell, orphans)) = (events::channel(gpus), unbounded_channel());
    let (seek, seeking) = unbounded_channel();
    let (home, homes) = unbounded_channel();
    let words = Words { events, orphans: tell, seeking: seek, homes: home };
    (words, Ear { inbox, orphans, seeking, homes })
}

/// Decides, and moves clients, until the server ends.
pub(crate) fn start(node: &Arc<Node>, Ear { inbox, orphans, seeking, homes }: Ear) {
    tokio::spawn(recovery::run(node.clone(), orphans));
    tokio::spawn(gathering::run(node.clone(), seeking));
    tokio::spawn(homes::run(node.clone(), homes));
    tokio::spawn(run(node.clone(), inbox));
}

async fn run(node: Arc<Node>, mut inbox: Inbox) {
    let view = NodeView::new(node.gpus().len(), Topology::default());
    let mut placement = node.placement().subscribe();
    let first = placement.borrow_and_update().policy(SEED);
    let mut decider = Decider::new(view, first);
    let mut gangs = gates::gangs();
    let mut stopping = node.stopping();
    let mut asking = false;
    loop {
        let asks_at = decider.asks_at().filter(|_| !asking);
        tokio::select! {
            // All that is known before anybody is asked.
            biased;
            () = stopped(&mut stopping) => return,
            event = inbox.hear() => {
                let Some(event) = event else { return };
                asking &= !matches!(event.what, What::Reported { .. });
                hear(&node, &mut decider, &event);
                gates::tell(&node, gangs.hear(&event, decider.view()));
            }
            // Ends with the node, which this task holds.
            Ok(()) = placement.changed() => decider.place_by(placement.borrow_and_update().policy(SEED)),
            () = node.events().until(asks_at) => {
                asking = true;
                decider.ask();
                tokio::spawn(ask(node.clone()));
            }
        }
    }
}

fn hear(node: &Arc<Node>, decider: &mut Decider, event: &Event) {
    for Decision { client, generation, to, why } in decider.hear(event) {
        // What becomes of it is told and logged, and the client may stay for good reasons: it has its turn by now.
        match moves::begin(node, ClientId(client), to, why, Some(generation)) {
            Ok(_) | Err(MoveError::Moving) => {}
            Err(error) => {
                node.events().tell(What::Stayed { client, to, why, reason: error.to_string(), generation })
            }
        }
    }
}

/// What the workers say is an event.
async fn ask(node: Arc<Node>) {
    let figures = figures::by_gpu(node.gpus()).await;
    node.events().tell(What::Reported { figures });
}
