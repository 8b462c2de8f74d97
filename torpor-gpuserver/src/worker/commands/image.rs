//! Images: loading them, and what is in them.

use crate::worker::gpu::images::ImageHash;
use crate::worker::objects::pending::Kept;
use crate::worker::objects::variables::Own;
use crate::worker::session::Session;
use std::ffi::CString;
use std::sync::atomic::Ordering;
use torpor_proto::command::{
    ImageCommands, ImageErrors, ImageErrorsReply, ImageGlobal, ImageGlobalReply, ImageKernels,
    ImageKernelsReply, ImageLoad, ImageLoadReply, ImageUnload, ImageUpload, Outcome, Ticket,
};
use torpor_proto::completion::PAYLOAD_BYTES;
use torpor_proto::error::CudaError;

impl ImageCommands for Session {
    fn image_load(
        &mut self,
        command: ImageLoad,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<ImageLoadReply>, CudaError> {
        let hash: ImageHash = bytemuck::cast(command.hash.map(u64::to_le));
        // A client that is never idle has not been told of a new limit.
        self.renew_settings();
        let limit_bytes = self.link.image_limit_bytes.load(Ordering::Relaxed);
        let known = self.know_image(command.image, (hash, command.bytes), limit_bytes)?;
        Ok(Outcome::done(ImageLoadReply { known: known.into() }))
    }

    fn image_upload(&mut self, command: ImageUpload, _: &[u8]) -> Result<(), CudaError> {
        match self.images.uploads.add(&command, &self.space.host)? {
            Some((hash, contents)) => self.shared.images.add(hash, &contents),
            None => Ok(()),
        }
    }

    fn image_unload(&mut self, command: ImageUnload, _: &[u8]) -> Result<(), CudaError> {
        let image = self.images.table.remove(command.image)?;
        self.kernels.forget_image(command.image);
        let instance = match image.own {
            // Its kernels may still run, and nobody else may use it.
            Own::Nothing => image.image.loaded(),
            Own::Placed(placed) => {
                self.drain()?;
                let _silence = if placed.managed.is_some() { self.wait_for_silence()? } else { None };
                self.release_block(placed.block.address)?;
                self.release_managed(placed.managed)?;
                placed.instance
            }
            Own::Fixed { instance, told } => {
                told.iter().for_each(|&address| self.space.remove_global(address));
                Some(instance)
            }
        };
        self.tell_fixed_images();
        if let Some(instance) = instance {
            self.keep(Kept::Image(instance))?;
        }
        Ok(())
    }

    fn image_global(
        &mut self,
        command: ImageGlobal,
        tail: &[u8],
        _: Ticket,
    ) -> Result<Outcome<ImageGlobalReply>, CudaError> {
        let name = str::from_utf8(tail).map_err(|_| CudaError::NOT_FOUND)?;
        if matches!(self.images.own(command.image)?, Own::Nothing) {
            self.give_variables(command.image, Some(name))?;
        }
        let (address, bytes) = match &mut self.images.table.get_mut(command.image)?.own {
            Own::Nothing => return Err(CudaError::UNKNOWN),
            Own::Placed(placed) => {
                let variable = placed.variable(name).ok_or(CudaError::NOT_FOUND)?;
                (variable.address, variable.bytes)
            }
            Own::Fixed { instance, told } => {
                let (address, bytes) = instance.global(name)?;
                if !told.contains(&address) {
                    told.push(address);
                }
                self.space.add_global(address, bytes);
                (address, bytes)
            }
        };
        Ok(Outcome::done(ImageGlobalReply { address, bytes }))
    }

    fn image_kernels(
        &mut self,
        command: ImageKernels,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<ImageKernelsReply>, CudaError> {
        let instance = self.image_instance(command.image)?;
        let names = instance.kernel_names()?;
        let room = PAYLOAD_BYTES - size_of::<ImageKernelsReply>();
        let (count, listed) = fitting(names.get(command.first as usize..).unwrap_or_default(), room);
        Ok(Outcome::Done(ImageKernelsReply { total: names.len() as u32, count }, listed))
    }

    fn image_errors(
        &mut self,
        command: ImageErrors,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<ImageErrorsReply>, CudaError> {
        let said = self.images.table.get_mut(command.image)?.image.said();
        let room = PAYLOAD_BYTES - size_of::<ImageErrorsReply>();
        let some = said.get(command.first as usize..).unwrap_or_default();
        let reply = ImageErrorsReply { total: said.len() as u64 };
        Ok(Outcome::Done(reply, some[..some.len().min(room)].to_vec()))
    }
}

/// As many names as fit, each with its NUL.
fn fitting(names: &[CString], room: usize) -> (u32, Vec<u8>) {
    let mut listed = Vec::new();
    let mut count = 0;
    for name in names {
        let name = name.as_bytes_with_nul();
        if listed.len() + name.len() > room {
            break;
        }
        listed.extend_from_slice(name);
        count += 1;
    }
    (count, listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_never_cut() {
        let names = [c"one".to_owned(), c"three".to_owned(), c"x".to_owned()];
        assert_eq!(fitting(&names, 100), (3, b"one\0three\0x\0".to_vec()));
        assert_eq!(fitting(&names, 9), (1, b"one\0".to_vec()));
        assert_eq!(fitting(&names, 3), (0, Vec::new()));
    }
}
