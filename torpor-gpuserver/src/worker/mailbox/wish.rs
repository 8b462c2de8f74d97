//! What others want of a session, and what becomes of that: a table over what is wanted and how the session stands.

/// What others want of a session; each is one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Wish {
    /// Leave the GPU if idle: another client needs the room.
    Evict = 1,
    /// Leave the GPU as soon as idle: the operator wants it.
    Unload = 2,
    /// Come to the GPU: the operator wants it.
    Load = 4,
    /// Look at the settings.
    Settings = 8,
    /// Let go of the host store's slots while idle.
    Lease = 16,
    /// Be given up for another worker, as soon as idle or waiting for a turn.
    Release = 32,
    /// The same, but only while it waits for its turn.
    ReleaseWaiting = 64,
    /// Come to the GPU: a request begins, as whoever passes it on says.
    Request = 128,
}

/// How a session stands when it hears of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has its turn.
    Active,
    /// It has none, and nothing to do.
    Idle,
    /// It is in line for one, or waits for another client's memory or events.
    Waiting,
}

/// What becomes of a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is done at once.
    Now,
    /// The session sets out for the GPU.
    Comes,
    /// It stays wanted: the session comes to it when it stands otherwise.
    Later,
    /// It is not done, and whoever wants it hears why.
    Denied(&'static str),
}

impl Wish {
    /// All, in the order in which they are done: who is told of new settings leaves by these, and who is given up leaves before it
    /// would come.
    pub(crate) const ALL: [Self; 8] = [
        Self::Settings,
        Self::Unload,
        Self::Evict,
        Self::Lease,
        Self::Release,
        Self::ReleaseWaiting,
        Self::Load,
        Self::Request,
    ];

    /// What becomes of it.
    pub(crate) fn answer(self, standing: Standing) -> Answer {
        match (self, standing) {
            (Self::Lease, _) | (Self::Request, Standing::Active) => Answer::Now,
            (Self::ReleaseWaiting, Standing::Active) => Answer::Denied("it has its turn"),
            // Its work is not to be cut in two: it pauses, or its turn is over some time.
            (_, Standing::Active) => Answer::Later,
            (Self::ReleaseWaiting, Standing::Idle) => Answer::Denied("it waits no longer"),
            (Self::Load | Self::Request, Standing::Idle) => Answer::Comes,
            // It comes anyway.
            (Self::Load | Self::Request, Standing::Waiting) => Answer::Later,
            (Self::Settings | Self::Unload | Self::Evict | Self::Release | Self::ReleaseWaiting, _) => {
                Answer::Now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Answer::{Comes, Denied, Later, Now};
    use Standing::{Active, Idle, Waiting};

    #[test]
    fn each_wish_has_an_answer_however_the_session_stands() {
        let table = [
            (Wish::Settings, [Later, Now, Now]),
            (Wish::Unload, [Later, Now, Now]),
            (Wish::Evict, [Later, Now, Now]),
            (Wish::Lease, [Now, Now, Now]),
            (Wish::Release, [Later, Now, Now]),
            (Wish::ReleaseWaiting, [Denied("it has its turn"), Denied("it waits no longer"), Now]),
            (Wish::Load, [Later, Comes, Later]),
            (Wish::Request, [Now, Comes, Later]),
        ];
        assert_eq!(table.map(|(wish, _)| wish), Wish::ALL);
        for (wish, answers) in table {
            assert_eq!([Active, Idle, Waiting].map(|standing| wish.answer(standing)), answers, "{wish:?}");
        }
    }

    #[test]
    fn each_wish_is_a_bit_of_its_own_and_is_granted_some_time() {
        let bits = Wish::ALL.iter().fold(0, |bits, &wish| {
            assert_eq!((bits & wish as u32, (wish as u32).count_ones()), (0, 1));
            bits | wish as u32
        });
        assert_eq!(bits.count_ones() as usize, Wish::ALL.len());
        for wish in Wish::ALL {
            assert!(
                [Active, Idle, Waiting].iter().any(|&s| matches!(wish.answer(s), Now | Comes)),
                "{wish:?}"
            );
        }
    }

    #[test]
    fn who_waits_gives_up_whatever_others_may_be_waiting_for() {
        for wish in [Wish::Evict, Wish::Lease, Wish::Unload, Wish::Release] {
            assert_eq!(wish.answer(Waiting), Now, "{wish:?}");
        }
    }
}
