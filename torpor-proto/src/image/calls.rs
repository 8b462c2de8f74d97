//! Which of the driver's own functions the kernels of an image call.

use memchr::memmem;

/// The functions of the driver that an image refers to, so that its kernels may call them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DriverCalls {
    /// `vprintf`: they may print.
    pub prints: bool,
    /// `__assertfail`: they may fail an assertion.
    pub asserts: bool,
}

impl DriverCalls {
    /// Of a cubin, which refers to them by symbols.
    #[must_use]
    pub fn of_cubin(cubin: &[u8]) -> Self {
        let has = |name: &[u8]| memmem::find(cubin, name).is_some();
        Self { prints: has(b"\0vprintf\0"), asserts: has(b"\0__assertfail\0") }
    }

    /// Those of either of two pieces of code.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { prints: self.prints || other.prints, asserts: self.asserts || other.asserts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_symbols() {
        let cubin = DriverCalls::of_cubin;
        assert_eq!(cubin(b"\x7fELF\0.text.speak\0vprintf\0"), DriverCalls { prints: true, asserts: false });
        assert_eq!(cubin(b"\x7fELF\0my_vprintf\0vprintf_of\0"), DriverCalls::default(), "other names");
        let asserts = DriverCalls { prints: false, asserts: true };
        assert_eq!(cubin(b"\x7fELF\0__assertfail\0"), asserts);
        assert_eq!(asserts.and(DriverCalls::default()), asserts);
    }
}
