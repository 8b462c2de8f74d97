//! What lanes do together, and how they part and meet.

use super::evaluate;

/// The first word of every lane's slot after `%r0` is stored there.
fn lanes(body: &str, threads: u32) -> Vec<u32> {
    let slots = evaluate(&format!("{body}\nst.global.u32 [%slot], %r0;"), threads);
    slots.iter().map(|slot| slot[0] as u32).collect()
}

#[test]
fn shuffles_in_segments() {
    let shuffle = |mode: &str, b: u32, c: u32| {
        lanes(&format!("shfl.sync.{mode}.b32 %r0|%p1, %tid, {b}, {c}, -1; @!%p1 add.u32 %r0, %r0, 1000;"), 32)
    };
    let expected = |function: &dyn Fn(u32) -> u32| (0..32).map(function).collect::<Vec<u32>>();
    assert_eq!(shuffle("bfly", 1, 0x1f), expected(&|lane| lane ^ 1));
    assert_eq!(shuffle("up", 3, 0), expected(&|lane| if lane < 3 { lane + 1000 } else { lane - 3 }));
    assert_eq!(shuffle("down", 3, 0x1f), expected(&|lane| if lane > 28 { lane + 1000 } else { lane + 3 }));
    assert_eq!(shuffle("idx", 5, 0x1f), [5; 32]);
    // Width 8: the mask of the segment is 24.
    let width8 = (32 - 8) << 8 | 0x1f;
    assert_eq!(shuffle("idx", 2, width8), expected(&|lane| lane / 8 * 8 + 2));
    assert_eq!(
        shuffle("down", 2, width8),
        expected(&|lane| if lane % 8 > 5 { lane + 1000 } else { lane + 2 })
    );
    assert_eq!(
        shuffle("up", 2, (32 - 8) << 8),
        expected(&|lane| if lane % 8 < 2 { lane + 1000 } else { lane - 2 })
    );
}

#[test]
fn votes_matches_and_reductions() {
    let odd = "and.b32 %r1, %tid, 1; setp.ne.u32 %p1, %r1, 0;";
    assert_eq!(lanes(&format!("{odd} vote.sync.ballot.b32 %r0, %p1, -1;"), 32), [0xaaaa_aaaa; 32]);
    assert_eq!(lanes(&format!("{odd} vote.sync.ballot.b32 %r0, !%p1, 0xFF;"), 8), [0x55; 8]);
    assert_eq!(
        lanes(&format!("{odd} vote.sync.any.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;"), 32),
        [1; 32]
    );
    assert_eq!(
        lanes(&format!("{odd} vote.sync.all.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;"), 32),
        [0; 32]
    );
    assert_eq!(
        lanes(&format!("{odd} vote.sync.uni.pred %p2, %p1, -1; selp.u32 %r0, 1, 0, %p2;"), 32),
        [0; 32]
    );
    let thirds = lanes("rem.u32 %r1, %tid, 3; match.any.sync.b32 %r0, %r1, -1;", 32);
    assert_eq!(thirds[0], (0..32).step_by(3).fold(0, |set, lane| set | 1 << lane));
    assert_eq!(lanes("match.all.sync.b32 %r0|%p1, 7, -1;", 32), [u32::MAX; 32]);
    assert_eq!(lanes("match.all.sync.b32 %r0|%p1, %tid, -1;", 32), [0; 32]);
    assert_eq!(lanes("redux.sync.add.u32 %r0, %tid, -1;", 32), [31 * 16; 32]);
    assert_eq!(lanes("sub.u32 %r1, %tid, 5; redux.sync.min.s32 %r0, %r1, -1;", 32), [(-5i32) as u32; 32]);
    assert_eq!(lanes(&format!("mov.u32 %r0, 9; {odd} @%p1 activemask.b32 %r0;"), 4), [9, 0b1010, 9, 0b1010]);
}

#[test]
fn lanes_that_part_meet_again() {
    let loops = "mov.u32 %r0, 0; mov.u32 %r1, 0;\n\
        L1: setp.ge.u32 %p1, %r1, %tid; @%p1 bra L2; add.u32 %r0, %r0, %r1; add.u32 %r1, %r1, 1; bra L1;\n\
        L2: activemask.b32 %r2; setp.eq.s32 %p2, %r2, -1; @!%p2 mov.u32 %r0, 999;";
    let sums: Vec<u32> = (0..32).map(|lane| (0..lane).sum()).collect();
    assert_eq!(lanes(loops, 32), sums, "all lanes are together behind the loop");
    let nested = "and.b32 %r1, %tid, 1; and.b32 %r2, %tid, 2; setp.ne.u32 %p1, %r1, 0; setp.ne.u32 %p2, %r2, 0;\n\
        mov.u32 %r0, 0; @%p1 bra ODD; @%p2 bra A; add.u32 %r0, %r0, 1; bra B; A: add.u32 %r0, %r0, 2;\n\
        B: add.u32 %r0, %r0, 10; bra END; ODD: @%p2 bra C; add.u32 %r0, %r0, 3; bra D; C: add.u32 %r0, %r0, 4;\n\
        D: add.u32 %r0, %r0, 20; END: redux.sync.add.u32 %r3, %r0, -1; mad.lo.u32 %r0, %r3, 100, %r0;";
    let each = |lane: u32| [11, 23, 12, 24][lane as usize % 4];
    let sum: u32 = (0..32).map(each).sum();
    assert_eq!(lanes(nested, 32), (0..32).map(|lane| sum * 100 + each(lane)).collect::<Vec<u32>>());
}

#[test]
fn lanes_that_left_are_not_waited_for() {
    let early = "setp.lt.u32 %p1, %tid, 8; mov.u32 %r0, 1; @%p1 exit; bar.sync 0; bar.warp.sync -1;\n\
        redux.sync.add.u32 %r0, %r0, -1;";
    let found = lanes(early, 64);
    assert_eq!(found[..8], [0; 8], "what left before the end has stored nothing");
    assert_eq!(found[8..32], [24; 24]);
    assert_eq!(found[32..], [32; 32]);
}

#[test]
fn a_lane_waits_for_another_of_its_warp() {
    // Lane 0 spins on a word that lane 1 writes behind the loop.
    let spin = "setp.ne.u32 %p1, %tid, 0; st.volatile.global.u32 [%slot+8], 0; bar.warp.sync -1; mov.u32 %r0, 5;\n\
        @%p1 bra WRITE; WAIT: ld.volatile.global.u32 %r0, [%out+8]; setp.eq.u32 %p2, %r0, 0; @%p2 bra WAIT; bra END;\n\
        WRITE: st.volatile.global.u32 [%out+8], 77; END:";
    assert_eq!(lanes(spin, 2), [77, 5]);
}

#[test]
fn warp_barriers_at_different_instructions_pair() {
    let body = "setp.eq.u32 %p1, %tid, 0; mov.u32 %r0, 1; @%p1 bra A; bar.warp.sync 3; mov.u32 %r0, 2; bra END;\n\
        A: bar.warp.sync 3; mov.u32 %r0, 3; END:";
    assert_eq!(lanes(body, 2), [3, 2]);
}

#[test]
fn branches_through_a_table() {
    let body = "and.b32 %r1, %tid, 3; T: .branchtargets L0, L1, L2, L3;\n\
        brx.idx %r1, T; L0: mov.u32 %r0, 10; bra END; L1: mov.u32 %r0, 11; bra END;\n\
        L2: mov.u32 %r0, 12; bra END; L3: mov.u32 %r0, 13; END:";
    assert_eq!(lanes(body, 8), [10, 11, 12, 13, 10, 11, 12, 13]);
}
