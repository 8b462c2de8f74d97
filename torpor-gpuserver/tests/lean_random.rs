//! Random programs whose memory passes, beside another one that has most of the GPU, against a reference that has everything.
//!
//! `PROPTEST_CASES` says how many, `PROPTEST_RNG_SEED` repeats them.

mod lean_support;
mod served;
mod server_support;
mod worker_support;

use lean_support::{GATHER, MARK, MIB, Model, Node, Other, WEIGHTS, rounds, until_lean};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use torpor_proto::command::StreamCreate;

/// Programs, unless `PROPTEST_CASES` says how many.
const PROGRAMS: u32 = 10;

#[derive(Clone, Debug)]
enum Step {
    /// A request like any other.
    Infer,
    /// A few weights alone, forwards or backwards.
    Some {
        from: usize,
        count: usize,
        backwards: bool,
    },
    Mark(usize),
    Write(usize, u32),
    Fill(usize, u8),
    /// One weight is copied over another.
    Copy(usize, usize),
    /// A pointer to a weight is written, and followed by a kernel that is not given it.
    Follow(usize),
    /// In two streams at once.
    Streams(usize, usize),
    Unload,
    /// The other one alone.
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let weight = || 0..WEIGHTS as usize;
    prop_oneof![
        8 => Just(Step::Infer),
        4 => (weight(), 1..12_usize, any::<bool>())
            .prop_map(|(from, count, backwards)| Step::Some { from, count, backwards }),
        2 => weight().prop_map(Step::Mark),
        2 => (weight(), any::<u32>()).prop_map(|(weight, value)| Step::Write(weight, value)),
        1 => (weight(), any::<u8>()).prop_map(|(weight, byte)| Step::Fill(weight, byte)),
        2 => (weight(), weight()).prop_map(|(from, to)| Step::Copy(from, to)),
        2 => weight().prop_map(Step::Follow),
        2 => (weight(), weight()).prop_map(|(one, other)| Step::Streams(one, other)),
        1 => Just(Step::Unload),
        1 => Just(Step::Wait),
    ]
}

fn take(node: &Node, model: &mut Model, step: &Step) {
    let weights = WEIGHTS as usize;
    match *step {
        Step::Infer => model.infer(),
        Step::Some { from, count, backwards } => {
            let mut chosen: Vec<_> = (from..from + count).map(|weight| weight % weights).collect();
            if backwards {
                chosen.reverse();
            }
            chosen.iter().for_each(|&weight| model.post(GATHER, weight));
            model.expect_more(chosen.iter().map(|&weight| model.value(weight)).fold(0, u32::wrapping_add));
        }
        Step::Mark(weight) => {
            model.post(MARK, weight);
            model.expect_more_of(weight, 1);
        }
        Step::Write(weight, value) => model.write(weight, value),
        Step::Fill(weight, byte) => model.fill(weight, byte),
        Step::Copy(from, to) => {
            let (source, destination) = (model.weights[from], model.weights[to]);
            if from != to {
                model.client.copy(destination, source, MIB, 0);
                model.changed(to, model.value(from).wrapping_sub(model.value(to)));
            }
        }
        Step::Follow(weight) => {
            let table = model.out + MIB;
            model.client.upload(table, &model.weights[weight].to_le_bytes());
            (0..weights).for_each(|weight| model.post(GATHER, weight));
            model.expect_more(model.sum());
            model.client.add_through(table, 1, 0);
            model.changed(weight, 3);
        }
        Step::Streams(one, other) => {
            // Each works on a weight of its own, behind what was posted to the first before.
            model.client.settle().unwrap();
            model.client.add_step(model.weights[one], 1, 0);
            let other = if one == other { (other + 1) % weights } else { other };
            model.client.add_step(model.weights[other], 1, 5);
            model.client.settle().unwrap();
            model.changed(one, 3);
            model.changed(other, 3);
        }
        Step::Unload => node.server.unload("model"),
        Step::Wait => {}
    }
}

#[test]
fn whatever_passes_and_when_programs_see_the_memory_they_wrote() {
    let node = Node::start("");
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { PROGRAMS };
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 60,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let mut other = Other::start(&node.server, "other");
    let other = RefCell::new(&mut other);
    let outcome = TestRunner::new(config).run(&prop::collection::vec(step(), 5..25), |steps| {
        let mut model = Model::start(&node.server, "model");
        model.client.post(StreamCreate { stream: 5, flags: 1, ..StreamCreate::default() }, &[]);
        model.client.settle().unwrap();
        let mut other = other.borrow_mut();
        until_lean(&node, &mut model, &mut other);
        // Both go on being busy.
        let mut left = steps.iter();
        rounds(steps.len() as u32, &mut other, || {
            left.next().into_iter().for_each(|step| take(&node, &mut model, step));
        });
        model.infer();
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    node.check();
}
