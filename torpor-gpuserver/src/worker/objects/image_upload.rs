//! Images that are on their way from a client, piece by piece.

use crate::worker::gpu::images::ImageHash;
use crate::worker::memory::host_range::HostMemory;
use std::collections::HashMap;
use torpor_proto::command::ImageUpload;
use torpor_proto::error::CudaError;
use torpor_proto::image::MAX_IMAGE_BYTES;

/// Bytes that a client may have under way at once.
const UNDER_WAY_BYTES: u64 = MAX_IMAGE_BYTES;

/// Bytes that a client may upload in its life: many times the code of the largest programs.
const LIFETIME_BYTES: u64 = 16 << 30;

/// A client's unfinished images.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    under_way: HashMap<ImageHash, Vec<u8>>,
    under_way_bytes: u64,
    lifetime_bytes: u64,
}

impl Uploads {
    /// Those of which so much has arrived.
    pub(crate) fn new(under_way: Vec<(ImageHash, Vec<u8>)>, lifetime_bytes: u64) -> Self {
        let under_way_bytes = under_way.iter().map(|(_, contents)| contents.len() as u64).sum();
        Self { under_way: under_way.into_iter().collect(), under_way_bytes, lifetime_bytes }
    }

    /// What has arrived of each so far.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = (&ImageHash, &[u8])> {
        self.under_way.iter().map(|(hash, contents)| (hash, contents.as_slice()))
    }

    /// How many bytes the client has uploaded in its life.
    pub(crate) fn lifetime_bytes(&self) -> u64 {
        self.lifetime_bytes
    }

    /// Adds a piece. Returns the image with its last piece. After an error the image must be begun anew.
    pub(crate) fn add(
        &mut self,
        piece: &ImageUpload,
        host: &HostMemory,
    ) -> Result<Option<(ImageHash, Vec<u8>)>, CudaError> {
        let hash: ImageHash = bytemuck::cast(piece.hash.map(u64::to_le));
        let mut contents = self.under_way.remove(&hash).unwrap_or_default();
        self.under_way_bytes -= contents.len() as u64;
        if piece.offset == 0 {
            contents.clear();
        }
        let before = contents.len() as u64;
        let end = piece.offset.checked_add(piece.bytes).ok_or(CudaError::INVALID_VALUE)?;
        if piece.offset != before || end > piece.total_bytes || piece.bytes == 0 {
            return Err(CudaError::INVALID_VALUE);
        }
        if self.under_way_bytes + end > UNDER_WAY_BYTES
            || self.lifetime_bytes.saturating_add(piece.bytes) > LIFETIME_BYTES
        {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        contents.resize(end as usize, 0);
        host.read(piece.source, &mut contents[before as usize..])?;
        self.lifetime_bytes += piece.bytes;
        if end == piece.total_bytes {
            return Ok(Some((hash, contents)));
        }
        self.under_way_bytes += end;
        self.under_way.insert(hash, contents);
        Ok(None)
    }
}
