//! What the kernels of an image may say.

use std::sync::Arc;
use torpor_proto::image::{AssertionTexts, DriverCalls};

/// What the kernels of an image may say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Speech {
    /// By which functions of the driver.
    pub(crate) calls: DriverCalls,
    /// The texts of its assertions, if it has some.
    pub(crate) assertions: Option<Arc<AssertionTexts>>,
}

impl Speech {
    /// Of a cubin.
    pub(crate) fn of_cubin(cubin: &[u8]) -> Self {
        let calls = DriverCalls::of_cubin(cubin);
        let assertions = calls.asserts.then(|| Arc::new(AssertionTexts::of_cubin(cubin)));
        Self { calls, assertions }
    }
}
