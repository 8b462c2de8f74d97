//! Which of the driver's own functions the kernels of an image call.

use super::Code;
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
    /// Of code that a driver takes. A cubin refers to them by symbols, PTX by declarations; either has their names.
    #[must_use]
    pub fn of(code: &Code) -> Self {
        match code {
            Code::Cubin(cubin) => Self::of_cubin(cubin),
            Code::Ptx(text) => Self::named(text, [b"vprintf", b"__assertfail"]),
        }
    }

    /// As [`Self::of`].
    #[must_use]
    pub fn of_cubin(cubin: &[u8]) -> Self {
        Self::named(cubin, [b"\0vprintf\0", b"\0__assertfail\0"])
    }

    fn named(bytes: &[u8], [prints, asserts]: [&[u8]; 2]) -> Self {
        let has = |name| memmem::find(bytes, name).is_some();
        Self { prints: has(prints), asserts: has(asserts) }
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
    fn names_are_found_in_symbols_and_in_declarations() {
        let cubin = DriverCalls::of_cubin;
        assert_eq!(cubin(b"\x7fELF\0.text.speak\0vprintf\0"), DriverCalls { prints: true, asserts: false });
        assert_eq!(cubin(b"\x7fELF\0my_vprintf\0vprintf_of\0"), DriverCalls::default(), "other names");
        let ptx = b".extern .func __assertfail (.param .b64 a);\0";
        let asserts = DriverCalls { prints: false, asserts: true };
        assert_eq!(DriverCalls::of(&Code::Ptx(ptx.to_vec())), asserts);
        assert_eq!(asserts.and(DriverCalls::default()), asserts);
    }
}
