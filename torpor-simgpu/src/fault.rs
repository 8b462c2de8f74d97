//! Faults on demand: a small language, and the counters that say when a rule applies.
//!
//! ```text
//! faults   = rule { ";" rule }
//! rule     = "call"   [":" NAME]   ["@" N] ":" action      the N-th driver call (of that name)
//!          | "copy"                ["@" N] ":" action      the N-th copy
//!          | "launch" [":" KERNEL] ["@" N] ":" action      the N-th launch (of that kernel)
//!          | "device" ":" ORDINAL ":" "lost" ["@" N]       from the N-th driver call on
//! action   = "fail" | "fail=" CODE | "out-of-memory" | "hang" | "abort" | "kill" | a word of `STICKY`
//!          | "jam"                                         of calls alone
//! ```
//! N counts from 1; without it a rule applies every time. Graph launches count as the copies and launches they consist of.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::CudaError;
use crate::lock;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A call returns this error and does nothing, and it does not stick. A copy or launch fails with it when the
    /// device gets to it; as the call that issued it has returned, it sticks.
    Fail(CudaError),
    /// The operation fails when the device gets to it, and the error sticks to the process.
    Stick(CudaError),
    /// The operation never ends.
    Hang,
    /// The call first waits for all work of its device, and everybody else's calls wait for it meanwhile.
    Jam,
    /// The process aborts (SIGABRT).
    Abort,
    /// The process is killed (SIGKILL).
    Kill,
}

/// What kernels do wrong, by word, and hardware's errors for it: the context is lost.
const STICKY: [(&str, CudaError); 9] = [
    ("ecc", CudaError::ECC_UNCORRECTABLE),
    ("illegal-address", CudaError::ILLEGAL_ADDRESS),
    ("assert", CudaError::ASSERT),
    ("stack-overflow", CudaError::HARDWARE_STACK_ERROR),
    ("illegal-instruction", CudaError::ILLEGAL_INSTRUCTION),
    ("misaligned-address", CudaError::MISALIGNED_ADDRESS),
    ("invalid-address-space", CudaError::INVALID_ADDRESS_SPACE),
    ("invalid-pc", CudaError::INVALID_PC),
    ("launch-failed", CudaError::LAUNCH_FAILED),
];

/// What a rule applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Call(Option<String>),
    Copy,
    Launch(Option<String>),
}

#[derive(Debug)]
struct Rule {
    target: Target,
    at: Option<u64>,
    action: Action,
    seen: AtomicU64,
}

/// The rules of a machine.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Vec<Rule>,
    lost: Vec<(usize, u64)>,
    calls: AtomicU64,
    applied: Mutex<Vec<String>>,
}

/// Why a rule was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{rule}`: {reason}; the language is described in docs/simulated-gpu.md")]
pub struct FaultError {
    rule: String,
    reason: &'static str,
}

impl Faults {
    /// The rules that `text` consists of; none if it is blank.
    pub fn parse(text: &str) -> Result<Self, FaultError> {
        let mut faults = Self::default();
        for rule in text.split(';').map(str::trim).filter(|rule| !rule.is_empty()) {
            faults.add(rule).map_err(|reason| FaultError { rule: rule.to_owned(), reason })?;
        }
        Ok(faults)
    }

    fn add(&mut self, rule: &str) -> Result<(), &'static str> {
        let (selector, action) = rule.rsplit_once(':').ok_or("there is no action")?;
        let (action, selector) = (action.trim(), selector.trim());
        if let Some(ordinal) = selector.strip_prefix("device:") {
            let (what, at) = at(action)?;
            if what != "lost" {
                return Err("a device can only be `lost`");
            }
            let ordinal = ordinal.trim().parse().map_err(|_| "the device is no number")?;
            self.lost.push((ordinal, at.unwrap_or(1)));
            return Ok(());
        }
        let (selector, at) = at(selector)?;
        let (kind, name) = match selector.split_once(':') {
            Some((kind, name)) => (kind.trim(), Some(name.trim().to_owned()).filter(|name| !name.is_empty())),
            None => (selector, None),
        };
        let action = parse_action(action).ok_or("there is no such action")?;
        if action == Action::Jam && kind != "call" {
            return Err("only a call can `jam`");
        }
        let target = match kind {
            "call" => Target::Call(name),
            "copy" if name.is_none() => Target::Copy,
            "launch" => Target::Launch(name),
            _ => return Err("a rule is about a call, a copy, a launch or a device"),
        };
        self.rules.push(Rule { target, at, action, seen: AtomicU64::new(0) });
        Ok(())
    }

    fn next(&self, applies: impl Fn(&Target) -> bool, what: impl Fn() -> String) -> Option<Action> {
        let mut action = None;
        for rule in self.rules.iter().filter(|rule| applies(&rule.target)) {
            let seen = rule.seen.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            if action.is_none() && rule.at.is_none_or(|at| at == seen) {
                lock(&self.applied).push(format!(
                    "fault on demand: {} number {seen}: {:?}",
                    what(),
                    rule.action
                ));
                action = Some(rule.action);
            }
        }
        action
    }

    /// Counts a driver call.
    pub fn on_call(&self, name: &str) -> Option<Action> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.next(
            |target| matches!(target, Target::Call(wanted) if wanted.as_deref().is_none_or(|wanted| wanted == name)),
            || format!("call of {name}"),
        )
    }

    /// Counts a copy.
    pub fn on_copy(&self) -> Option<Action> {
        self.next(|target| *target == Target::Copy, || "copy".to_owned())
    }

    /// Counts a launch of a kernel.
    pub fn on_launch(&self, kernel: &str) -> Option<Action> {
        self.next(
            |target| matches!(target, Target::Launch(wanted) if wanted.as_deref().is_none_or(|wanted| wanted == kernel)),
            || format!("launch of {kernel}"),
        )
    }

    /// Whether a device has fallen off the bus by now.
    pub fn is_lost(&self, device: usize) -> bool {
        let calls = self.calls.load(Ordering::Relaxed);
        self.lost.iter().any(|&(ordinal, at)| ordinal == device && calls >= at)
    }

    /// What was applied since the last question, for the log.
    pub fn take_applied(&self) -> Vec<String> {
        if self.rules.is_empty() { Vec::new() } else { std::mem::take(&mut *lock(&self.applied)) }
    }
}

fn at(text: &str) -> Result<(&str, Option<u64>), &'static str> {
    match text.rsplit_once('@') {
        None => Ok((text.trim(), None)),
        Some((text, number)) => match number.trim().parse() {
            Ok(number) if number > 0 => Ok((text.trim(), Some(number))),
            _ => Err("behind `@` stands a number from 1"),
        },
    }
}

fn parse_action(text: &str) -> Option<Action> {
    if let Some(code) = text.strip_prefix("fail=") {
        return code.trim().parse().ok().filter(|&code| code != 0).map(|code| Action::Fail(CudaError(code)));
    }
    Some(match text {
        "fail" => Action::Fail(CudaError::UNKNOWN),
        "out-of-memory" => Action::Fail(CudaError::OUT_OF_MEMORY),
        "hang" => Action::Hang,
        "jam" => Action::Jam,
        "abort" => Action::Abort,
        "kill" => Action::Kill,
        word => {
            let (_, error) = STICKY.iter().find(|(known, _)| *known == word)?;
            Action::Stick(*error)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rules_apply_when_they_say() {
        let text =
            "copy@2:fail; launch:saxpy:illegal-address; call:cuMemCreate@1:out-of-memory; device:1:lost@3";
        let faults = Faults::parse(text).expect("valid");
        assert_eq!(faults.on_copy(), None);
        assert_eq!(faults.on_copy(), Some(Action::Fail(CudaError::UNKNOWN)));
        assert_eq!(faults.on_copy(), None);
        assert_eq!(faults.on_launch("gemm"), None);
        for _ in 0..2 {
            assert_eq!(faults.on_launch("saxpy"), Some(Action::Stick(CudaError::ILLEGAL_ADDRESS)));
        }
        assert_eq!(faults.on_call("cuInit"), None);
        assert_eq!(faults.on_call("cuMemCreate"), Some(Action::Fail(CudaError::OUT_OF_MEMORY)));
        assert!(!faults.is_lost(1));
        assert_eq!(faults.on_call("cuMemCreate"), None);
        assert!(faults.is_lost(1) && !faults.is_lost(0));
        assert_eq!(faults.take_applied().len(), 4);
    }

    #[test]
    fn the_issue_s_examples_are_understood() {
        for text in
            ["call@100:abort", "launch:x:hang", "device:0:lost@50", "copy@12:fail", "copy:fail=719", " ; "]
        {
            assert!(Faults::parse(text).is_ok(), "{text}");
        }
        for text in [
            "copy",
            "copy@0:fail",
            "copy@x:fail",
            "copy:a:fail",
            "device:0:gone",
            "device:x:lost",
            "moon:hang",
            "copy:fail=0",
        ] {
            assert!(Faults::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[a-z:@;=0-9 -]{0,60}") {
            let _ = Faults::parse(&text);
        }
    }
}
