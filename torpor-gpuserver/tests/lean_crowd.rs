//! A large client with a part of its memory beside small ones that need all there is. By itself: seven busy clients leave the others' tests no CPU.

mod lean_support;
mod served;
mod server_support;
mod worker_support;

use lean_support::{MIB, Model, Node, Other, Over};
use server_support::eventually::eventually;
use std::sync::atomic::AtomicBool;

#[test]
fn a_large_one_comes_with_a_part_where_small_ones_would_have_to_take_turns_for_all_of_it() {
    let node = Node::start("--cover false");
    let mut model = Model::start(&node.server, "model");
    // All that there is, so the model finds nothing that nobody needs.
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut others = names.map(|name| Other::start_with(&node.server, name, 8 * MIB));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _over = Over(&is_over);
        for other in &mut others {
            scope.spawn(|| other.be_busy(&is_over));
        }
        // On a machine that others load, too, programs may seem to think for long a few times.
        eventually("the model is lean", || {
            model.infer();
            node.lean_turns() > 0
        });
    });
    node.check();
}
