//! The images of a client, by its numbers.

use crate::worker::gpu::images::Image;
use crate::worker::gpu::images::quota::ImageUse;
use crate::worker::objects::image_upload::Uploads;
use crate::worker::objects::table::Table;
use crate::worker::objects::variables::{Own, Placed};
use std::sync::Arc;
use torpor_proto::error::CudaError;
use torpor_proto::image::relocate::Relocatable;

/// Images of a client.
const LIMIT: u32 = 65_536;

/// An image, with what the client has of it for itself.
#[derive(Debug)]
pub(crate) struct ClientImage {
    pub(crate) image: Arc<Image>,
    pub(crate) own: Own,
    pub(crate) _use: ImageUse,
}

/// The images of a client.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) table: Table<Box<ClientImage>>,
    pub(crate) uploads: Uploads,
    /// A bank of constants is not filled yet, or pointers to code are another worker's.
    pub(crate) has_stale: bool,
    /// What a parked command has found out of an image.
    pub(crate) parked_layout: Option<(Arc<Image>, Relocatable)>,
}

impl Images {
    pub(crate) fn new() -> Self {
        Self { table: Table::new(LIMIT), uploads: Uploads::default(), has_stale: false, parked_layout: None }
    }

    /// Everything that is at the client's own addresses.
    pub(crate) fn placed_mut(&mut self) -> impl Iterator<Item = &mut Placed> {
        self.table.values_mut().filter_map(|known| match &mut known.own {
            Own::Placed(placed) => Some(&mut **placed),
            Own::Nothing | Own::Fixed { .. } => None,
        })
    }

    /// How many images have variables that the driver placed for this client, or pointers to code that its program has read.
    pub(crate) fn fixed(&self) -> usize {
        let is_fixed = |own: &Own| match own {
            Own::Nothing => false,
            Own::Placed(placed) => placed.is_code_read,
            Own::Fixed { .. } => true,
        };
        self.table.iter().filter(|(_, known)| is_fixed(&known.own)).count()
    }

    /// Where the variables of an image are.
    pub(crate) fn own(&self, image: u32) -> Result<&Own, CudaError> {
        Ok(&self.table.get(image)?.own)
    }
}
