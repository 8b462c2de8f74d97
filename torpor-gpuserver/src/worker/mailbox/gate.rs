//! Gate: whether a client may take a turn whose function has processes that use other devices
//! ([gangs](crate::policy::gangs)). The server sets it, and hears what the client has of the GPU unless it is open.

use crate::worker::mailbox::Link;
use crate::worker::server_socket::ServerSocket;
use crate::worker::sync::lock;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, OnceLock};
use torpor_proto::control::worker::{GateState, Phase, RankTurn, from_worker};

/// A client's gate. It is changed with the [turns](crate::worker::gpu::run_queue) locked.
#[derive(Debug)]
pub(crate) struct Gate {
    /// A [`GateState`], less what the client has used up.
    state: AtomicI32,
    /// The turn that it has taken is for one command.
    is_brief: AtomicBool,
    /// Which of its function's devices its program uses, once it has said so.
    home: OnceLock<u32>,
    /// The server's last word; locked while that is answered, so that answers are in order.
    number: Mutex<u64>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            state: AtomicI32::new(GateState::Open.into()),
            is_brief: AtomicBool::new(false),
            home: OnceLock::new(),
            number: Mutex::default(),
        }
    }
}

impl Gate {
    /// Its program uses this device; what it says later is no news. False if it has said one before.
    pub(crate) fn note_home(&self, home: u32) -> bool {
        self.home.set(home).is_ok()
    }

    /// Of a client that comes from another worker: nobody has said yet what its siblings do.
    pub(crate) fn begin_shut(&self, home: u32) {
        self.note_home(home);
        self.put(GateState::Shut);
    }

    /// Whether its program has said which of several devices it uses.
    pub(crate) fn is_rank(&self) -> bool {
        self.home.get().is_some()
    }

    /// Whether turns are taken at will, and need not be given up for siblings of others.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.is(GateState::Open)
    }

    /// Whether a turn may be taken.
    pub(crate) fn lets_in(&self) -> bool {
        !self.is(GateState::Shut)
    }

    /// Whether its turn comes before all others.
    pub(crate) fn goes_first(&self) -> bool {
        self.is(GateState::Briefly)
    }

    /// Whether the turn that it has is for one command.
    pub(crate) fn is_brief(&self) -> bool {
        self.is_brief.load(Ordering::Relaxed)
    }

    /// The client takes its turn: what lets it in once is used up.
    pub(crate) fn pass(&self) {
        self.is_brief.store(self.goes_first(), Ordering::Relaxed);
        if !self.is_open() {
            self.put(GateState::Shut);
        }
    }

    fn is(&self, state: GateState) -> bool {
        // SYNC POINT gate
        self.state.load(Ordering::SeqCst) == i32::from(state)
    }

    fn put(&self, state: GateState) {
        // SYNC POINT gate
        self.state.store(state.into(), Ordering::SeqCst);
    }
}

impl Link {
    /// The server's word, which is answered. A turn that the client has is not given once more.
    pub(crate) fn set_gate(&self, number: u64, state: GateState, server: &ServerSocket) {
        let is_active = self.usage.phase.load(Ordering::SeqCst) == Phase::Active as i32;
        let is_permit = matches!(state, GateState::Once | GateState::Briefly);
        let mut last = lock(&self.gate.number);
        *last = number;
        self.gate.put(if is_active && is_permit { GateState::Shut } else { state });
        self.answer(*last, server);
    }

    /// Tells the server what the client has of the GPU, unless its gate is open.
    ///
    /// SYNC POINT gate: the phase is stored before the gate is looked at here, and the gate before the phase is by
    /// [`Self::set_gate`]; so one of the two tells.
    pub(crate) fn tell_turn(&self, server: &ServerSocket) {
        if !self.gate.is_open() {
            self.answer(*lock(&self.gate.number), server);
        }
    }

    fn answer(&self, number: u64, server: &ServerSocket) {
        if !self.gate.is_open() {
            let phase = self.usage.phase.load(Ordering::SeqCst);
            server.tell(from_worker::Body::RankTurn(RankTurn { client: self.client, number, phase }));
        }
    }

    /// Whether this client's work may wait for another one's: both are of one function, and use different devices of it.
    pub(crate) fn is_sibling_of(&self, other: &Self) -> bool {
        match (self.gate.home.get(), other.gate.home.get()) {
            (Some(home), Some(its)) => home != its && self.function == other.function,
            _ => false,
        }
    }
}
