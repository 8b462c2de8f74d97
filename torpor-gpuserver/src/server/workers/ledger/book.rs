//! Who may have how much of a GPU's memory: a pure state machine, from what executors say to what they are told.
//!
//! Each executor has an *allowance*. Who needs more says so, and the others are asked one after the other for what they do not use and
//! what belongs to clients that have been idle for longer than any of the asker's own. One want is served at a time, in the order of
//! coming, so that two who want each other's memory do not wait for each other: who is asked for memory steps back itself.

use std::collections::{BTreeMap, VecDeque};

/// An executor, for as long as it has anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holder(u64);

/// What an executor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// So much is its allowance, from the beginning.
    Allow(u64),
    /// So much more.
    Grant(u64),
    /// It is to give up so much, of clients that have been idle for so many microseconds, if it can; 0 bytes: nothing any more.
    Yield { demand: u64, bytes: u64, idle_us: u64 },
    /// Nobody has what it wants.
    Refuse,
    /// There is room for its context.
    Seat,
    /// There is none.
    NoSeat,
}

/// What is said, and to whom.
pub(super) type Said = Vec<(Holder, Word)>;

/// What an executor answers that was asked for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Yielded {
    pub(super) demand: u64,
    pub(super) bytes: u64,
    /// More is on its way.
    pub(super) leaving: bool,
    /// More will come when clients that are active are idle.
    pub(super) later: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Not,
    /// It has not answered yet, or more is on its way.
    Soon,
    Later,
    Dry,
}

#[derive(Clone, Debug)]
struct Account {
    /// What its clients may have.
    allowed_bytes: u64,
    /// What its context takes.
    context_bytes: u64,
    asked: Asked,
}

#[derive(Clone, Copy, Debug)]
struct Want {
    holder: Holder,
    bytes: u64,
    idle_us: u64,
    /// For its context.
    seat: bool,
}

/// The accounts of a GPU.
#[derive(Debug, Default)]
pub(super) struct Book {
    limit_bytes: u64,
    /// That of those that share the GPU.
    host: Option<Holder>,
    accounts: BTreeMap<Holder, Account>,
    wants: VecDeque<Want>,
    demand: u64,
    last: u64,
}

impl Book {
    /// The worker begins of those that share the GPU, on which executors together may have so much: it may have what is free.
    pub(super) fn host(&mut self, limit_bytes: u64) -> (Holder, Said) {
        self.limit_bytes = limit_bytes;
        let holder = self.open();
        let allowed_bytes = self.free_bytes();
        self.account(holder).allowed_bytes = allowed_bytes;
        self.host = Some(holder);
        let mut said = vec![(holder, Word::Allow(allowed_bytes))];
        said.extend(self.advance());
        (holder, said)
    }

    /// An enclosure begins, whose context takes so much.
    pub(super) fn enclose(&mut self, context_bytes: u64) -> (Holder, Said) {
        let holder = self.open();
        self.wants.push_back(Want { holder, bytes: context_bytes, idle_us: 0, seat: true });
        (holder, self.advance())
    }

    /// An executor is short of so much, and its own clients have been idle for so long at most; 0: none is.
    pub(super) fn want(&mut self, holder: Holder, bytes: u64, idle_us: u64) -> Said {
        if !self.accounts.contains_key(&holder) {
            return Vec::new();
        }
        let want = Want { holder, bytes, idle_us, seat: false };
        match self.wants.iter_mut().find(|known| known.holder == holder) {
            Some(known) => *known = want,
            None => self.wants.push_back(want),
        }
        self.advance()
    }

    /// An executor has given something up, or cannot.
    pub(super) fn yielded(&mut self, holder: Holder, answer: Yielded) -> Said {
        let demand = self.demand;
        let Some(account) = self.accounts.get_mut(&holder) else { return Vec::new() };
        // It may say anything.
        account.allowed_bytes = account.allowed_bytes.saturating_sub(answer.bytes);
        if answer.demand == demand && account.asked != Asked::Not {
            account.asked = match answer {
                Yielded { leaving: true, .. } => Asked::Soon,
                Yielded { later: true, .. } => Asked::Later,
                _ => Asked::Dry,
            };
        }
        self.advance()
    }

    /// An executor's process is gone.
    pub(super) fn leave(&mut self, holder: Holder) -> Said {
        let mut said = Vec::new();
        let is_served = self.wants.front().is_some_and(|want| want.holder == holder);
        self.accounts.remove(&holder);
        self.wants.retain(|want| want.holder != holder);
        if is_served {
            self.close_demand(&mut said);
        }
        said.extend(self.advance());
        if let Some(host) = self.host.filter(|host| self.accounts.keys().eq([host])) {
            // Alone, it asks nobody.
            let bytes = self.free_bytes();
            self.account(host).allowed_bytes += bytes;
            said.push((host, Word::Grant(bytes)));
        }
        said
    }

    /// What its context takes, and what its clients may have.
    #[cfg(test)]
    fn of(&self, holder: Holder) -> (u64, u64) {
        self.accounts.get(&holder).map_or((0, 0), |its| (its.context_bytes, its.allowed_bytes))
    }

    /// What executors may have together.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    fn open(&mut self) -> Holder {
        self.last += 1;
        let account = Account { allowed_bytes: 0, context_bytes: 0, asked: Asked::Not };
        self.accounts.insert(Holder(self.last), account);
        Holder(self.last)
    }

    fn account(&mut self, holder: Holder) -> &mut Account {
        self.accounts.get_mut(&holder).expect("whoever wants something has an account")
    }

    fn free_bytes(&self) -> u64 {
        let taken = self.accounts.values().map(|its| its.allowed_bytes.saturating_add(its.context_bytes));
        self.limit_bytes.saturating_sub(taken.fold(0, u64::saturating_add))
    }

    /// Serves those that want memory, as far as that goes without another answer.
    fn advance(&mut self) -> Said {
        let mut said = Vec::new();
        while let Some(want) = self.wants.front().copied() {
            let free_bytes = self.free_bytes();
            if want.bytes <= free_bytes {
                self.grant(want, &mut said);
                self.close_demand(&mut said);
                continue;
            }
            let others = || self.accounts.iter().filter(|&(&other, _)| other != want.holder);
            if others().any(|(_, its)| its.asked == Asked::Soon) {
                return said;
            }
            let unasked = others().filter(|(_, its)| its.asked == Asked::Not && its.allowed_bytes > 0);
            if let Some((&next, _)) = unasked.max_by_key(|(_, its)| its.allowed_bytes) {
                self.account(next).asked = Asked::Soon;
                let (bytes, idle_us) = (want.bytes - free_bytes, want.idle_us);
                said.push((next, Word::Yield { demand: self.demand, bytes, idle_us }));
                return said;
            }
            if want.idle_us == 0 && others().any(|(_, its)| its.asked == Asked::Later) {
                return said;
            }
            self.wants.pop_front();
            said.push((want.holder, if want.seat { Word::NoSeat } else { Word::Refuse }));
            self.close_demand(&mut said);
        }
        said
    }

    fn grant(&mut self, want: Want, said: &mut Said) {
        self.wants.pop_front();
        let account = self.account(want.holder);
        if want.seat {
            account.context_bytes = want.bytes;
            said.push((want.holder, Word::Seat));
        } else {
            account.allowed_bytes += want.bytes;
            said.push((want.holder, Word::Grant(want.bytes)));
        }
    }

    /// Nobody need give anything up any more.
    fn close_demand(&mut self, said: &mut Said) {
        for (&holder, account) in &mut self.accounts {
            if matches!(account.asked, Asked::Soon | Asked::Later) {
                said.push((holder, Word::Yield { demand: self.demand, bytes: 0, idle_us: 0 }));
            }
            account.asked = Asked::Not;
        }
        self.demand += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dry(demand: u64, bytes: u64) -> Yielded {
        Yielded { demand, bytes, leaving: false, later: false }
    }

    /// A GPU of 100, whose context takes 10.
    fn with_enclosure() -> (Book, Holder, Holder) {
        let mut book = Book::default();
        let (shared, said) = book.host(100);
        assert_eq!(said, [(shared, Word::Allow(100))]);
        let (strict, said) = book.enclose(10);
        assert_eq!(said, [(shared, Word::Yield { demand: 0, bytes: 10, idle_us: 0 })]);
        assert_eq!(book.yielded(shared, dry(0, 10)), [(strict, Word::Seat)]);
        (book, shared, strict)
    }

    #[test]
    fn what_an_enclosure_wants_the_others_give_up() {
        let (mut book, shared, strict) = with_enclosure();
        let said = book.want(strict, 30, 7);
        assert_eq!(said, [(shared, Word::Yield { demand: 1, bytes: 30, idle_us: 7 })]);
        let some = Yielded { demand: 1, bytes: 20, leaving: true, later: false };
        assert_eq!(book.yielded(shared, some), []);
        assert_eq!(book.yielded(shared, dry(1, 10)), [(strict, Word::Grant(30))]);
        assert_eq!((book.of(shared), book.of(strict)), ((0, 60), (10, 30)));
        book.leave(shared);
        let (shared, said) = book.host(100);
        assert_eq!(said, [(shared, Word::Allow(60))]);
        assert_eq!(book.leave(strict), [(shared, Word::Grant(40))]);
    }

    #[test]
    fn who_is_active_is_waited_for_unless_the_asker_has_idle_clients_itself() {
        let (mut book, shared, strict) = with_enclosure();
        let later = |demand| Yielded { demand, bytes: 0, leaving: false, later: true };
        book.want(strict, 30, 7);
        let call_off = (shared, Word::Yield { demand: 1, bytes: 0, idle_us: 0 });
        assert_eq!(book.yielded(shared, later(1)), [(strict, Word::Refuse), call_off]);
        book.want(strict, 30, 0);
        assert_eq!(book.yielded(shared, later(2)), []);
        assert_eq!(book.yielded(shared, dry(2, 30)), [(strict, Word::Grant(30))]);
        book.want(strict, 500, 0);
        assert_eq!(book.yielded(shared, dry(3, 60)), [(strict, Word::Refuse)]);
    }

    #[test]
    fn one_want_is_served_at_a_time() {
        let (mut book, shared, strict) = with_enclosure();
        book.want(strict, 50, 0);
        assert_eq!(book.want(shared, 20, 0), [], "it is asked itself");
        let said = book.yielded(shared, dry(1, 50));
        assert_eq!(said[0], (strict, Word::Grant(50)));
        assert_eq!(said[1], (strict, Word::Yield { demand: 2, bytes: 20, idle_us: 0 }));
    }

    #[test]
    fn an_answer_to_what_is_past_is_no_answer_to_what_is_asked_now() {
        let (mut book, shared, strict) = with_enclosure();
        book.want(strict, 30, 0);
        let call_off = (shared, Word::Yield { demand: 1, bytes: 0, idle_us: 0 });
        assert_eq!(book.leave(strict), [call_off, (shared, Word::Grant(10))]);
        let (other, said) = book.enclose(5);
        assert_eq!(said, [(shared, Word::Yield { demand: 2, bytes: 5, idle_us: 0 })]);
        assert_eq!(book.yielded(shared, dry(1, 0)), []);
        assert_eq!(
            book.yielded(shared, dry(1, 7)),
            [(other, Word::Seat), (shared, Word::Yield { demand: 2, bytes: 0, idle_us: 0 })]
        );
    }

    proptest! {
        #[test]
        fn nobody_has_what_another_has(steps in prop::collection::vec((0..6_u8, 0..3_usize, 0..120_u64, any::<bool>(), any::<bool>()), 1..80)) {
            let mut book = Book::default();
            let mut holders = vec![book.host(100).0];
            for (step, who, bytes, leaving, later) in steps {
                let holder = holders[who % holders.len()];
                match step {
                    0 if holders.len() < 3 => holders.push(book.enclose(bytes % 20).0),
                    1 => drop(book.want(holder, bytes, bytes % 3)),
                    2 if who % holders.len() > 0 => {
                        drop(book.leave(holder));
                        holders.retain(|&other| other != holder);
                    }
                    _ => {
                        let (_, allowed) = book.of(holder);
                        let answer = Yielded { demand: book.demand, bytes: bytes.min(allowed), leaving, later };
                        drop(book.yielded(holder, answer));
                    }
                }
                let all: u64 = holders.iter().map(|&holder| book.of(holder)).map(|(context, allowed)| context + allowed).sum();
                prop_assert!(all <= 100, "{book:?}");
            }
        }
    }
}
