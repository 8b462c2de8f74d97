//! Gangs: the processes of one function that use different devices of it, its *ranks*, have their turns together.
//!
//! A kernel of one rank may run until a kernel of another one does, so a rank that has the GPU may wait for one that has not. What
//! a rank holds while its kernels run is given up for nobody. Therefore
//!
//! - two gangs that have no room together on a GPU never both have their turn: the node has one line, in which a gang stands once;
//! - while a rank has unfinished work, its siblings get turns, also if others wait (`gang.rs`);
//! - the turn of a gang is over when none of its ranks has unfinished work, and then the next gang in line has its own.
//!
//! So whatever a rank waits for ends by itself, or is a sibling's, whose way is free: no ring. A gang that others wait for is brought
//! to its end by letting go on only who is waited for (`pressed.rs`): nobody starves.
//!
//! Each rank has a [`Gate`] at its worker. Who is in nobody's way has it open, and nothing is said.

mod gang;
mod pressed;

use crate::policy::event::{Event, Phase, What};
use crate::policy::gangs::gang::Gang;
use crate::policy::view::NodeView;
use std::collections::BTreeMap;
use std::sync::Arc;

/// When a rank takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Whenever it likes.
    Open,
    /// Never. A turn that it has ends as if somebody waited for it.
    Shut,
    /// Once, in its place in the line.
    Once,
    /// Once, before all others on its GPU, for one command.
    Briefly,
}

/// A rank's worker is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// The rank.
    pub client: u64,
    /// Which word it is, for the answer.
    pub number: u64,
    /// What.
    pub gate: Gate,
}

/// Words on their way, the last one of each client.
#[derive(Debug)]
struct Words<'a> {
    last: &'a mut u64,
    words: BTreeMap<u64, Word>,
}

impl Words<'_> {
    fn say(&mut self, client: u64, gate: Gate) -> u64 {
        *self.last += 1;
        self.words.insert(client, Word { client, number: *self.last, gate });
        *self.last
    }
}

/// The gangs of a node, and their line.
#[derive(Debug, Default)]
pub struct Gangs {
    /// Of functions any of whose processes has said which device it uses.
    gangs: BTreeMap<Arc<str>, Gang>,
    /// The last word's number.
    last_word: u64,
    /// The last place in the line.
    last_place: u64,
}

impl Gangs {
    /// There is none yet. Words are numbered from behind `last_word`.
    #[must_use]
    pub fn new(last_word: u64) -> Self {
        Self { last_word, ..Self::default() }
    }

    /// Something happened, which the picture has in it. What workers are to be told now.
    pub fn hear(&mut self, event: &Event, view: &NodeView) -> Vec<Word> {
        match event.what {
            What::ClientHome { client, .. } => {
                let Some(its) = view.client(client) else { return Vec::new() };
                self.gangs.entry(its.function.clone()).or_default().enter(client);
            }
            _ if self.gangs.is_empty() => return Vec::new(),
            What::SessionBegan { client, is_shut } => {
                self.change(client, |gang| gang.begins_anew(client, is_shut));
            }
            What::RankSaid { client, number, phase } => {
                self.change(client, |gang| gang.hears(client, number, phase));
            }
            What::ClientLeft { client } | What::ClientFailed { client, .. } => {
                self.gangs.values_mut().for_each(|gang| gang.leave(client));
                self.gangs.retain(|_, gang| gang.has_ranks());
            }
            What::Waiting { client } => self.hold_up(client, view),
            // If it is one that a server before has left: what was said before it could be told anything is lost.
            What::WorkerStarted { gpu, .. } => {
                view.clients().filter(|client| client.gpu == gpu).for_each(|client| {
                    self.change(client.id, |gang| gang.begins_anew(client.id, false));
                });
            }
            What::MoveBegan { .. } | What::Moved { .. } | What::Stayed { .. } | What::ClientRuled { .. } => {}
            _ => return Vec::new(),
        }
        self.settle(view)
    }

    fn change(&mut self, client: u64, change: impl FnOnce(&mut Gang)) {
        if let Some(gang) = self.gangs.values_mut().find(|gang| gang.has(client)) {
            change(gang);
        }
    }

    /// Somebody waits on a GPU. If several ranks of a gang share it, he may hold memory up that one of them needs for the other: the gang
    /// goes on by permits alone, of which some come before him.
    fn hold_up(&mut self, waiting: u64, view: &NodeView) {
        let Some(waiting) = view.client(waiting) else { return };
        for (function, gang) in &mut self.gangs {
            gang.holds_up |=
                gang.has_turn() && *function != waiting.function && view.shares(function, waiting.gpu);
        }
    }

    /// Until nothing changes: who is waited for is pressed, and who has room has its turn.
    fn settle(&mut self, view: &NodeView) -> Vec<Word> {
        let Self { gangs, last_word, last_place } = self;
        let mut words = Words { last: last_word, words: BTreeMap::new() };
        for (function, gang) in gangs.iter_mut() {
            gang.note(view.is_gang(function), last_place, &mut words);
        }
        while press(gangs, last_place, view, &mut words) | admit(gangs, view, &mut words) {}
        words.words.into_values().collect()
    }
}

/// The functions of gangs that have their turn.
fn with_turn(gangs: &BTreeMap<Arc<str>, Gang>, view: &NodeView) -> Vec<Arc<str>> {
    let has_turn = |(function, gang): &(&Arc<str>, &Gang)| gang.has_turn() && view.is_gang(function);
    gangs.iter().filter(has_turn).map(|(function, _)| function.clone()).collect()
}

/// Those that wait in line, the first one first.
fn line(gangs: &BTreeMap<Arc<str>, Gang>) -> Vec<Arc<str>> {
    let mut line: Vec<_> =
        gangs.iter().filter_map(|(function, gang)| Some((gang.place()?, function))).collect();
    line.sort();
    line.into_iter().map(|(_, function)| function.clone()).collect()
}

/// Gangs in whose turn others wait for it go on as far as they must; true if the turn of one is over.
fn press(
    gangs: &mut BTreeMap<Arc<str>, Gang>,
    last_place: &mut u64,
    view: &NodeView,
    words: &mut Words<'_>,
) -> bool {
    let (with_turn, line) = (with_turn(gangs, view), line(gangs));
    let without_room: Vec<_> =
        line.iter().filter(|waiting| !view.has_room_beside(waiting, &with_turn)).collect();
    let mut is_one_over = false;
    for function in &with_turn {
        let Some(gang) = gangs.get_mut(function) else { continue };
        let is_pressed = gang.holds_up
            || !view.has_room_beside(function, &with_turn)
            || without_room.iter().any(|waiting| view.meet(function, waiting));
        match is_pressed {
            true => is_one_over |= gang.advance(view.now(), last_place, words),
            false => gang.relax(words),
        }
    }
    is_one_over
}

/// Those in line have their turn that have room beside all that have it and all that wait before them: true if one does. Who does not
/// wait comes last.
fn admit(gangs: &mut BTreeMap<Arc<str>, Gang>, view: &NodeView, words: &mut Words<'_>) -> bool {
    let mut before = with_turn(gangs, view);
    let waiting = line(gangs);
    let idle: Vec<_> = gangs.iter().filter(|(_, gang)| !gang.has_turn() && gang.place().is_none()).collect();
    let idle: Vec<_> = idle.into_iter().map(|(function, _)| function.clone()).collect();
    let mut is_one_admitted = false;
    for (function, waits) in waiting.iter().map(|it| (it, true)).chain(idle.iter().map(|it| (it, false))) {
        let has_room = view.has_room_beside(function, &before);
        if has_room && let Some(gang) = gangs.get_mut(function) {
            gang.begin_turn(words);
            is_one_admitted = true;
        }
        if has_room || waits {
            before.push(function.clone());
        }
    }
    is_one_admitted
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
