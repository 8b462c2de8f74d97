//! What the kernels of an image may say.

use std::sync::Arc;
use torpor_proto::image::{AssertionTexts, Code, DriverCalls};

/// What the kernels of an image may say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Speech {
    /// By which functions of the driver.
    pub(crate) calls: DriverCalls,
    /// The texts of its assertions, if it has some.
    pub(crate) assertions: Option<Arc<AssertionTexts>>,
}

impl Speech {
    /// Of code that the driver takes. The texts of PTX's assertions are known once it is compiled for a client, which it is: an
    /// assertion takes the addresses of its texts.
    pub(crate) fn of(code: &Code) -> Self {
        match code {
            Code::Cubin(cubin) => Self::of_cubin(cubin),
            Code::Ptx(_) => Self { calls: DriverCalls::of(code), assertions: None },
        }
    }

    /// As [`Self::of`].
    pub(crate) fn of_cubin(cubin: &[u8]) -> Self {
        let calls = DriverCalls::of_cubin(cubin);
        let assertions = calls.asserts.then(|| Arc::new(AssertionTexts::of_cubin(cubin)));
        Self { calls, assertions }
    }
}
