//! A client's images and the globals in them.
//!
//! Images are shared by all clients until one asks for the address of a global: from then on that client has an
//! instance of its own, and its kernels of that image are those of the instance. What shared kernels wrote into the
//! image's globals for it before is not carried over.

use crate::worker::image_store::{Image, ImageHash, Instance};
use crate::worker::pending::{Kept, Pending};
use crate::worker::session::Session;
use crate::worker::table::Table;
use crate::worker::upload::Uploads;
use std::ffi::CString;
use std::sync::Arc;
use torpor_proto::command::{
    ImageCommands, ImageGlobal, ImageGlobalReply, ImageKernels, ImageKernelsReply, ImageLoad, ImageLoadReply,
    ImageUnload, ImageUpload, Outcome, Ticket,
};
use torpor_proto::completion::PAYLOAD_BYTES;
use torpor_proto::control::migration;
use torpor_proto::error::CudaError;

/// Images of a client.
const LIMIT: u32 = 65_536;

#[derive(Debug)]
struct ClientImage {
    image: Arc<Image>,
    private: Option<Arc<Instance>>,
    /// Addresses of globals that the client was told.
    globals: Vec<u64>,
}

/// The images of a client.
#[derive(Debug)]
pub(super) struct Images {
    table: Table<Box<ClientImage>>,
    pub(super) uploads: Uploads,
}

impl Images {
    pub(super) fn new() -> Self {
        Self { table: Table::new(LIMIT), uploads: Uploads::default() }
    }

    /// What the client has, for another worker. `None` if it was told the address of a global, which the driver chose and
    /// no other worker could give it.
    pub(super) fn save(&self) -> Option<Vec<migration::Image>> {
        let images = self.table.iter().map(|(id, known)| {
            let ClientImage { image, private, .. } = &**known;
            let hash = image.hash().to_vec();
            private.is_none().then(|| migration::Image { id, hash, bytes: image.bytes() })
        });
        images.collect()
    }

    /// Whether the client has an instance of the image of its own, because it asked for a global.
    pub(super) fn is_private(&self, image: u32) -> bool {
        self.table.get(image).is_ok_and(|image| image.private.is_some())
    }
}

impl ImageCommands for Session {
    fn image_load(
        &mut self,
        command: ImageLoad,
        _: &[u8],
        _: Ticket,
    ) -> Result<Outcome<ImageLoadReply>, CudaError> {
        let hash: ImageHash = bytemuck::cast(command.hash.map(u64::to_le));
        let known = self.know_image(command.image, hash, command.bytes)?;
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
        image.globals.iter().for_each(|&address| self.space.remove_global(address));
        self.kernels.forget_image(command.image);
        if let Some(instance) = image.private {
            let fences = self.streams.fence_all()?;
            self.pending.push(Pending::Keep(Kept::Image(instance), fences));
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
        let client_image = self.images.table.get(command.image)?;
        let instance = match &client_image.private {
            Some(instance) => instance.clone(),
            None => {
                // An image without this global need not be copied.
                client_image.image.shared(&self.shared.device)?.global(name)?;
                let instance = client_image.image.load(&self.shared.device)?;
                self.kernels.switch_image(command.image, &instance)?;
                instance
            }
        };
        let client_image = self.images.table.get_mut(command.image)?;
        client_image.private = Some(instance.clone());
        let (address, bytes) = instance.global(name)?;
        if !client_image.globals.contains(&address) {
            client_image.globals.push(address);
        }
        self.space.add_global(address, bytes);
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
}

impl Session {
    /// Gives an image a number. False if the node does not have it.
    fn know_image(&mut self, id: u32, hash: ImageHash, bytes: u64) -> Result<bool, CudaError> {
        self.images.table.check_free(id)?;
        let Some(image) = self.shared.images.find(hash, bytes) else { return Ok(false) };
        self.images.table.insert(id, Box::new(ClientImage { image, private: None, globals: Vec::new() }))?;
        Ok(true)
    }

    /// Gives the client the images that it had at another worker.
    pub(super) fn restore_images(&mut self, images: Vec<migration::Image>) -> Result<(), CudaError> {
        for migration::Image { id, hash, bytes } in images {
            let hash = ImageHash::try_from(hash.as_slice()).map_err(|_| CudaError::INVALID_VALUE)?;
            if !self.know_image(id, hash, bytes)? {
                return Err(CudaError::FILE_NOT_FOUND);
            }
        }
        Ok(())
    }

    /// The instance of an image that this client's kernels are taken from, loaded now if it is not yet.
    pub(super) fn image_instance(&self, image: u32) -> Result<Arc<Instance>, CudaError> {
        let image = self.images.table.get(image)?;
        match &image.private {
            Some(instance) => Ok(instance.clone()),
            None => image.image.shared(&self.shared.device),
        }
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
