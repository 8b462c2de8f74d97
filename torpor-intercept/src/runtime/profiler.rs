//! The profiler's switch. Nobody profiles the client; the server's own tools are elsewhere.

use super::{ready, runtime_functions};

runtime_functions! {
    fn cudaProfilerStart() {
        ready().map(|_| ())
    }

    fn cudaProfilerStop() {
        ready().map(|_| ())
    }
}
