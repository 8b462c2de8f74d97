//! Runs the warps of one block by turns on one host thread, and lets them meet at barriers.

use std::sync::atomic::{AtomicBool, Ordering};

use super::barrier;
use super::error::{KernelFault, Position};
use super::instruction::{Assertion, Cause, Failure};
use super::launch::Context;
use super::program::{ALWAYS, Constant};
use super::registers::LANES;
use super::warp::{Outcome, Stop, Warp};

/// The state of a block; one after another it serves all the blocks that a host thread runs.
pub(super) struct Block {
    warps: Vec<Warp>,
    index: [u32; 3],
}

impl Block {
    pub(super) fn new(context: &Context<'_>) -> Self {
        let threads = context.launch.block.iter().product::<u32>();
        let warps = threads.div_ceil(LANES as u32);
        let mut block =
            Self { warps: (0..warps).map(|_| Warp::new(context.program)).collect(), index: [0; 3] };
        block.set_constants(context, |_| true);
        block
    }

    /// Fills the registers that hold constants; `wanted` chooses which.
    fn set_constants(&mut self, context: &Context<'_>, wanted: impl Fn(Constant) -> bool) {
        for &(register, constant) in &context.program.constants {
            if !wanted(constant) {
                continue;
            }
            for (warp_index, warp) in self.warps.iter_mut().enumerate() {
                for lane in 0..LANES {
                    let thread = (warp_index * LANES + lane) as u32;
                    let value = match constant {
                        Constant::Bits(bits) => bits,
                        Constant::Global(index, offset) => {
                            context.globals[index as usize].wrapping_add_signed(offset)
                        }
                        Constant::Special(special) => special.value(
                            context.launch,
                            context.program.static_shared_bytes,
                            self.index,
                            thread,
                        ),
                    };
                    warp.registers.set_lane(register, lane, value);
                }
            }
        }
        for warp in &mut self.warps {
            warp.registers.predicates[ALWAYS as usize] = u32::MAX;
        }
    }

    /// Runs the block with this linear index to its end.
    pub(super) fn run(
        &mut self,
        context: &mut Context<'_>,
        kernel: &str,
        index: u64,
        stop: &AtomicBool,
    ) -> Result<(), KernelFault> {
        let [x, y, _] = context.launch.grid.map(u64::from);
        self.index = [(index % x) as u32, (index / x % y) as u32, (index / x / y) as u32];
        self.set_constants(
            context,
            |constant| matches!(constant, Constant::Special(special) if special.varies_by_block()),
        );
        let mut threads = context.launch.block.iter().product::<u32>();
        for warp in &mut self.warps {
            warp.start(u32::MAX >> (32 - threads.min(32)));
            threads = threads.saturating_sub(32);
        }
        loop {
            let (mut running, mut finished) = (false, true);
            for warp_index in 0..self.warps.len() {
                if context.launch.cancel.load(Ordering::Relaxed) || stop.load(Ordering::Relaxed) {
                    return Err(KernelFault::Cancelled { kernel: kernel.to_owned() });
                }
                match self.warps[warp_index].run(context) {
                    Ok(Outcome::Yielded) => (running, finished) = (true, false),
                    Ok(Outcome::Waiting) => finished = false,
                    Ok(Outcome::Finished) => {}
                    Err(stop) => return Err(self.fault(context, kernel, warp_index, stop)),
                }
            }
            if finished {
                return Ok(());
            }
            if !barrier::release(&mut self.warps, context) && !running {
                return Err(self.deadlock(context, kernel));
            }
        }
    }

    fn deadlock(&self, context: &Context<'_>, kernel: &str) -> KernelFault {
        let waiting = self
            .warps
            .iter()
            .enumerate()
            .find_map(|(index, warp)| warp.groups.first().map(|group| (index, group)));
        let (warp_index, pc, lane) =
            waiting.map_or((0, 0, 0), |(index, group)| (index, group.pc, group.mask.trailing_zeros()));
        KernelFault::Deadlock {
            kernel: kernel.to_owned(),
            position: self.position(context, warp_index, pc, lane),
        }
    }

    fn position(&self, context: &Context<'_>, warp_index: usize, pc: u32, lane: u32) -> Position {
        let [x, y, _] = context.launch.block;
        let thread = warp_index as u32 * LANES as u32 + lane;
        Position {
            pc,
            line: context.program.code.get(pc as usize).map_or(0, |instruction| instruction.line),
            block: self.index,
            thread: [thread % x, thread / x % y, thread / x / y],
        }
    }

    fn fault(&self, context: &Context<'_>, kernel: &str, warp_index: usize, stop: Stop) -> KernelFault {
        let Failure { lane, cause } = *stop.failure;
        let position = self.position(context, warp_index, stop.pc, lane);
        let kernel = kernel.to_owned();
        match cause {
            Cause::Memory(fault) => KernelFault::Memory { kernel, fault, position },
            Cause::Misaligned { address, bytes } => {
                KernelFault::Misaligned { kernel, address, bytes, position }
            }
            Cause::Trap => KernelFault::Trap { kernel, position },
            Cause::Assertion(assertion) => {
                let Assertion { message, file, line, function } = *assertion;
                let ([x, y, z], [u, v, w]) = (position.block, position.thread);
                let text = format!(
                    "{file}:{line}: {function}: block: [{x},{y},{z}], thread: [{u},{v},{w}] Assertion `{message}` failed."
                );
                KernelFault::Assertion { kernel, text }
            }
        }
    }
}
