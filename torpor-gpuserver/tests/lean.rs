//! Clients that are active with a part of their memory, beside others that have the rest of the GPU.
//!
//! The simulated GPU looks whether anything is unmapped that is used, and whether work is in order.

mod lean_support;
mod served;
mod server_support;
mod worker_support;

use lean_support::{
    GATHER, MARK, MIB, Model, Node, OTHERS, Other, Over, WEIGHTS, rounds, rounds_until, until_lean,
};
use rustix::process::Signal;
use server_support::process::signal;
use server_support::server::eventually;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use torpor_proto::command::{HostLock, MemoryFree};
use torpor_proto::control::admin::{LoadFunctionRequest, UnloadFunctionRequest};

/// Nothing is saved ahead of time, which takes long here.
const CALM: &str = "--cover false";

#[test]
fn a_model_that_is_only_read_is_active_beside_another_function_with_a_part_of_its_memory() {
    const ROUNDS: u32 = 20;
    let swaps = |flags: &str| {
        let node = Node::start(flags);
        let mut model = Model::start(&node.server, "model");
        let free_bytes = node.free_bytes();
        let mut other = Other::start(&node.server, "other");
        let before = node.swaps("model");
        rounds(ROUNDS, &mut other, || {
            model.infer();
            node.check_limit(free_bytes);
        });
        node.check();
        node.swaps("model") - before + node.swaps("other")
    };
    let turns = format!("{CALM} --busy-turn 0s");
    let (lean, whole) = (swaps(&turns), swaps(&format!("{turns} --lean false")));
    // On a machine that others load, too, a program may seem to think for long now and then, and comes whole.
    assert!(2 * lean <= whole, "{lean} swaps in {ROUNDS} rounds, and {whole} with whole turns");
}

#[test]
fn several_small_functions_and_a_large_one_are_busy_and_soon_nobody_leaves() {
    const ANSWERS: u32 = 15;
    let node = Node::start(CALM);
    let mut model = Model::start(&node.server, "model");
    let names = ["a", "b", "c", "d"];
    let mut others = names.map(|name| Other::start_with(&node.server, name, 6 * MIB));
    // Nobody is busy any more, so it comes whole.
    std::thread::sleep(Duration::from_millis(2500));
    model.infer();
    assert_eq!(node.server.listed("model").resident_bytes, (WEIGHTS + 1) * 2 * MIB);
    let is_over = AtomicBool::new(false);
    let before = node.swaps("model");
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        for other in &mut others {
            scope.spawn(|| other.be_busy(&is_over));
        }
        (0..ANSWERS).for_each(|_| model.infer());
    });
    let swaps = node.swaps("model") - before + names.map(|name| node.swaps(name)).iter().sum::<u64>();
    assert!(
        swaps <= 4 * u64::from(ANSWERS),
        "{swaps} swaps for {ANSWERS} answers, with whole turns five for each"
    );
    node.check();
}

#[test]
fn who_asks_now_and_then_comes_whole() {
    let node = Node::start(CALM);
    let mut model = Model::start(&node.server, "model");
    let mut other = Other::start(&node.server, "other");
    let came = || node.server.times_said("swapped in client=1 ");
    let before = came();
    rounds(3, &mut other, || {
        std::thread::sleep(Duration::from_millis(800));
        model.infer();
    });
    assert_eq!(came() - before, 3);
    node.check();
}

#[test]
fn both_have_their_kernels_on_the_gpu_at_the_same_time() {
    let node = Node::start(CALM);
    let mut model = Model::start(&node.server, "model");
    let mut other = Other::start(&node.server, "other");
    until_lean(&node, &mut model, &mut other);
    other.client.spin();
    model.infer();
    assert_eq!(node.server.listed("other").state, "active");
    assert_eq!(node.server.listed("other").resident_bytes, OTHERS);
    other.client.stop_spinning();
    other.client.settle().unwrap();
    node.check();
}

#[test]
fn what_is_written_into_memory_that_passed_stays_written() {
    let node = Node::start(CALM);
    let mut model = Model::start(&node.server, "model");
    let mut other = Other::start(&node.server, "other");
    until_lean(&node, &mut model, &mut other);
    let mut round = 0;
    rounds(12, &mut other, || {
        model.infer();
        // By a kernel, a copy and a fill.
        let weight = (7 * round) % WEIGHTS as usize;
        model.post(MARK, weight);
        model.expect_more_of(weight, 1);
        model.write((weight + 3) % WEIGHTS as usize, 100 + round as u32);
        model.fill((weight + 5) % WEIGHTS as usize, round as u8);
        round += 1;
    });
    model.infer();
    node.server.unload("model");
    model.infer();
    node.check();
}

#[test]
fn a_pointer_that_is_written_meanwhile_leads_to_what_is_there() {
    let node = Node::start(CALM);
    let mut model = Model::start(&node.server, "model");
    let mut other = Other::start(&node.server, "other");
    until_lean(&node, &mut model, &mut other);
    let mut round = 0;
    rounds(8, &mut other, || {
        let weight = (7 * round) % WEIGHTS as usize;
        let table = model.out + MIB;
        model.client.upload(table, &model.weights[weight].to_le_bytes());
        (0..WEIGHTS as usize).for_each(|weight| model.post(GATHER, weight));
        model.expect_more(model.sum());
        model.client.add_through(table, 1, 0);
        model.changed(weight, 3);
        round += 1;
    });
    model.infer();
    node.check();
}

#[test]
fn a_kernel_whose_pointers_are_hidden_has_all_of_the_memory() {
    let node = Node::start(CALM);
    let mut model = Model::start(&node.server, "model");
    let mut other = Other::start(&node.server, "other");
    let table = model.client.host.address + 4 * MIB;
    model.client.ask(HostLock { address: table, bytes: 4096 }).unwrap();
    until_lean(&node, &mut model, &mut other);
    model.client.write_host(4 * MIB, &model.weights[11].to_le_bytes());
    let mut use_what_is_hidden = || {
        model.client.add_through(table, 1, 0);
        model.changed(11, 3);
        model.infer();
    };
    rounds_until("it is lean when it needs everything", &mut other, || {
        use_what_is_hidden();
        node.server.said("why=Everything")
    });
    let turns = node.lean_turns();
    rounds(3, &mut other, use_what_is_hidden);
    assert_eq!(node.lean_turns(), turns, "it is not tried again at once");
    node.check();
}

#[test]
fn what_is_new_has_room_though_all_of_the_memory_leaves_for_it() {
    let node = Node::start(CALM);
    let mut model = Model::start(&node.server, "model");
    let mut other = Other::start(&node.server, "other");
    rounds_until("it is lean when it needs more", &mut other, || {
        model.infer();
        let more = model.client.allocate(64 * MIB, 4 * MIB).unwrap();
        model.client.upload(more, &[7; 8]);
        model.infer();
        assert_eq!(model.client.words(more, 2), [0x0707_0707; 2]);
        model.client.post(MemoryFree { address: more }, &[]);
        node.server.said("why=New")
    });
    rounds(3, &mut other, || model.infer());
    node.check();
}

#[test]
fn memory_that_passes_can_be_freed() {
    let node = Node::start(CALM);
    let mut model = Model::start(&node.server, "model");
    let free_bytes = node.free_bytes();
    let mut other = Other::start(&node.server, "other");
    until_lean(&node, &mut model, &mut other);
    let mut left = WEIGHTS as usize;
    rounds(8, &mut other, || {
        left -= 1;
        model.free_last();
        model.infer();
    });
    eventually("what is left has room", || node.server.listed("model").allocated_bytes < 30 * MIB);
    node.check();
    node.check_limit(free_bytes);
}

#[test]
fn it_is_unloaded_and_moved_in_the_middle() {
    let node = Node::start_with(2, "", "");
    let mut model = Model::start(&node.server, "model");
    let mut other = Other::start(&node.server, "other");
    let load = |name: &str, gpu| {
        let request = LoadFunctionRequest { name: name.to_owned(), gpu: Some(gpu) };
        // Who is active is not moved, or not loaded.
        let _ = node.server.admin(async |mut admin| admin.load_function(request).await);
    };
    let unload = |name: &str| {
        let request = UnloadFunctionRequest { name: name.to_owned() };
        let _ = node.server.admin(async |mut admin| admin.unload_function(request).await);
    };
    load("model", 0);
    load("other", 0);
    std::thread::scope(|scope| {
        let elsewhere = scope.spawn(|| {
            for round in 0..6 {
                std::thread::sleep(std::time::Duration::from_millis(150));
                unload("model");
                load("model", round % 2);
                load("other", 0);
            }
        });
        while !elsewhere.is_finished() {
            rounds(1, &mut other, || model.infer());
        }
    });
    rounds(3, &mut other, || model.infer());
    node.check();
}

#[test]
fn the_memory_of_one_that_ends_in_the_middle_is_others() {
    let node = Node::start(CALM);
    drop(Model::start(&node.server, "before"));
    eventually("it is gone", || node.server.clients().is_empty());
    let free_bytes = node.free_bytes();
    let mut other = Other::start(&node.server, "other");
    for name in ["model", "next"] {
        let mut model = Model::start(&node.server, name);
        until_lean(&node, &mut model, &mut other);
        (0..WEIGHTS as usize).for_each(|weight| model.post(GATHER, weight));
        drop(model);
        eventually("it is gone", || node.server.clients().len() == 1);
        other.infer();
        node.check_limit(free_bytes);
    }
    node.check();
}

#[test]
fn who_is_lean_when_the_worker_dies_goes_on_or_is_told() {
    let node = Node::start("");
    let mut model = Model::start(&node.server, "model");
    let mut other = Other::start(&node.server, "other");
    until_lean(&node, &mut model, &mut other);
    (0..WEIGHTS as usize).for_each(|weight| model.post(GATHER, weight));
    signal(node.server.gpus()[0].worker_pid, Signal::KILL);
    eventually("it is dead", || node.server.gpus()[0].worker_restarts > 0);
    if model.client.settle().is_ok() {
        model.expect_more(model.sum());
        model.infer();
    } else {
        assert!(model.client.channel.sticky_error().is_some());
        let mut next = Model::start(&node.server, "next");
        next.infer();
    }
    node.check();
}

#[test]
fn a_refusal_of_the_driver_in_the_middle_ends_it_and_nothing_else() {
    // The model has 21 segments; they have come a few times by then, and many of the next calls are for those that pass.
    for at in [150, 170, 190] {
        let node = Node::start_with(1, CALM, &format!("call:cuMemMap@{at}:fail=1"));
        let mut model = Model::start(&node.server, "model");
        let mut other = Other::start(&node.server, "other");
        rounds(12, &mut other, || model.infer());
        assert!(node.lean_turns() > 0);
        assert!(node.server.said("why=Refused"), "{at}");
        node.check();
    }
}
