//! `bar` and `barrier`: where the threads of a block meet.

use super::decode::{Decoder, Opcode};
use super::error::PtxError;
use super::instruction::{BarrierKind, Operation};
use super::launch::Context;
use super::program::ALWAYS;
use super::registers::{Class, Lane};
use super::warp::{State, Warp};

/// Barriers of a block.
const BARRIERS: u32 = 16;

/// Lets go what waits at a complete barrier. Whether there was any.
pub(super) fn release(warps: &mut [Warp], context: &Context<'_>) -> bool {
    let mut released = false;
    for id in 0..BARRIERS {
        let (mut arrived, mut needed, mut waiting) = (0, 0, false);
        let mut complete = true;
        for warp in warps.iter() {
            let mut here = 0;
            for group in &warp.groups {
                if let State::Barrier { id: at, threads } = group.state
                    && at == id
                {
                    here |= group.mask;
                    needed = needed.max(threads);
                    waiting = true;
                }
            }
            // Threads of a warp count together, and threads that have left count as arrived.
            arrived += if here != 0 { 32 } else { 0 };
            complete &= here == warp.alive;
        }
        arrived += warps.iter().map(|warp| warp.arrived[id as usize]).sum::<u32>();
        if !waiting || if needed == 0 { !complete } else { arrived < needed } {
            continue;
        }
        reduce(warps, context, id);
        for warp in warps.iter_mut() {
            warp.arrived[id as usize] = 0;
            for group in &mut warp.groups {
                if matches!(group.state, State::Barrier { id: at, .. } if at == id) {
                    group.state = State::Ready;
                    group.pc += 1;
                }
            }
        }
        released = true;
    }
    released
}

/// Gives every thread at a barrier the result of its `bar.red`.
fn reduce(warps: &mut [Warp], context: &Context<'_>, id: u32) {
    let at_barrier = |warp: &Warp| -> Vec<(u32, u32)> {
        let here = warp
            .groups
            .iter()
            .filter(|group| matches!(group.state, State::Barrier { id: at, .. } if at == id));
        here.map(|group| (group.pc, group.mask)).collect()
    };
    let (mut count, mut all, mut any) = (0, true, false);
    for warp in warps.iter() {
        for (pc, mask) in at_barrier(warp) {
            let instruction = &context.program.code[pc as usize];
            // `value` holds all ones if the predicate is negated.
            let values =
                (warp.registers.predicates[instruction.c as usize] ^ instruction.value as u32) & mask;
            count += values.count_ones();
            all &= values == mask;
            any |= values != 0;
        }
    }
    for warp in warps.iter_mut() {
        for (pc, mask) in at_barrier(warp) {
            let instruction = &context.program.code[pc as usize];
            let splat = |value: bool| if value { u32::MAX } else { 0 };
            match instruction.operation {
                Operation::Barrier(BarrierKind::Count) => {
                    u32::write(&mut warp.registers, instruction.d, mask, &[count; 32]);
                }
                Operation::Barrier(BarrierKind::All) => {
                    warp.registers.set_predicate(instruction.d, mask, splat(all));
                }
                Operation::Barrier(BarrierKind::Any) => {
                    warp.registers.set_predicate(instruction.d, mask, splat(any));
                }
                _ => {}
            }
        }
    }
}

/// `bar{.cta}.sync|arrive|red`, `barrier{.cta}...` and `bar.warp.sync`.
pub(super) fn decode<'a>(decoder: &mut Decoder<'a>, opcode: &mut Opcode<'a>) -> Result<(), PtxError> {
    if opcode.take("warp") {
        opcode.require("sync")?;
        let e = decoder.source(opcode, 0, Class::B32)?;
        let mut instruction = decoder.instruction(Operation::WarpBarrier);
        instruction.e = e;
        decoder.emit(instruction);
        return opcode.finish();
    }
    opcode.take("cta");
    let (kind, mut at) = if opcode.take("sync") {
        (BarrierKind::Sync, 0)
    } else if opcode.take("arrive") {
        (BarrierKind::Arrive, 0)
    } else {
        opcode.require("red")?;
        let kind = match opcode.take_any(&["popc", "and", "or"]) {
            Some("popc") => BarrierKind::Count,
            Some("and") => BarrierKind::All,
            Some(_) => BarrierKind::Any,
            None => return Err(opcode.unsupported()),
        };
        (kind, 1)
    };
    opcode.take("aligned");
    opcode.take_any(&["pred", "u32"]);
    let mut instruction = decoder.instruction(Operation::Barrier(kind));
    instruction.c = ALWAYS;
    let mut last = opcode.operands.len();
    if at == 1 {
        let class = if kind == BarrierKind::Count { Class::B32 } else { Class::Predicate };
        instruction.d = decoder.destination(opcode, 0, class)?;
        last = last.saturating_sub(1);
        let (predicate, negated) = decoder.predicate(opcode, last)?;
        (instruction.c, instruction.value) = (predicate, if negated { -1 } else { 0 });
    }
    instruction.a = decoder.source(opcode, at, Class::B32)?;
    at += 1;
    instruction.b =
        if at < last { decoder.source(opcode, at, Class::B32)? } else { decoder.zero(Class::B32) };
    decoder.emit(instruction);
    opcode.finish()
}
