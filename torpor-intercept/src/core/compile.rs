//! Code that the node makes: from a text, or from what a linker is given. A program hears of errors in it when it loads a module, with what
//! the compiler says of them, and tries something else then.

use super::{Client, CudaResult, Image, client};
use torpor_proto::command::{ImageErrors, ImageKernels};
use torpor_proto::image::bundle::{Bundle, Choice, Input, InputKind};
use torpor_proto::image::{Image as Bytes, ImageKind, Refusal, fatbin, measure};

/// Whether there is no code for a GPU in an image yet.
pub(super) fn is_source(image: &Bytes<'_>) -> bool {
    match image.kind {
        ImageKind::Ptx | ImageKind::Bundle => true,
        ImageKind::Elf => false,
        ImageKind::Container => fatbin::entries(image.bytes).is_ok_and(|mut entries| {
            entries.all(|entry| entry.is_ok_and(|entry| entry.kind == fatbin::EntryKind::PTX))
        }),
    }
}

impl Image {
    /// As [`Self::load`], made as a program chooses. Only a text is: other code is made already.
    ///
    /// # Errors
    /// As that.
    ///
    /// # Safety
    /// As that.
    pub unsafe fn load_chosen(
        pointer: *const u8,
        is_preserved: bool,
        choices: &[Choice],
    ) -> CudaResult<&'static Self> {
        if !choices.is_empty() && !pointer.is_null() {
            // SAFETY: the caller's promise.
            let text = unsafe { measure(pointer) }.ok().filter(|image| image.kind == ImageKind::Ptx);
            if let Some(Bytes { bytes, .. }) = text {
                let inputs = vec![Input { kind: InputKind::Ptx, bytes }];
                let bundle = Bundle { choices: choices.to_vec(), inputs }.to_bytes();
                // SAFETY: a bundle is complete in itself, and stays during the call.
                return unsafe { Self::load(bundle.as_ptr(), false) };
            }
        }
        // SAFETY: the caller's promise.
        unsafe { Self::load(pointer, is_preserved) }
    }

    /// Has the code made, if it is not yet. The image is unloaded if that fails. Of a module the driver says so when it is loaded; of a library
    /// when a kernel is asked for.
    ///
    /// # Errors
    /// The compiler's: `INVALID_PTX` and its like, with what it says.
    pub fn compile(&'static self) -> Result<(), Refusal> {
        if !self.lock().is_source {
            return Ok(());
        }
        let client = client()?;
        let Err(error) = client.call(&ImageKernels { image: self.number, first: 0 }, &[]) else {
            return Ok(());
        };
        let said = self.errors(client).unwrap_or_default();
        self.unload()?;
        Err(Refusal { error, said })
    }

    /// What the compiler said of errors in it.
    fn errors(&self, client: &'static Client) -> CudaResult<Vec<u8>> {
        let mut said = Vec::new();
        loop {
            let first = said.len() as u32;
            let answer = client.call(&ImageErrors { image: self.number, first }, &[])?;
            said.extend_from_slice(&answer.tail);
            if answer.tail.is_empty() || said.len() as u64 >= answer.reply.total {
                return Ok(said);
            }
        }
    }
}
