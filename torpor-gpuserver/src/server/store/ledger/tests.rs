//! Whatever is done, and wherever the server is killed, doing again what was written down makes the same index.

use super::*;
use crate::server::store::index::IndexUsage;
use proptest::prelude::*;
use std::os::fd::AsFd;

const SLAB_SLOTS: u32 = 4;

/// Something that is done.
#[derive(Clone, Debug)]
enum Step {
    Admit(u64),
    Forget(u64),
    Reserve {
        client: u64,
        count: usize,
    },
    Release {
        client: u64,
        which: usize,
    },
    Share {
        client: u64,
        other: u64,
        which: usize,
    },
    Identify {
        client: u64,
        which: usize,
        content: u8,
        is_named: bool,
    },
    ForgetNames(u64),
    Lease {
        client: u64,
        granted: bool,
    },
    Revoke {
        answered: bool,
    },
    Spill {
        most: usize,
        written: bool,
        ended: bool,
    },
    Restore {
        client: u64,
        done: bool,
        ended: bool,
    },
    Slab,
    /// One that is empty goes.
    Return,
    /// The server is killed, and the next one goes on.
    Killed,
    /// The whole index is written.
    Whole,
}

fn step() -> impl Strategy<Value = Step> {
    let (client, flag) = (1..5_u64, any::<bool>());
    prop_oneof![
        client.clone().prop_map(Step::Admit),
        client.clone().prop_map(Step::Forget),
        (client.clone(), 0..5_usize).prop_map(|(client, count)| Step::Reserve { client, count }),
        (client.clone(), 0..9_usize).prop_map(|(client, which)| Step::Release { client, which }),
        (client.clone(), client.clone(), 0..9_usize).prop_map(|(client, other, which)| Step::Share {
            client,
            other,
            which
        }),
        (client.clone(), 0..9_usize, 0..4_u8, flag).prop_map(|(client, which, content, is_named)| {
            Step::Identify { client, which, content, is_named }
        }),
        client.clone().prop_map(Step::ForgetNames),
        (client.clone(), flag).prop_map(|(client, granted)| Step::Lease { client, granted }),
        flag.prop_map(|answered| Step::Revoke { answered }),
        (1..4_usize, flag, flag).prop_map(|(most, written, ended)| Step::Spill { most, written, ended }),
        (client, flag, flag).prop_map(|(client, done, ended)| Step::Restore { client, done, ended }),
        Just(Step::Slab),
        Just(Step::Return),
        Just(Step::Killed),
        Just(Step::Whole),
    ]
}

/// What the keeper would have: the last file of that name.
fn kept(socket: &OwnedFd, last: &mut Option<OwnedFd>) {
    while let Some((name, descriptors)) = Keeper::look(socket) {
        assert_eq!(name, NAME);
        *last = descriptors.into_iter().next();
    }
}

fn seen(ledger: &Ledger) -> (IndexUsage, keeper::Index, Vec<String>) {
    (ledger.usage(), ledger.to_record(SLAB_SLOTS), ledger.contradictions())
}

proptest! {
    #[test]
    fn what_was_written_down_makes_the_same_index(steps in prop::collection::vec(step(), 1..120)) {
        let (keeper, socket) = Keeper::pair();
        let (mut ledger, mut file) = (Ledger::new(SLAB_SLOTS, keeper.clone()), None);
        let (mut spills, mut restores) = (Vec::new(), Vec::new());
        for (number, step) in (1..).zip(steps) {
            let asked = Asked { worker: WorkerId(7), request: number };
            let chunk = |ledger: &Ledger, which: usize| ledger.known_chunks().nth(which);
            match step {
                Step::Admit(client) => ledger.admit(ClientId(client), "f"),
                Step::Forget(client) => drop(ledger.forget(ClientId(client))),
                Step::Reserve { client, count } => {
                    ledger.touch(ClientId(client));
                    let reserved = ledger.reserve(ClientId(client), count, asked);
                    if let Ok(Some(places)) = reserved {
                        prop_assert_eq!(ledger.answered(ClientId(client), asked), Some(places));
                    }
                }
                Step::Release { client, which } => {
                    let chunks: Vec<_> = chunk(&ledger, which).into_iter().collect();
                    drop(ledger.release(ClientId(client), &chunks, asked));
                    prop_assert!(ledger.was_heard(asked));
                }
                Step::Share { client, other, which } => {
                    let chunks: Vec<_> = chunk(&ledger, which).into_iter().collect();
                    let _ = ledger.share(ClientId(client), &[ClientId(other)], &chunks, asked);
                }
                Step::ForgetNames(client) => ledger.forget_names(ClientId(client)),
                Step::Identify { client, which, content, is_named } => {
                    let contents: Vec<_> =
                        chunk(&ledger, which).map(|chunk| (chunk, [content; 32])).into_iter().collect();
                    let _ = ledger.identify(ClientId(client), (&contents, is_named), asked);
                }
                Step::Lease { client, granted } => {
                    let _ = ledger.want_lease(ClientId(client));
                    if granted {
                        let _ = ledger.grant(ClientId(client));
                    } else {
                        ledger.drop_wish(ClientId(client));
                    }
                }
                Step::Revoke { answered } => {
                    if let Some(chosen) = ledger.revoke_next(|_| true)
                        && answered
                    {
                        ledger.revoked(chosen, Some(asked));
                    } else {
                        ledger.suspend_next(|_| true);
                    }
                }
                Step::Spill { most, written, ended } => {
                    spills.extend(ledger.begin_spills(most));
                    if ended {
                        for ticket in spills.drain(..) {
                            let hash = ticket.hash.unwrap_or([9; 32]);
                            let spilled = if written { Spilled::Written(hash) } else { Spilled::Failed };
                            ledger.end_spill(ticket, spilled);
                        }
                    }
                }
                Step::Restore { client, done, ended } => {
                    for chunk in ledger.missing(ClientId(client)) {
                        restores.extend(ledger.begin_restore(chunk));
                    }
                    if ended {
                        for ticket in restores.drain(..) {
                            ledger.end_restore(ticket, done);
                        }
                    }
                }
                Step::Slab => {
                    if ledger.total_slots() < 16 {
                        ledger.add_slab();
                    }
                }
                Step::Return => {
                    let _ = ledger.take_slab();
                }
                Step::Whole => {
                    if ledger.is_quiet() {
                        ledger.write_whole();
                    }
                }
                Step::Killed => {
                    kept(&socket, &mut file);
                    let left = file.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
                    let next = Ledger::inherit(left, SLAB_SLOTS, keeper.clone()).unwrap();
                    // What the next server does at its start, as nobody spills or restores any more.
                    for ticket in spills.drain(..) {
                        ledger.end_spill(ticket, Spilled::Failed);
                    }
                    for ticket in restores.drain(..) {
                        ledger.end_restore(ticket, false);
                    }
                    ledger.index.begin_anew();
                    prop_assert_eq!(seen(&next), seen(&ledger));
                    prop_assert_eq!(&next.answers, &ledger.answers);
                    prop_assert_eq!(&next.heard, &ledger.heard);
                    prop_assert_eq!(&next.functions, &ledger.functions);
                    ledger = next;
                }
            }
            prop_assert_eq!(ledger.contradictions(), Vec::<String>::new());
        }
    }
}
