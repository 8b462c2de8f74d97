//! Checks that hardware does not make, chosen with `TORPOR_SIMGPU_CHECKS`.
//!
//! What a check finds goes to the log, once for each kernel or copy and allocation. Where hardware would fault the
//! operation fails too; the others only report.

mod order;
mod shadow;

pub use order::{Clocks, Stamp, Writers, join};
pub use shadow::Shadow;

/// Which checks are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checks {
    /// Reads of device memory that was never written.
    pub uninitialised: bool,
    /// Reads of what a copy or fill writes without waiting for it.
    pub unordered: bool,
    /// Accesses behind the end of what was asked for, inside the same page.
    pub bounds: bool,
    /// Accesses to freed memory: addresses of freed allocations are not handed out again.
    pub freed: bool,
    /// Memory freed or unmapped while a kernel that was given a pointer into it runs or waits to run.
    pub busy: bool,
    /// Streams and events used after they were destroyed.
    pub streams: bool,
}

impl Checks {
    /// The names that [`Checks::parse`] knows.
    pub const NAMES: [&'static str; 6] = ["uninitialised", "unordered", "bounds", "freed", "busy", "streams"];

    /// The checks in a comma-separated list; `all` means all of them. The name that is none on failure.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut checks = Self::default();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "uninitialised" => checks.uninitialised = true,
                "unordered" => checks.unordered = true,
                "bounds" => checks.bounds = true,
                "freed" => checks.freed = true,
                "busy" => checks.busy = true,
                "streams" => checks.streams = true,
                "all" => {
                    let on = true;
                    checks = Self {
                        uninitialised: on,
                        unordered: on,
                        bounds: on,
                        freed: on,
                        busy: on,
                        streams: on,
                    };
                }
                other => return Err(other.to_owned()),
            }
        }
        Ok(checks)
    }

    /// Whether every single access must be looked at.
    pub fn each_access(&self) -> bool {
        self.uninitialised || self.unordered || self.bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_understood() {
        assert_eq!(Checks::parse(""), Ok(Checks::default()));
        let all = Checks::parse("all").expect("known");
        assert_eq!(Checks::parse(&Checks::NAMES.join(", ")), Ok(all));
        assert_eq!(Checks::parse("bounds,luck"), Err("luck".to_owned()));
        assert!(Checks::parse("bounds").expect("known").each_access());
        assert!(!Checks::parse("busy").expect("known").each_access());
    }
}
