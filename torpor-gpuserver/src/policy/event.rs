//! Events: what happens on a node, as its scheduler, those who follow it, and simulations hear of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When, since the node began.
    pub at: Duration,
    /// What.
    pub what: What,
}

/// What happened. GPUs are counted as the server does, clients have their numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A function has a directory now.
    FunctionCreated {
        /// Its name.
        function: Arc<str>,
    },
    /// A GPU serves from now on.
    WorkerStarted {
        /// Which.
        gpu: usize,
        /// Device memory that all functions together may use there.
        limit_bytes: u64,
    },
    /// A GPU's worker is no more. Which of its clients fail, and which go on, is told of each.
    WorkerLost {
        /// Which.
        gpu: usize,
        /// Why, for people.
        reason: String,
    },
    /// A client is served.
    ClientAttached {
        /// Its number.
        client: u64,
        /// Whose it is.
        function: Arc<str>,
        /// Where.
        gpu: usize,
    },
    /// What holds for a client is something else now.
    ClientRuled {
        /// Its number.
        client: u64,
        /// What.
        rules: Rules,
    },
    /// A client's program uses this one of its function's devices, and none before.
    ClientHome {
        /// Its number.
        client: u64,
        /// Which, among the function's devices.
        home: u32,
    },
    /// A client that has a home is at a worker to which this server has not said its [gate](crate::policy::gangs::Gate).
    SessionBegan {
        /// Its number.
        client: u64,
        /// It has just come, and its gate is shut until then; else it is as another server has left it.
        is_shut: bool,
    },
    /// A client says what it has of its GPU, since it heard of its gate.
    RankSaid {
        /// Its number.
        client: u64,
        /// The word that it has heard last.
        number: u64,
        /// What it has.
        phase: Phase,
    },
    /// Every later call of a client fails.
    ClientFailed {
        /// Its number.
        client: u64,
        /// Why, for people.
        reason: String,
    },
    /// A client is gone.
    ClientLeft {
        /// Its number.
        client: u64,
    },
    /// A client has waited for its turn for a while; told again as long as it waits.
    Waiting {
        /// Its number.
        client: u64,
    },
    /// Several clients of one GPU have work.
    Crowded {
        /// Which GPU.
        gpu: usize,
    },
    /// Memory of clients that move comes from one GPU to another without the host.
    Linked {
        /// Where it comes from.
        from: usize,
        /// Where it goes.
        to: usize,
        /// How much within a second, if somebody has measured it.
        bytes_per_second: Option<u64>,
    },
    /// It does no longer.
    Unlinked {
        /// Where it came from.
        from: usize,
        /// Where it went.
        to: usize,
    },
    /// A client is on its way to another GPU.
    MoveBegan {
        /// Its number.
        client: u64,
        /// Where it goes.
        to: usize,
        /// Why it moves.
        why: Why,
        /// Its generation from now on.
        generation: u64,
    },
    /// A client is on another GPU.
    Moved {
        /// Its number.
        client: u64,
        /// Where it was.
        from: usize,
        /// Where it is.
        to: usize,
        /// Why it moved.
        why: Why,
        /// How long that took.
        took: Duration,
        /// Its generation from now on.
        generation: u64,
    },
    /// A client was to move and is where it was.
    Stayed {
        /// Its number.
        client: u64,
        /// Where it was to go.
        to: usize,
        /// Why it was to move.
        why: Why,
        /// Why it did not, for people.
        reason: String,
        /// Its generation from now on.
        generation: u64,
    },
    /// Workers said who uses what, each of its clients; nothing where one did not answer in time.
    Reported {
        /// By GPU.
        figures: Vec<Option<Vec<Figures>>>,
    },
}

/// Why a client moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It waits, and could begin earlier elsewhere.
    Waiting,
    /// It is busy beside others, and another GPU has less work.
    Crowded,
    /// Its function has a process there that uses another of its devices.
    Apart,
    /// The operator wants it.
    Asked,
    /// Its worker died, and it did not: it goes on at the next one, of the same GPU or another.
    Lost,
}

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Waiting => "waiting",
            Self::Crowded => "crowded",
            Self::Apart => "apart",
            Self::Asked => "asked",
            Self::Lost => "lost",
        })
    }
}

/// What the settings say of a client, as far as it matters for where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Whether it is never evicted to make room, nor moved.
    pub pinned: bool,
    /// The only GPU that it may be on.
    pub gpu: Option<usize>,
    /// Device memory that it may allocate.
    pub memory_limit_bytes: Option<u64>,
    /// Within what time its function's requests should be answered.
    pub slo: Option<Duration>,
}

/// What a client has of its GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// It has work and no turn.
    Waiting,
    /// It has its turn.
    Active,
}

/// What a worker says of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Its number.
    pub client: u64,
    /// What it has of its GPU.
    pub phase: Phase,
    /// Whether it has commands that are not finished.
    pub busy: bool,
    /// Whether something that the driver placed keeps it on its GPU.
    pub fixed: bool,
    /// Device memory that it has there.
    pub resident_bytes: u64,
    /// Device memory that it has allocated, wherever that is.
    pub allocated_bytes: u64,
    /// How long it has had work, in all.
    pub worked: Duration,
    /// Times that it was given its GPU.
    pub turns: u64,
    /// How long it has had its turn, if it has.
    pub turn_lasts: Duration,
}

impl Figures {
    /// How long its turns last on average; nothing before it had one.
    #[must_use]
    pub fn turn(&self) -> Duration {
        u32::try_from(self.turns).ok().and_then(|turns| self.worked.checked_div(turns)).unwrap_or_default()
    }

    /// Device memory that must be brought before it runs at full speed where it is.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        self.allocated_bytes.saturating_sub(self.resident_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_what_turns_took_on_average() {
        let figures = Figures { worked: Duration::from_millis(90), turns: 3, ..Figures::default() };
        assert_eq!(figures.turn(), Duration::from_millis(30));
        assert_eq!(Figures::default().turn(), Duration::ZERO, "nothing is known before the first");
    }
}
