//! What a program may do next.

use super::{GPUS, MIB, SEGMENTS, VARIABLES};
use proptest::prelude::*;

/// A step of a schedule; segments that are not there make it nothing.
#[derive(Clone, Debug)]
pub enum Step {
    Allocate {
        segment: usize,
        chunks: u64,
    },
    Free {
        segment: usize,
    },
    /// Unmaps a segment that is made of objects; their contents stay.
    Hide {
        segment: usize,
    },
    /// Maps it again where it was.
    Show {
        segment: usize,
    },
    Upload {
        segment: usize,
        offset: u64,
        bytes: u64,
        seed: u8,
    },
    Fill {
        segment: usize,
        offset: u64,
        bytes: u64,
        value: u8,
    },
    Copy {
        from: usize,
        to: usize,
        offset: u64,
        bytes: u64,
    },
    Add {
        segment: usize,
        offset: u64,
    },
    /// Stores a pointer to another segment at the beginning of one, by a copy or as a word.
    Point {
        from: usize,
        to: usize,
        by_word: bool,
    },
    /// Adds through the pointer at the beginning of a segment, if there is one.
    AddThrough {
        segment: usize,
    },
    /// Makes a graph of two additions.
    Capture {
        segment: usize,
    },
    /// Launches the graph.
    Replay,
    /// Counts in a variable, and stores what that and a constant give.
    Tick {
        segment: usize,
        offset: u64,
    },
    /// Writes into the variable, or into the constant.
    Set {
        variable: usize,
        value: u32,
    },
    /// Copies a part of a segment into the array, which is made if need be.
    Paint {
        segment: usize,
        offset: u64,
    },
    /// Copies the array into a segment.
    Develop {
        segment: usize,
        offset: u64,
    },
    /// Destroys it.
    Tear,
    Look {
        segment: usize,
        offset: u64,
        bytes: u64,
    },
    Unload,
    Load,
    /// To one of the GPUs, whether it is there or not.
    Move {
        gpu: u32,
    },
    /// Nothing for a while, in which chunks are identified.
    Rest,
}

/// Any step.
pub fn step() -> impl Strategy<Value = Step> {
    let segment = || 0..SEGMENTS;
    // The last one reaches from one object into the next.
    let offset =
        || prop_oneof![2 => Just(0), 2 => (0..1600_u64).prop_map(|kib| kib << 10), 1 => Just(2 * MIB - 700)];
    let bytes = || prop_oneof![3 => 1..2000_u64, 1 => (1..400_u64).prop_map(|kib| kib << 10)];
    prop_oneof![
        8 => (segment(), 1..3_u64).prop_map(|(segment, chunks)| Step::Allocate { segment, chunks }),
        1 => segment().prop_map(|segment| Step::Free { segment }),
        2 => segment().prop_map(|segment| Step::Hide { segment }),
        4 => segment().prop_map(|segment| Step::Show { segment }),
        4 => (segment(), offset(), bytes(), any::<u8>())
            .prop_map(|(segment, offset, bytes, seed)| Step::Upload { segment, offset, bytes, seed }),
        2 => (segment(), offset(), bytes(), any::<u8>())
            .prop_map(|(segment, offset, bytes, value)| Step::Fill { segment, offset, bytes, value }),
        2 => (segment(), segment(), offset(), bytes())
            .prop_map(|(from, to, offset, bytes)| Step::Copy { from, to, offset, bytes }),
        5 => (segment(), offset()).prop_map(|(segment, offset)| Step::Add { segment, offset }),
        2 => (segment(), segment(), any::<bool>())
            .prop_map(|(from, to, by_word)| Step::Point { from, to, by_word }),
        3 => segment().prop_map(|segment| Step::AddThrough { segment }),
        1 => segment().prop_map(|segment| Step::Capture { segment }),
        2 => Just(Step::Replay),
        3 => (segment(), offset()).prop_map(|(segment, offset)| Step::Tick { segment, offset }),
        1 => (0..VARIABLES.len(), any::<u32>()).prop_map(|(variable, value)| Step::Set { variable, value }),
        4 => (segment(), offset()).prop_map(|(segment, offset)| Step::Paint { segment, offset }),
        2 => (segment(), offset()).prop_map(|(segment, offset)| Step::Develop { segment, offset }),
        1 => Just(Step::Tear),
        4 => (segment(), offset(), bytes())
            .prop_map(|(segment, offset, bytes)| Step::Look { segment, offset, bytes }),
        2 => Just(Step::Unload),
        1 => Just(Step::Load),
        2 => (0..GPUS).prop_map(|gpu| Step::Move { gpu }),
        1 => Just(Step::Rest),
    ]
}
