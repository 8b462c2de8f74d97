//! Who ended a worker, where it may have been any of several whose kernels ran at that moment: each does again what it did, alone, the
//! least suspicious first. One whose worker is lost again was it. If all others went well, it was the last, which is not tried.

use crate::server::workers::order::Death;

/// What is held of a client of a worker that died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was not its fault.
    Innocent,
    /// It may have been.
    Suspect,
    /// It was.
    Guilty,
}

/// What became of a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has done again what it did, and its worker lives.
    Cleared,
    /// It was its fault.
    Convicted,
    /// Nobody knows: it is told for another reason, or it takes too long.
    Open,
}

/// The trial of those who may have ended a worker.
#[derive(Debug)]
pub(super) struct Trial {
    left: usize,
    /// It was one of those that are left, for all that is known.
    among_them: bool,
    convicted: bool,
}

impl Trial {
    /// Of a death, of whose suspects these survive. Returns them in the order in which they are tried.
    pub(super) fn of(death: &Death, survivors: &[u64]) -> (Self, Vec<u64>) {
        let order: Vec<u64> = if death.culprit.is_some() || death.fault.is_none() {
            Vec::new()
        } else {
            death.suspects.iter().copied().filter(|suspect| survivors.contains(suspect)).collect()
        };
        let among_them = order.len() == death.suspects.len() && !death.is_unsure;
        (Self { left: order.len(), among_them, convicted: false }, order)
    }

    /// What is held of the next one.
    pub(super) fn next(&self) -> Standing {
        match self {
            Self { convicted: true, .. } => Standing::Innocent,
            Self { left: 1, among_them: true, .. } => Standing::Guilty,
            _ => Standing::Suspect,
        }
    }

    /// The next one has been tried.
    pub(super) fn note(&mut self, outcome: Outcome) {
        self.left = self.left.saturating_sub(1);
        self.convicted |= outcome == Outcome::Convicted;
        self.among_them &= outcome != Outcome::Open;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::error::CudaError;

    fn death(suspects: &[u64]) -> Death {
        Death { fault: Some(CudaError::ILLEGAL_ADDRESS), suspects: suspects.to_vec(), ..Death::default() }
    }

    #[test]
    fn the_last_one_left_was_it_if_all_others_went_well() {
        let (mut trial, order) = Trial::of(&death(&[3, 1, 2]), &[1, 2, 3, 4]);
        assert_eq!(order, [3, 1, 2]);
        for _ in 0..2 {
            assert_eq!(trial.next(), Standing::Suspect);
            trial.note(Outcome::Cleared);
        }
        assert_eq!(trial.next(), Standing::Guilty);
    }

    #[test]
    fn nobody_is_tried_any_more_once_it_is_found() {
        let (mut trial, _) = Trial::of(&death(&[1, 2, 3]), &[1, 2, 3]);
        trial.note(Outcome::Convicted);
        assert_eq!(trial.next(), Standing::Innocent);
        trial.note(Outcome::Cleared);
        assert_eq!(trial.next(), Standing::Innocent);
    }

    #[test]
    fn nobody_is_held_guilty_while_it_may_have_been_another_one() {
        // Of one suspect nothing is left to be tried.
        let (trial, order) = Trial::of(&death(&[1, 2]), &[1]);
        assert_eq!((trial.next(), &order[..]), (Standing::Suspect, &[1][..]));
        let unsure = Death { is_unsure: true, ..death(&[1]) };
        assert_eq!(Trial::of(&unsure, &[1]).0.next(), Standing::Suspect);
        let (mut trial, _) = Trial::of(&death(&[1, 2]), &[1, 2]);
        trial.note(Outcome::Open);
        assert_eq!(trial.next(), Standing::Suspect);
    }

    #[test]
    fn there_is_no_trial_where_the_culprit_is_known_or_the_worker_was_killed() {
        let known = Death { culprit: Some(1), ..death(&[1, 2]) };
        assert_eq!(Trial::of(&known, &[2]).1, [0; 0]);
        assert!(known.accuses(1) && !known.accuses(2));
        let killed = Death { fault: None, ..death(&[1, 2]) };
        assert_eq!(Trial::of(&killed, &[1, 2]).1, [0; 0]);
        assert!(!killed.accuses(1));
        assert!(death(&[1, 2]).accuses(2) && !death(&[1, 2]).accuses(3));
    }
}
