//! Parties: processes of a function that have memory or events together go to another GPU together, or stay together.
//!
//! Each is moved by a task of its own; at three points it waits for the others:
//!
//! ```text
//!   Release ─▶ Released ──┤ all ├──▶ served there ──┤ all ├──▶ Attach, held ─▶ Attached ──┤ all ├──▶ Proceed
//!                            │ one stays                                                     │ one is refused
//!                            ▼                                                               ▼
//!                    those that were given up go back                           all go back: nobody has executed anything
//! ```
//!
//! The worker that they leave gives all of them up in one step, or none (`worker/gpu/ipc/party.rs`), so nobody executes anything that
//! the state of another one does not tell of. From the first point on all belong where they go, also for the next server if this one
//! is killed, which is kept in one word for all of them (`node/kept.rs`): two of them must not go on at different GPUs, each with a copy of
//! what they have together. Those that go back have all been let go of first, and belong there by one word again. Who is gone keeps nobody
//! waiting.

use crate::server::clients::ClientId;
use crate::server::node::Node;
use crate::server::scheduler::moves::{self, MoveError, Terms};
use crate::server::workers::executor::Executor;
use crate::server::workers::order::Order;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;
use torpor_proto::control::worker::{self, Proceed, to_worker};

/// Parties so far.
static PARTIES: AtomicU64 = AtomicU64::new(0);

/// Where the members of a party wait for each other: three times on the way, and those that go back when they are let go of, and back.
const MEETINGS: usize = 5;

/// Clients that are moved together.
#[derive(Debug)]
struct Party {
    told: worker::Party,
    /// How many each of them still waits for, and whether one has said that they do not go on.
    meetings: [watch::Sender<(usize, bool)>; MEETINGS],
}

/// One client's place in its party. Where that is over before its time, nobody waits for it.
#[derive(Debug)]
pub(super) struct Seat {
    party: Arc<Party>,
    /// How often it has met the others.
    met: usize,
}

/// Seats for clients that are moved together, or for the last one of those that were.
pub(super) fn seats(clients: &[ClientId]) -> Vec<Seat> {
    let number = PARTIES.fetch_add(1, Ordering::Relaxed) + 1;
    let told = worker::Party { number, clients: clients.iter().map(|client| client.0).collect() };
    let meetings = std::array::from_fn(|_| watch::Sender::new((clients.len(), false)));
    let party = Arc::new(Party { told, meetings });
    clients.iter().map(|_| Seat { party: party.clone(), met: 0 }).collect()
}

impl Party {
    fn pass(&self, meeting: usize, goes_on: bool) {
        self.meetings[meeting].send_modify(|(missing, is_off)| {
            *missing -= 1;
            *is_off |= !goes_on;
        });
    }
}

impl Seat {
    /// Waits until all have said whether they go on, or one that it does not. Whether all go on.
    async fn meet(&mut self, goes_on: bool) -> bool {
        let meeting = self.met;
        self.met += 1;
        let mut seen = self.party.meetings[meeting].subscribe();
        self.party.pass(meeting, goes_on);
        let met = seen.wait_for(|&(missing, is_off)| missing == 0 || is_off).await;
        met.is_ok_and(|met| !met.1)
    }
}

impl Seat {
    /// All of the party belong to a GPU.
    fn belongs(&self, node: &Node, gpu: usize) {
        let worker::Party { number, clients } = &self.party.told;
        node.keep_party(*number, clients, gpu);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        (self.met..MEETINGS).for_each(|meeting| self.party.pass(meeting, true));
    }
}

/// Moves one of a party.
pub(super) async fn carry(
    node: &Node,
    id: ClientId,
    (from, to): (&Arc<Executor>, usize),
    mut seat: Seat,
) -> Result<(), MoveError> {
    let to = match moves::executor(node, id, from, to) {
        Ok(to) => to,
        Err(error) => {
            seat.meet(false).await;
            return Err(error);
        }
    };
    let (client, party) = (id.0, Some(seat.party.told.clone()));
    let released =
        from.ask(|done| Order::Release { client, while_waiting: false, link: 0, party, done }).await;
    let goes = seat.meet(!matches!(released, Some(Err(_)))).await;
    let state = Arc::new(released.ok_or(MoveError::Gone)??);
    from.store().released(id);
    if !goes {
        return moves::go_back(node, id, from, &state, MoveError::Company).await;
    }
    {
        let mut clients = node.clients();
        let client = clients.get_mut(id).ok_or(MoveError::Gone)?;
        // Before anything is kept of one of them alone.
        seat.belongs(node, to.gpu);
        client.introduction.at = to.clone();
        node.keep_client(client);
    }
    seat.meet(true).await;
    arrive(node, id, (from, &to), &state, seat).await
}

async fn arrive(
    node: &Node,
    id: ClientId,
    (from, to): (&Arc<Executor>, &Arc<Executor>),
    state: &Arc<OwnedFd>,
    mut seat: Seat,
) -> Result<(), MoveError> {
    let held = Terms { held: true, ..Terms::default() };
    let refused = moves::attach(node, id, to, state, held).await?.err();
    if seat.meet(refused.is_none()).await {
        node.forget_party(seat.party.told.number);
        let body = to_worker::Body::Proceed(Proceed { client: id.0 });
        // Fails when the server is ending.
        let _ = to.order(Order::Tell { client: id.0, body });
        return Ok(());
    }
    moves::let_go(id, to).await;
    seat.meet(true).await;
    seat.belongs(node, from.gpu);
    let why = refused.map_or(MoveError::Company, MoveError::Refused);
    let went = moves::go_back(node, id, from, state, why).await;
    seat.meet(true).await;
    node.forget_party(seat.party.told.number);
    went
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> [Seat; 3] {
        let seats = seats(&[ClientId(1), ClientId(2), ClientId(3)]);
        seats.try_into().unwrap()
    }

    #[tokio::test]
    async fn all_go_on_when_each_has_said_so_or_is_gone() {
        let [mut one, mut two, three] = three();
        let (first, second, ()) = tokio::join!(one.meet(true), two.meet(true), async { drop(three) });
        assert!(first && second);
        assert!(tokio::join!(one.meet(true), two.meet(true)).0, "at the next point, too");
    }

    #[tokio::test]
    async fn nobody_goes_on_with_one_that_does_not_and_nobody_waits_for_more() {
        let [mut one, mut two, mut three] = three();
        assert!(!one.meet(false).await);
        assert!(!two.meet(true).await);
        assert!(!three.meet(true).await);
    }
}
