//! Words that a stream writes and waits for.

use super::Stream;
use crate::core::graph::Work;
use crate::core::word::{WordOperation, WordStep};
use crate::core::{CudaResult, client};
use torpor_proto::command::WordWrite;

impl Stream {
    /// `cuStreamBatchMemOp`, and of one operation `cuStreamWaitValue32` and its like.
    ///
    /// # Errors
    /// `INVALID_VALUE` for an operation, an address or flags that there are not; `NOT_SUPPORTED` for what the device cannot do; or what
    /// posting gives.
    pub fn do_with_words(&'static self, operations: &[WordOperation]) -> CudaResult<()> {
        let client = client()?;
        let steps = client.word_steps(operations)?;
        if self.is_capturing() {
            let work = Work::Words(operations.into());
            return self.current_capture()?.append_work(self, work).map(drop);
        }
        client.check()?;
        for step in steps {
            match step {
                WordStep::Write(write) => {
                    self.post(client, &WordWrite { stream: self.number, ..write }, &[])?;
                }
                WordStep::Wait(waits) => self.wait_in_order(waits)?,
            }
        }
        Ok(())
    }
}
