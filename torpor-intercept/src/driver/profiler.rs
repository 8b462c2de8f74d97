//! The profiler's switch. Nobody profiles the client; the server's own tools are elsewhere.

use super::cuda_functions;
use crate::core::client;

cuda_functions! {
    fn cuProfilerStart() {
        client().map(|_| ())
    }

    fn cuProfilerStop() {
        client().map(|_| ())
    }
}
