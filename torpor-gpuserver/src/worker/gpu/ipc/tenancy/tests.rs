use super::*;
use proptest::prelude::*;

#[test]
fn who_leaves_last_saves_and_who_comes_first_brings() {
    let mut tenancy = Tenancy::new(1, true);
    tenancy.join(2, false).unwrap();
    assert_eq!(tenancy.join(2, false), Err(NotJoined::Refused));
    assert_eq!(tenancy.enter(2), Entered::Mapped(1));
    assert_eq!((tenancy.begin_leaving(2), tenancy.let_go(2)), (Leaving::LetsGo, Some(1)));
    assert_eq!(tenancy.begin_leaving(1), Leaving::Saves(1));
    assert_eq!((tenancy.enter(2), tenancy.join(3, false)), (Entered::Busy, Err(NotJoined::Busy)));
    tenancy.end_saving(1, true);
    assert_eq!((tenancy.holder(), tenancy.enter(2)), (None, Entered::Absent));
    assert!(tenancy.begin_bringing(2) && !tenancy.begin_bringing(1));
    tenancy.end_bringing(2, true);
    assert_eq!(tenancy.enter(1), Entered::Mapped(2));
    tenancy.set_departing(true);
    tenancy.close();
    assert_eq!(tenancy.join(3, false), Err(NotJoined::Busy));
    tenancy.set_departing(false);
    tenancy.join(3, false).unwrap();
    tenancy.close();
    assert_eq!((tenancy.join(4, false), tenancy.join(4, true)), (Err(NotJoined::Refused), Ok(())));
}

#[test]
fn memory_lives_until_its_last_member_is_gone() {
    let mut tenancy = Tenancy::new(1, true);
    tenancy.join(2, false).unwrap();
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
                Step::Join => drop(tenancy.join(client, false)),
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
