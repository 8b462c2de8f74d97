//! Ranks of one function on one GPU that have no room together (`gpu/memory/joining.rs`). They have the GPU one after the other, as
//! others do. But if the work of one waits for another one's, it never ends, and nobody can tell that from work that takes long: people
//! are told at once, and after a while the call that waits is refused.

use crate::worker::gpu::memory::joining::Crowd;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use crate::worker::session::shortage::Room;
use std::time::{Duration, Instant};
use torpor_proto::error::CudaError;

/// How long the work of a rank may keep another one waiting for which there is no room beside it.
const PATIENCE: Duration = Duration::from_secs(20);

impl Session {
    /// What became of a try to get memory, of which there has been too little since `short`.
    ///
    /// # Errors
    /// Those of the try; as [`Self::look_beside_siblings`].
    pub(crate) fn unless_crowded(
        &self,
        room: Result<Room, Halt>,
        short: Option<Instant>,
    ) -> Result<Room, Halt> {
        if room == Ok(Room::Later) {
            let waited = short.map_or(Duration::ZERO, |since| since.elapsed());
            let memory = &self.shared.memory;
            let looked = self.look_beside_siblings(waited, 0);
            looked.inspect_err(|_| memory.wait_no_longer(self.link.client))?;
        }
        room
    }

    /// A client has waited for so long, for room or for its turn, which is to bring it `new_bytes`.
    ///
    /// # Errors
    /// `CUDA_ERROR_OUT_OF_MEMORY` if that is for a rank that will not give its room up.
    pub(crate) fn look_beside_siblings(&self, waited: Duration, new_bytes: u64) -> Result<(), Halt> {
        if !self.link.gate.is_rank() {
            return Ok(());
        }
        let Some(crowd) = self.shared.memory.crowd(self.link.client, new_bytes) else { return Ok(()) };
        let Crowd { ranks, needed_bytes, room_bytes, turn_lasts, is_news } = crowd;
        let (client, function) = (self.link.client, &*self.link.function);
        if is_news {
            tracing::warn!(
                client,
                function,
                "{ranks} processes of function {function} use different devices of it, and share this GPU, where they need \
                 {needed_bytes} bytes together and have {room_bytes}: they run one after the other, and kernels of one that wait \
                 for another one's never end; let them allocate less, start fewer of them, or give the node more GPUs"
            );
        }
        if waited < PATIENCE || turn_lasts < PATIENCE {
            return Ok(());
        }
        tracing::error!(
            client,
            function,
            "out of memory: another process of function {function} has kept the GPU for {turn_lasts:?}, and there is no room \
             beside it: its kernels seem to wait for this process"
        );
        Err(Halt::Refused(CudaError::OUT_OF_MEMORY))
    }
}
