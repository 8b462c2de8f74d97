//! The chronicle: what has happened lately, and whoever follows what happens.

use crate::policy::event::What;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast::{Receiver, Sender, channel};
use torpor_proto::control::event::{self, Event, event::What as Told};
use torpor_proto::control::worker::{Happened, Phase, happened};

/// Events that are kept, and that a follower may be behind.
const KEPT: usize = 1024;

/// What has happened, and who follows.
#[derive(Debug)]
pub(crate) struct Chronicle {
    /// As the driver counts them, by the server's count.
    gpus: Vec<u32>,
    /// When the node began, since 1970.
    began: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    number: u64,
    past: VecDeque<Event>,
    functions: HashMap<u64, Arc<str>>,
    live: Sender<Event>,
}

impl Chronicle {
    /// Of a node that begins now.
    pub(super) fn new(gpus: Vec<u32>) -> Self {
        // A clock before 1970 is wrong anyway.
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (live, _) = channel(KEPT);
        let state = State { number: 0, past: VecDeque::new(), functions: HashMap::new(), live };
        Self { gpus, began, state: Mutex::new(state) }
    }

    /// What is kept, and what comes behind it.
    pub(crate) fn follow(&self) -> (Vec<Event>, Receiver<Event>) {
        let state = self.state();
        (state.past.iter().cloned().collect(), state.live.subscribe())
    }

    /// Whether somebody follows.
    pub(crate) fn is_followed(&self) -> bool {
        self.state().live.receiver_count() > 0
    }

    /// What everybody may know of what happened.
    pub(super) fn note(&self, at: Duration, what: &What) {
        match what {
            What::FunctionCreated { function } => {
                self.write(at, 0, Some(function), Told::FunctionCreated(event::FunctionCreated {}));
            }
            What::WorkerStarted { gpu, limit_bytes } => {
                let (gpu, limit_bytes) = (self.number(*gpu), *limit_bytes);
                self.write(at, 0, None, Told::WorkerStarted(event::WorkerStarted { gpu, limit_bytes }));
            }
            What::WorkerLost { gpu, reason } => {
                let (gpu, reason) = (self.number(*gpu), reason.clone());
                self.write(at, 0, None, Told::WorkerLost(event::WorkerLost { gpu, reason }));
            }
            What::ClientAttached { client, function, gpu } => {
                self.state().functions.insert(*client, function.clone());
                let gpu = self.number(*gpu);
                self.write(at, *client, None, Told::ClientAttached(event::ClientAttached { gpu }));
            }
            What::ClientFailed { client, reason } => {
                let reason = reason.clone();
                self.write(at, *client, None, Told::ClientFailed(event::ClientFailed { reason }));
            }
            What::ClientLeft { client } => {
                self.write(at, *client, None, Told::ClientLeft(event::ClientLeft {}));
                self.state().functions.remove(client);
            }
            What::MoveBegan { client, to, why, .. } => {
                let (to_gpu, why) = (self.number(*to), why.to_string());
                self.write(at, *client, None, Told::MoveBegan(event::MoveBegan { to_gpu, why }));
            }
            What::Moved { client, from, to, why, took, .. } => {
                let moved = event::Moved {
                    from_gpu: self.number(*from),
                    to_gpu: self.number(*to),
                    why: why.to_string(),
                    took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                };
                self.write(at, *client, None, Told::Moved(moved));
            }
            What::Stayed { client, to, why, reason, .. } => {
                let (to_gpu, why, reason) = (self.number(*to), why.to_string(), reason.clone());
                self.write(at, *client, None, Told::MoveFailed(event::MoveFailed { to_gpu, why, reason }));
            }
            // These are for the scheduler alone.
            What::ClientRuled { .. }
            | What::ClientHome { .. }
            | What::SessionBegan { .. }
            | What::RankSaid { .. }
            | What::Waiting { .. }
            | What::Crowded { .. }
            | What::Linked { .. }
            | What::Unlinked { .. }
            | What::Reported { .. } => {}
        }
    }

    /// The router tells of a request.
    pub(super) fn note_request(&self, at: Duration, client: u64, begins: bool) {
        let what = match begins {
            true => Told::RequestBegan(event::RequestBegan {}),
            false => Told::RequestEnded(event::RequestEnded {}),
        };
        self.write(at, client, None, what);
    }

    /// A GPU's worker tells of a client.
    pub(super) fn note_turn(&self, at: Duration, gpu: usize, Happened { client, what }: Happened) {
        let gpu = self.number(gpu);
        let what = match what {
            Some(happened::What::Turn(phase)) => match Phase::try_from(phase) {
                Ok(Phase::Waiting) => Told::TurnAwaited(event::TurnAwaited { gpu }),
                Ok(Phase::Active) => Told::TurnBegan(event::TurnBegan { gpu }),
                Ok(Phase::Idle) | Err(_) => Told::TurnEnded(event::TurnEnded { gpu }),
            },
            Some(happened::What::SwappedIn(swapped_in)) => {
                Told::SwappedIn(event::SwappedIn { gpu, ..swapped_in })
            }
            Some(happened::What::Evicted(evicted)) => Told::Evicted(event::Evicted { gpu, ..evicted }),
            Some(happened::What::SavedAhead(saved)) => Told::SavedAhead(event::SavedAhead { gpu, ..saved }),
            None => return,
        };
        self.write(at, client, None, what);
    }

    fn write(&self, at: Duration, client: u64, function: Option<&Arc<str>>, what: Told) {
        let mut state = self.state();
        state.number += 1;
        let function = function.or_else(|| state.functions.get(&client));
        let event = Event {
            number: state.number,
            unix_us: u64::try_from((self.began + at).as_micros()).unwrap_or(u64::MAX),
            client,
            function: function.map(ToString::to_string).unwrap_or_default(),
            what: Some(what),
        };
        if state.past.len() == KEPT {
            state.past.pop_front();
        }
        state.past.push_back(event.clone());
        // Nobody follows.
        let _ = state.live.send(event);
    }

    fn number(&self, gpu: usize) -> u32 {
        self.gpus.get(gpu).copied().unwrap_or(u32::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::event::Why;

    fn names(events: &[Event]) -> Vec<(u64, &str)> {
        events.iter().map(|event| (event.client, event.function.as_str())).collect()
    }

    #[test]
    fn events_name_the_function_of_their_client_and_gpus_as_the_driver_does() {
        let chronicle = Chronicle::new(vec![3, 5]);
        let at = Duration::from_secs(1);
        chronicle.note(at, &What::ClientAttached { client: 7, function: "f".into(), gpu: 1 });
        chronicle.note_turn(
            at,
            1,
            Happened { client: 7, what: Some(happened::What::Turn(Phase::Active.into())) },
        );
        let (client, took, why) = (7, Duration::from_micros(9), Why::Waiting);
        chronicle.note(at, &What::Moved { client, from: 1, to: 0, why, took, generation: 2 });
        chronicle.note(at, &What::ClientLeft { client });
        chronicle.note(at, &What::ClientLeft { client });
        let (past, _) = chronicle.follow();
        assert_eq!(names(&past), [(7, "f"), (7, "f"), (7, "f"), (7, "f"), (7, "")]);
        assert_eq!(past[1].what, Some(Told::TurnBegan(event::TurnBegan { gpu: 5 })));
        let moved = event::Moved { from_gpu: 5, to_gpu: 3, why: "waiting".to_owned(), took_us: 9 };
        assert_eq!(past[2].what, Some(Told::Moved(moved)));
        assert!(past.iter().map(|event| event.number).eq(1..=5));
    }

    #[test]
    fn a_follower_hears_what_comes_behind_what_is_kept() {
        let chronicle = Chronicle::new(vec![0]);
        let create = |name: &str| {
            chronicle.note(Duration::ZERO, &What::FunctionCreated { function: name.into() });
        };
        (0..KEPT + 3).for_each(|at| create(&at.to_string()));
        assert!(!chronicle.is_followed());
        let (past, mut live) = chronicle.follow();
        assert!(chronicle.is_followed());
        assert_eq!((past.len(), past[0].function.as_str()), (KEPT, "3"));
        create("next");
        assert_eq!(live.try_recv().unwrap().function, "next");
        drop(live);
        assert!(!chronicle.is_followed());
    }
}
