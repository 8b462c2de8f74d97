//! What kernels say: their `printf` comes out of the program's own standard output at a synchronisation, as with CUDA, and a failed
//! assertion out of its standard error with the call that finds it.
//!
//! Both go through the C library's streams, so their order beside what the program itself prints is right.

use super::Client;
use libc::FILE;
use std::sync::atomic::{AtomicBool, Ordering};
use torpor_proto::command::TextTake;
use torpor_proto::error::CudaError;

unsafe extern "C" {
    static stdout: *mut FILE;
    static stderr: *mut FILE;
}

impl Client {
    /// Writes what kernels have printed that are known to have ended.
    #[inline]
    pub(super) fn write_text(&'static self) {
        if self.channel.has_text() {
            self.take_text();
        }
    }

    #[cold]
    fn take_text(&'static self) {
        // Whoever waits for the text gets its error from what it does next.
        while let Ok(answer) = self.call(&TextTake {}, &[])
            && !answer.tail.is_empty()
        {
            // SAFETY: the C library sets its streams up before anything runs, and the program may set them to others.
            write(unsafe { stdout }, &answer.tail);
        }
    }

    /// An error that every call gives from now on. Whoever meets that of a failed assertion first writes what it says.
    #[cold]
    pub(super) fn failed(&self, error: CudaError) -> CudaError {
        static SAID: AtomicBool = AtomicBool::new(false);
        if error == CudaError::ASSERT && !SAID.swap(true, Ordering::Relaxed) {
            // SAFETY: as in `take_text`.
            write(unsafe { stderr }, &self.channel.last_words());
        }
        error
    }
}

/// Writes text, and has it leave the process: it was printed already, so it is not to be lost with the process.
fn write(stream: *mut FILE, text: &[u8]) {
    if stream.is_null() || text.is_empty() {
        return;
    }
    // SAFETY: the stream is one of the C library's, the text is as long as it says. A stream that is closed refuses it, and nobody
    // can be told.
    unsafe {
        libc::fwrite(text.as_ptr().cast(), 1, text.len(), stream);
        libc::fflush(stream);
    }
}
