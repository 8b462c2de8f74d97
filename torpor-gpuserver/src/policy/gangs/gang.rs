//! One gang: what is known of each rank's turn, and what each rank is told while the gang has its turn and while it stands in line.

use super::pressed::Pressed;
use super::{Gate, Phase, Words};
use std::collections::BTreeMap;
use std::time::Duration;

/// A rank, as its worker has told.
#[derive(Clone, Copy, Debug)]
struct Rank {
    /// What its worker has been told last, less what it has used up.
    gate: Gate,
    /// The number of that word.
    number: u64,
    /// What it has of its GPU, if its gate is not open and it has said so since.
    says: Option<Phase>,
    /// Its worker does not know its gate.
    is_new: bool,
}

impl Rank {
    /// Nobody has said anything.
    const UNTOLD: Self = Self { gate: Gate::Open, number: 0, says: None, is_new: false };

    fn tell(&mut self, client: u64, gate: Gate, words: &mut Words<'_>) {
        if self.gate == gate && !self.is_new {
            return;
        }
        self.number = words.say(client, gate);
        let stays_shut = self.gate == Gate::Shut && gate == Gate::Shut;
        let says = self.says.filter(|_| stays_shut);
        *self = Self { gate, says, is_new: false, ..*self };
    }

    fn has_permit(&self) -> bool {
        matches!(self.gate, Gate::Once | Gate::Briefly)
    }

    /// It has no turn, and takes none.
    fn is_out(&self) -> bool {
        self.gate == Gate::Shut && matches!(self.says, Some(Phase::Idle | Phase::Waiting))
    }
}

/// Whether a gang has its turn.
#[derive(Debug)]
enum Standing {
    /// It has, or a rank may, which comes to the same.
    Turn(Option<Pressed>),
    /// None has. Its place in the line, if one wants it.
    Line(Option<u64>),
}

/// The ranks of a function.
#[derive(Debug)]
pub(super) struct Gang {
    ranks: BTreeMap<u64, Rank>,
    standing: Standing,
    /// Somebody who is no rank may wait for several of them.
    pub(super) holds_up: bool,
}

impl Default for Gang {
    /// Without ranks, all of which may have turns.
    fn default() -> Self {
        Self { ranks: BTreeMap::new(), standing: Standing::Turn(None), holds_up: false }
    }
}

impl Gang {
    pub(super) fn has(&self, client: u64) -> bool {
        self.ranks.contains_key(&client)
    }

    pub(super) fn has_ranks(&self) -> bool {
        !self.ranks.is_empty()
    }

    pub(super) fn has_turn(&self) -> bool {
        matches!(self.standing, Standing::Turn(_))
    }

    /// Its place in the line, if it waits there.
    pub(super) fn place(&self) -> Option<u64> {
        if let Standing::Line(place) = self.standing { place } else { None }
    }

    pub(super) fn enter(&mut self, client: u64) {
        self.ranks.entry(client).or_insert(Rank::UNTOLD);
    }

    pub(super) fn leave(&mut self, client: u64) {
        self.ranks.remove(&client);
    }

    /// A rank is at a worker that has not been told its gate: shut, or nobody knows.
    pub(super) fn begins_anew(&mut self, client: u64, is_shut: bool) {
        let (gate, says) = if is_shut { (Gate::Shut, Some(Phase::Idle)) } else { (Gate::Open, None) };
        self.ranks.entry(client).and_modify(|rank| *rank = Rank { gate, says, is_new: true, ..*rank });
    }

    /// A rank says what it has. What it said before it heard the last word is out of date.
    pub(super) fn hears(&mut self, client: u64, number: u64, phase: Phase) {
        if let Some(rank) = self.ranks.get_mut(&client).filter(|rank| rank.number == number) {
            rank.says = Some(phase);
            if phase == Phase::Active && rank.has_permit() {
                rank.gate = Gate::Shut;
            }
        }
    }

    /// What follows from what was heard. `is_gang`: there are ranks with different homes, which else have nothing to do with each other.
    pub(super) fn note(&mut self, is_gang: bool, last_place: &mut u64, words: &mut Words<'_>) {
        if !is_gang {
            return self.relax(words);
        }
        let Standing::Line(place) = &mut self.standing else { return };
        self.ranks.iter_mut().for_each(|(&client, rank)| rank.tell(client, Gate::Shut, words));
        if !self.ranks.values().all(Rank::is_out) {
            self.standing = Standing::Turn(None);
        } else if self.ranks.values().any(|rank| rank.says == Some(Phase::Waiting)) {
            place.get_or_insert_with(|| next(last_place));
        } else {
            *place = None;
        }
    }

    /// It has its turn: each rank may begin.
    pub(super) fn begin_turn(&mut self, words: &mut Words<'_>) {
        self.standing = Standing::Turn(None);
        self.ranks.iter_mut().for_each(|(&client, rank)| rank.tell(client, Gate::Once, words));
    }

    /// It is in nobody's way.
    pub(super) fn relax(&mut self, words: &mut Words<'_>) {
        self.standing = Standing::Turn(None);
        self.holds_up = false;
        self.ranks.iter_mut().for_each(|(&client, rank)| rank.tell(client, Gate::Open, words));
    }

    /// Others wait for its turn to end: who has one gives it up, and who is waited for gets another one. True if that is the end: no rank
    /// has work.
    pub(super) fn advance(&mut self, now: Duration, last_place: &mut u64, words: &mut Words<'_>) -> bool {
        let Standing::Turn(pressed) = &mut self.standing else { return false };
        let pressed = pressed.get_or_insert_with(|| Pressed::new(now));
        for (&client, rank) in
            self.ranks.iter_mut().filter(|(_, rank)| rank.gate == Gate::Open || rank.is_new)
        {
            rank.tell(client, Gate::Shut, words);
        }
        if self.ranks.values().any(|rank| rank.says.is_none()) {
            return false;
        }
        let active = self.ranks.iter().filter(|(_, rank)| rank.says == Some(Phase::Active));
        let active: Vec<u64> = active.map(|(&client, _)| client).collect();
        let is_waiting = |rank: &Rank| rank.says == Some(Phase::Waiting);
        if active.is_empty() && !self.ranks.values().any(|rank| is_waiting(rank) && rank.has_permit()) {
            // What nobody has used is taken back first.
            self.ranks.iter_mut().for_each(|(&client, rank)| rank.tell(client, Gate::Shut, words));
            let is_over = self.ranks.values().all(Rank::is_out);
            if is_over {
                let waits = self.ranks.values().any(is_waiting);
                self.standing = Standing::Line(waits.then(|| next(last_place)));
                self.holds_up = false;
            }
            return is_over;
        }
        if let Some(permit) = pressed.permit(now, &active) {
            for (&client, rank) in self.ranks.iter_mut().filter(|(_, rank)| is_waiting(rank)) {
                if permit == Gate::Briefly || !rank.has_permit() {
                    rank.tell(client, permit, words);
                }
            }
        }
        false
    }
}

fn next(last_place: &mut u64) -> u64 {
    *last_place += 1;
    *last_place
}
