//! Tensor maps, encoded by the driver below.

use super::{Client, CudaResult};
use torpor_proto::command::{Command, TensorMapReply};

impl Client {
    /// `cuTensorMapEncode*`.
    ///
    /// # Errors
    /// What the driver says.
    pub fn tensor_map<C: Command<Reply = TensorMapReply>>(
        &'static self,
        command: &C,
    ) -> CudaResult<TensorMapReply> {
        Ok(self.call(command, &[])?.reply)
    }
}
