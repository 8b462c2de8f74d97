//! Executes a warp: 32 lanes that share instructions while they agree on the next one.
//!
//! Lanes with the same program counter and call stack form a *group*. Only one group runs at a time; the deepest
//! call goes first, then the lowest program counter, so that the lanes of an `if` or a loop meet again behind it.
//! A group that loops without end lets the others go on after a while, so that a lane may wait for another.

use super::instruction::{BarrierKind, Failure, Operation, active};
use super::launch::Context;
use super::program::Program;
use super::registers::Registers;

/// Backward jumps until another group, and another warp, has its turn.
const JUMPS_PER_TURN: u32 = 4096;

/// Why a group does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// Waits for other lanes of its warp at the instruction where it is.
    Together,
    /// Waits at a barrier of the block for so many threads; 0 means all.
    Barrier {
        id: u32,
        threads: u32,
    },
}

/// Lanes that share a program counter and a call stack.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) pc: u32,
    pub(super) mask: u32,
    pub(super) state: State,
    /// Where to go on after returning from each function.
    stack: Vec<u32>,
    /// When it last had to give way.
    paused: u64,
    /// Backward jumps that it may still make until it must give way.
    jumps: u32,
}

/// A warp's state.
#[derive(Debug)]
pub(super) struct Warp {
    pub(super) registers: Registers,
    /// Local memory: `local_bytes` for each lane, one lane after the other.
    pub(super) local: Vec<u8>,
    /// Lanes that have not left the kernel.
    pub(super) alive: u32,
    /// The lanes that execute the current instruction, guards not applied.
    pub(super) converged: u32,
    /// Groups that do not run at the moment.
    pub(super) groups: Vec<Group>,
    /// Threads that arrived at each barrier without waiting there.
    pub(super) arrived: [u32; 16],
    pauses: u64,
}

/// How a warp came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It can go on, and lets others go first.
    Yielded,
    /// Every lane waits.
    Waiting,
    /// Every lane has left the kernel.
    Finished,
}

/// A failure and where it happened.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) pc: u32,
    pub(super) failure: Box<Failure>,
}

/// What becomes of the group that ran.
enum Next {
    /// The groups have changed: choose again.
    Choose,
    Yield,
}

impl Warp {
    pub(super) fn new(program: &Program) -> Self {
        Self {
            registers: Registers::new(program.registers),
            local: vec![0; program.local_bytes * super::registers::LANES],
            alive: 0,
            converged: 0,
            groups: Vec::new(),
            arrived: [0; 16],
            pauses: 0,
        }
    }

    /// Puts the lanes of `mask` at the start of the kernel.
    pub(super) fn start(&mut self, mask: u32) {
        self.alive = mask;
        self.arrived = [0; 16];
        self.groups.clear();
        self.groups.push(Group {
            pc: 0,
            mask,
            state: State::Ready,
            stack: Vec::new(),
            paused: 0,
            jumps: JUMPS_PER_TURN,
        });
    }

    /// Runs until every lane waits or is gone, or others should have a turn.
    pub(super) fn run(&mut self, context: &mut Context<'_>) -> Result<Outcome, Stop> {
        loop {
            let Some(mut group) = self.choose() else {
                if self.groups.is_empty() {
                    return Ok(Outcome::Finished);
                }
                if self.release_warp_barrier(context.program) {
                    continue;
                }
                return Ok(Outcome::Waiting);
            };
            let limit = self.next_meeting(&group);
            match self.run_group(context, &mut group, limit) {
                Ok(next) => {
                    if group.mask != 0 {
                        self.groups.push(group);
                    }
                    if matches!(next, Next::Yield) {
                        return Ok(Outcome::Yielded);
                    }
                }
                Err(failure) => return Err(Stop { pc: group.pc, failure }),
            }
        }
    }

    /// Takes the group that goes next out of the list, together with those that are at the same place.
    fn choose(&mut self) -> Option<Group> {
        let ready = self.groups.iter().enumerate().filter(|(_, group)| group.state == State::Ready);
        let key = |group: &Group| (group.paused, usize::MAX - group.stack.len(), group.pc);
        let (index, _) = ready.min_by_key(|(_, group)| key(group))?;
        let mut chosen = self.groups.swap_remove(index);
        self.groups.retain(|group| {
            let same = group.pc == chosen.pc && group.stack == chosen.stack;
            if same {
                chosen.mask |= group.mask;
                chosen.jumps = chosen.jumps.max(group.jumps);
            }
            !same
        });
        if self.groups.iter().all(|group| group.state != State::Ready) {
            chosen.paused = 0;
        }
        Some(chosen)
    }

    /// The lowest program counter ahead of a group at which others are: there they may meet.
    fn next_meeting(&self, group: &Group) -> u32 {
        let others = self.groups.iter().filter(|other| other.stack.len() == group.stack.len());
        others.map(|other| other.pc).filter(|&pc| pc > group.pc).min().unwrap_or(u32::MAX)
    }

    /// Whether a group that has jumped backward should let others catch up, or has met them.
    fn others_first(&self, group: &Group) -> bool {
        self.groups.iter().any(|other| {
            other.stack.len() == group.stack.len()
                && (other.pc == group.pc || (other.pc < group.pc && other.state == State::Ready))
        })
    }

    /// Runs one group until it ends, waits, splits, may meet another, or its turn is over.
    fn run_group(
        &mut self,
        context: &mut Context<'_>,
        group: &mut Group,
        mut limit: u32,
    ) -> Result<Next, Box<Failure>> {
        let program = context.program;
        let alone = self.groups.is_empty();
        let lanes = u64::from(group.mask.count_ones());
        loop {
            let instruction = &program.code[group.pc as usize];
            let guard = self.registers.predicates[instruction.guard as usize] ^ instruction.guard_invert;
            let active = group.mask & guard;
            context.instructions += if active == group.mask { lanes } else { u64::from(active.count_ones()) };
            match instruction.operation {
                Operation::Run(handler) => {
                    if active != 0 {
                        self.converged = group.mask;
                        // SAFETY: handlers are chosen by `handler!`, which takes only those whose CPU features
                        // this CPU has.
                        unsafe { handler(self, context, instruction, active) }?;
                    }
                    group.pc += 1;
                }
                Operation::Branch => {
                    if active == group.mask {
                        let backward = instruction.target <= group.pc;
                        group.pc = instruction.target;
                        if backward {
                            group.jumps -= 1;
                            if group.jumps == 0 {
                                self.pause(group);
                                return Ok(Next::Yield);
                            }
                            if !alone {
                                if self.others_first(group) {
                                    return Ok(Next::Choose);
                                }
                                limit = self.next_meeting(group);
                            }
                        }
                    } else if active == 0 {
                        group.pc += 1;
                    } else {
                        self.split(group, active, instruction.target);
                        return Ok(Next::Choose);
                    }
                }
                _ if active == 0 => group.pc += 1,
                Operation::Exit | Operation::Return => {
                    if let (Operation::Return, Some(&back)) = (instruction.operation, group.stack.last()) {
                        let mut returning = self.part(group, active);
                        returning.stack.pop();
                        returning.pc = back;
                        self.groups.push(returning);
                    } else {
                        group.mask &= !active;
                        self.alive &= !active;
                        self.wake();
                    }
                    group.pc += 1;
                    return Ok(Next::Choose);
                }
                Operation::Call => {
                    let mut calling = self.part(group, active);
                    calling.stack.push(group.pc + 1);
                    calling.pc = instruction.target;
                    self.groups.push(calling);
                    group.pc += 1;
                    return Ok(Next::Choose);
                }
                Operation::BranchIndexed => {
                    self.branch_indexed(program, group, active);
                    return Ok(Next::Choose);
                }
                Operation::Together(handler) => {
                    let members = self.members(instruction.e, active);
                    if members & self.alive & !active != 0 {
                        let mut waiting = self.part(group, active);
                        waiting.state = State::Together;
                        self.groups.push(waiting);
                        group.pc += 1;
                        return Ok(Next::Choose);
                    }
                    self.converged = group.mask;
                    // SAFETY: as above.
                    unsafe { handler(self, context, instruction, active) }?;
                    group.pc += 1;
                }
                Operation::WarpBarrier => {
                    let members = self.members(instruction.e, active);
                    if members & self.alive & !active != 0 {
                        let mut waiting = self.part(group, active);
                        waiting.state = State::Together;
                        self.groups.push(waiting);
                        group.pc += 1;
                        return Ok(Next::Choose);
                    }
                    group.pc += 1;
                }
                Operation::Barrier(kind) => {
                    let lane = active.trailing_zeros() as usize;
                    let id = self.registers.b32[instruction.a as usize][lane] & 15;
                    let threads = self.registers.b32[instruction.b as usize][lane];
                    if kind == BarrierKind::Arrive {
                        self.arrived[id as usize] += 32;
                        group.pc += 1;
                        continue;
                    }
                    let mut waiting = self.part(group, active);
                    waiting.state = State::Barrier { id, threads };
                    self.groups.push(waiting);
                    group.pc += 1;
                    return Ok(Next::Choose);
                }
                Operation::Trap => {
                    return Err(Box::new(Failure {
                        lane: active.trailing_zeros(),
                        cause: super::instruction::Cause::Trap,
                    }));
                }
                Operation::Yield => {
                    group.pc += 1;
                    self.pause(group);
                    return Ok(Next::Yield);
                }
            }
            if group.pc >= limit {
                return Ok(Next::Choose);
            }
        }
    }

    /// Sends a group behind the others.
    fn pause(&mut self, group: &mut Group) {
        group.jumps = JUMPS_PER_TURN;
        self.pauses += 1;
        group.paused = self.pauses;
    }

    /// Takes some lanes out of a group into one of their own.
    fn part(&mut self, group: &mut Group, lanes: u32) -> Group {
        group.mask &= !lanes;
        Group { mask: lanes, ..group.clone() }
    }

    /// Some lanes jump, the others go on.
    fn split(&mut self, group: &mut Group, lanes: u32, target: u32) {
        let mut jumping = self.part(group, lanes);
        jumping.pc = target;
        self.groups.push(jumping);
        group.pc += 1;
    }

    fn branch_indexed(&mut self, program: &Program, group: &mut Group, lanes: u32) {
        let instruction = &program.code[group.pc as usize];
        let targets = &program.operands[instruction.list as usize..][..instruction.list_length as usize];
        let indices = self.registers.b32[instruction.a as usize];
        for (index, &target) in targets.iter().enumerate() {
            let taking = active(lanes).filter(|&lane| indices[lane] as usize == index);
            let mask = taking.fold(0, |mask, lane| mask | 1 << lane);
            if mask != 0 {
                let mut jumping = self.part(group, mask);
                jumping.pc = target;
                self.groups.push(jumping);
            }
        }
        group.pc += 1;
    }

    /// The member mask in a register, as the first active lane has it.
    fn members(&self, register: u32, active: u32) -> u32 {
        self.registers.b32[register as usize][active.trailing_zeros() as usize]
    }

    /// Lets groups that wait for lanes look again whether those are still there.
    fn wake(&mut self) {
        for group in &mut self.groups {
            if group.state == State::Together {
                group.state = State::Ready;
            }
        }
    }

    /// Lets go lanes that wait at `bar.warp.sync`, maybe at different ones, if all of them are there.
    fn release_warp_barrier(&mut self, program: &Program) -> bool {
        let is_barrier = |group: &Group| {
            group.state == State::Together
                && matches!(program.code[group.pc as usize].operation, Operation::WarpBarrier)
        };
        let waiting =
            self.groups.iter().filter(|group| is_barrier(group)).fold(0, |mask, group| mask | group.mask);
        let mut released = false;
        for index in 0..self.groups.len() {
            let group = &self.groups[index];
            if !is_barrier(group) {
                continue;
            }
            let members = self.members(program.code[group.pc as usize].e, group.mask);
            if members & self.alive & !waiting == 0 {
                self.groups[index].state = State::Ready;
                self.groups[index].pc += 1;
                released = true;
            }
        }
        released
    }
}
