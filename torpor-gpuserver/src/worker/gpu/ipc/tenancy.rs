//! Tenancy: which members of a shared segment have it mapped, whose memory it counts as, and who moves it. Pure bookkeeping.
//!
//! ```text
//!             begin_bringing … end_bringing
//!    absent ───────────────────────────────▶ resident: one member holds it, as a part of its own memory
//!       ▲                                        │
//!       └────────────────────────────────────────┘
//!             begin_leaving … end_saving, by the last member that has it mapped
//! ```
//!
//! Whoever has it mapped may run, and keeps it on the GPU. Whoever leaves the GPU hands it to a member that has it mapped, or else
//! saves it. While somebody brings or saves it, nobody else does anything with it.

/// A client that has the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    client: u64,
    is_mapped: bool,
}

/// The members of one segment. All methods but [`Self::join`] are for members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tenancy {
    /// The oldest first.
    members: Vec<Member>,
    /// Whose memory it counts as; nobody's while it is absent.
    holder: Option<u64>,
    /// Who brings or saves it.
    mover: Option<u64>,
    /// Nobody joins any more.
    is_closed: bool,
    /// Nobody joins here: its one member takes it elsewhere.
    is_departing: bool,
}

/// Why a client does not become a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotJoined {
    /// Somebody moves it, or moves with it: try again soon.
    Busy,
    /// It is one, or nobody may any more.
    Refused,
}

/// What a member finds that wants to map it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It has it mapped and holds it, instead of this one.
    Mapped(u64),
    /// It must be brought.
    Absent,
    /// Somebody moves it, or moves with it: try again soon.
    Busy,
}

/// What a member that is to leave the GPU has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// Nothing but to let go of it.
    LetsGo,
    /// To save it, which no other member does or uses meanwhile. It holds it, instead of this one.
    Saves(u64),
}

/// What becomes of a segment when one of its members is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It counted as somebody else's anyway, or as nobody's.
    Unheld,
    /// Another one holds it.
    To(u64),
    /// It was the last, and held it.
    Nobody,
}

impl Tenancy {
    /// That of the one client that has it, mapped, if it is on the GPU.
    pub(crate) fn new(client: u64, is_resident: bool) -> Self {
        Self {
            members: vec![Member { client, is_mapped: is_resident }],
            holder: is_resident.then_some(client),
            mover: None,
            is_closed: false,
            is_departing: false,
        }
    }

    /// Another client becomes a member.
    pub(crate) fn join(&mut self, client: u64) -> Result<(), NotJoined> {
        // It soon is at another worker, where it is sought, or stays.
        if self.is_departing {
            return Err(NotJoined::Busy);
        }
        if self.is_closed || self.members.iter().any(|member| member.client == client) {
            return Err(NotJoined::Refused);
        }
        if self.mover.is_some() {
            return Err(NotJoined::Busy);
        }
        self.members.push(Member { client, is_mapped: false });
        Ok(())
    }

    /// Maps it, if it is there.
    pub(crate) fn enter(&mut self, client: u64) -> Entered {
        let Some(before) = self.holder.filter(|_| self.mover.is_none()) else {
            return if self.mover.is_some() { Entered::Busy } else { Entered::Absent };
        };
        self.set_mapped(client, true);
        self.holder = Some(client);
        Entered::Mapped(before)
    }

    /// Whether the member is to bring it. Nobody else does anything with it until [`Self::end_bringing`].
    pub(crate) fn begin_bringing(&mut self, client: u64) -> bool {
        let is_absent = self.mover.is_none() && self.holder.is_none();
        if is_absent {
            self.mover = Some(client);
        }
        is_absent
    }

    /// It is there, mapped, or is not.
    pub(crate) fn end_bringing(&mut self, client: u64, is_there: bool) {
        self.mover = None;
        self.holder = is_there.then_some(client);
        self.set_mapped(client, is_there);
    }

    /// A member is to leave the GPU. If it saves it, nobody else does anything with it until [`Self::end_saving`].
    pub(crate) fn begin_leaving(&mut self, client: u64) -> Leaving {
        let Some(before) = self.holder.filter(|_| self.mover.is_none()) else { return Leaving::LetsGo };
        let is_its = before == client || self.is_mapped(client);
        if !is_its || self.is_mapped_by_others(client) {
            return Leaving::LetsGo;
        }
        self.holder = Some(client);
        self.mover = Some(client);
        Leaving::Saves(before)
    }

    /// It is saved and absent, or stays.
    pub(crate) fn end_saving(&mut self, client: u64, is_saved: bool) {
        self.mover = None;
        self.set_mapped(client, !is_saved);
        if is_saved {
            self.holder = None;
        }
    }

    /// A member unmaps it. Returns who holds it instead, if it did.
    pub(crate) fn let_go(&mut self, client: u64) -> Option<u64> {
        self.set_mapped(client, false);
        let next = self.members.iter().find(|member| member.is_mapped)?.client;
        self.take_over(client, next)
    }

    /// A member is gone, in the middle of whatever.
    pub(crate) fn leave(&mut self, client: u64) -> Left {
        if self.mover == Some(client) {
            self.mover = None;
        }
        self.members.retain(|member| member.client != client);
        let next = self.members.iter().find(|member| member.is_mapped).or(self.members.first());
        match next.map(|next| next.client) {
            Some(next) => self.take_over(client, next).map_or(Left::Unheld, Left::To),
            None if self.holder.take() == Some(client) => Left::Nobody,
            None => Left::Unheld,
        }
    }

    fn take_over(&mut self, from: u64, to: u64) -> Option<u64> {
        let is_its = self.holder == Some(from);
        if is_its {
            self.holder = Some(to);
        }
        is_its.then_some(to)
    }

    /// Nobody joins any more.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Nobody joins while it departs.
    pub(crate) fn set_departing(&mut self, is_departing: bool) {
        self.is_departing = is_departing;
    }

    /// Whether this client alone has it, and nobody moves it.
    pub(crate) fn is_alone(&self, client: u64) -> bool {
        self.mover.is_none() && self.members.iter().all(|member| member.client == client)
    }

    /// Whether it is a member.
    pub(crate) fn has(&self, client: u64) -> bool {
        self.members.iter().any(|member| member.client == client)
    }

    /// Whose memory it counts as while it is there.
    pub(crate) fn holder(&self) -> Option<u64> {
        self.holder
    }

    /// Who moves it.
    pub(crate) fn mover(&self) -> Option<u64> {
        self.mover
    }

    /// Whose allocation it counts as: the oldest member's.
    pub(crate) fn payer(&self) -> Option<u64> {
        self.members.first().map(|member| member.client)
    }

    /// The members beside one.
    pub(crate) fn others(&self, client: u64) -> Vec<u64> {
        self.members.iter().map(|member| member.client).filter(|&other| other != client).collect()
    }

    /// All members, if they are several.
    pub(crate) fn sharers(&self) -> Vec<u64> {
        let all = if self.members.len() > 1 { &self.members[..] } else { &[] };
        all.iter().map(|member| member.client).collect()
    }

    fn is_mapped(&self, client: u64) -> bool {
        self.members.iter().any(|member| member.client == client && member.is_mapped)
    }

    fn is_mapped_by_others(&self, client: u64) -> bool {
        self.members.iter().any(|member| member.client != client && member.is_mapped)
    }

    fn set_mapped(&mut self, client: u64, is_mapped: bool) {
        if let Some(member) = self.members.iter_mut().find(|member| member.client == client) {
            member.is_mapped = is_mapped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_leaves_last_saves_and_who_comes_first_brings() {
        let mut tenancy = Tenancy::new(1, true);
        tenancy.join(2).unwrap();
        assert_eq!(tenancy.join(2), Err(NotJoined::Refused));
        assert_eq!(tenancy.enter(2), Entered::Mapped(1));
        assert_eq!((tenancy.begin_leaving(2), tenancy.let_go(2)), (Leaving::LetsGo, Some(1)));
        assert_eq!(tenancy.begin_leaving(1), Leaving::Saves(1));
        assert_eq!((tenancy.enter(2), tenancy.join(3)), (Entered::Busy, Err(NotJoined::Busy)));
        tenancy.end_saving(1, true);
        assert_eq!((tenancy.holder(), tenancy.enter(2)), (None, Entered::Absent));
        assert!(tenancy.begin_bringing(2) && !tenancy.begin_bringing(1));
        tenancy.end_bringing(2, true);
        assert_eq!(tenancy.enter(1), Entered::Mapped(2));
        tenancy.set_departing(true);
        assert_eq!(tenancy.join(3), Err(NotJoined::Busy));
    }

    #[test]
    fn memory_lives_until_its_last_member_is_gone() {
        let mut tenancy = Tenancy::new(1, true);
        tenancy.join(2).unwrap();
        assert_eq!(tenancy.payer(), Some(1));
        assert_eq!((tenancy.leave(1), tenancy.payer()), (Left::To(2), Some(2)));
        assert_eq!(tenancy.begin_leaving(2), Leaving::Saves(2), "though it never had it mapped");
        tenancy.end_saving(2, false);
        assert_eq!((tenancy.leave(2), tenancy.leave(2)), (Left::Nobody, Left::Unheld));
    }

    /// What a member does next, in the order in which sessions do such things.
    #[derive(Clone, Debug)]
    enum Step {
        Join,
        Enter,
        Leave,
        EndMove(bool),
        Die,
    }

    fn step() -> impl Strategy<Value = (u64, Step)> {
        let step = prop_oneof![
            Just(Step::Join),
            Just(Step::Enter),
            Just(Step::Leave),
            any::<bool>().prop_map(Step::EndMove),
            Just(Step::Die),
        ];
        (1..5_u64, step)
    }

    proptest! {
        /// Memory that is mapped is there, and counts as exactly one member's; memory that is there is somebody's.
        #[test]
        fn what_is_mapped_is_held_by_one_member(steps in prop::collection::vec(step(), 0..60)) {
            let mut tenancy = Tenancy::new(1, true);
            let (mut counted, mut saves) = (Some(1), false);
            for (client, step) in steps {
                let is_member = tenancy.has(client);
                match step {
                    Step::Join => drop(tenancy.join(client)),
                    _ if !is_member => {}
                    Step::Enter => match tenancy.enter(client) {
                        Entered::Mapped(before) => {
                            prop_assert_eq!(counted, Some(before));
                            counted = Some(client);
                        }
                        Entered::Absent => {
                            prop_assert!(tenancy.begin_bringing(client));
                            saves = false;
                        }
                        Entered::Busy => prop_assert!(tenancy.mover().is_some()),
                    },
                    Step::Leave if tenancy.mover() == Some(client) => {}
                    Step::Leave => match tenancy.begin_leaving(client) {
                        Leaving::Saves(before) => {
                            prop_assert_eq!(counted, Some(before));
                            (counted, saves) = (Some(client), true);
                        }
                        Leaving::LetsGo => counted = tenancy.let_go(client).or(counted),
                    },
                    Step::EndMove(is_well) if tenancy.mover() == Some(client) => {
                        if saves {
                            tenancy.end_saving(client, is_well);
                        } else {
                            tenancy.end_bringing(client, is_well);
                        }
                        counted = (saves != is_well).then_some(client);
                    }
                    Step::EndMove(_) => {}
                    Step::Die => match tenancy.leave(client) {
                        Left::To(next) => counted = Some(next),
                        Left::Nobody => counted = None,
                        Left::Unheld => {}
                    },
                }
                prop_assert_eq!(tenancy.holder(), counted);
                prop_assert!(counted.is_none_or(|holder| tenancy.has(holder)));
                prop_assert!(tenancy.mover().is_none_or(|mover| tenancy.has(mover)));
                let is_mapped = tenancy.members.iter().any(|member| member.is_mapped);
                prop_assert!(!is_mapped || counted.is_some(), "mapped, and nobody's");
            }
        }
    }
}
