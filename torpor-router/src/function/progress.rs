//! Whether a function can be started at all, and how far that is.

use crate::error::Refusal;
use crate::function::Function;
use crate::loading::{Loading, LoadingState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use torpor_gpuserver::server::size::ByteSize;

impl Function {
    /// Hears what the largest GPU has for functions. One that may use more would be started, take all that others have there,
    /// and fail: it is not started, and those who ask are told.
    pub fn must_fit(self: &Arc<Self>, has: ByteSize) {
        let too_large = self.deployment.memory_limit.filter(|&wants| wants > has).map(|wants| (wants, has));
        let mut state = self.lock();
        if too_large == state.too_large {
            return;
        }
        state.too_large = too_large;
        if let Some((wants, has)) = too_large {
            let refusal = Refusal::NeverFits { wants, has };
            tracing::warn!(function = &*self.name, "not served: {refusal}");
            self.logs.push(format!("torpor: {refusal}"));
            while let Some(request) = state.waiting.pop(Instant::now()) {
                // A client that has left needs no answer.
                let _ = request.send(Err(refusal.clone()));
            }
            for member in &state.instances {
                member.stop.send_replace(true);
            }
        }
    }

    /// How far its processes are.
    #[must_use]
    pub fn loading(&self) -> Loading {
        let (bytes, of_bytes) = self.memory.get();
        let state = self.lock();
        let alive = || state.instances.iter().filter(|member| !*member.stop.borrow());
        let since = alive().map(|member| member.idle_since.elapsed()).max();
        let (state_now, starting) = match since {
            None => (LoadingState::Stopped, Duration::ZERO),
            Some(_) if alive().any(|member| member.address.is_some()) => {
                (LoadingState::Ready, Duration::ZERO)
            }
            Some(since) => (LoadingState::Starting, since),
        };
        let starting_ms = u64::try_from(starting.as_millis()).unwrap_or(u64::MAX);
        Loading { state: state_now, bytes, of_bytes, starting_ms, waiting: state.waiting.len() }
    }
}
