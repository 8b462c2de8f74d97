//! Images that are on their way from a client, piece by piece.

use crate::worker::gpu::images::ImageHash;
use crate::worker::memory::host_range::HostMemory;
use std::collections::HashMap;
use torpor_proto::command::ImageUpload;
use torpor_proto::control::migration;
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
    /// What has arrived so far, for another worker, and how many bytes the client has uploaded in its life.
    pub(crate) fn save(&self) -> (Vec<migration::Upload>, u64) {
        let upload = |(hash, contents): (&ImageHash, &Vec<u8>)| migration::Upload {
            hash: hash.to_vec(),
            contents: contents.clone(),
        };
        (self.under_way.iter().map(upload).collect(), self.lifetime_bytes)
    }

    /// What had arrived at another worker.
    pub(crate) fn restore(uploads: Vec<migration::Upload>, lifetime_bytes: u64) -> Result<Self, CudaError> {
        let mut restored = Self { lifetime_bytes, ..Self::default() };
        for migration::Upload { hash, contents } in uploads {
            let hash = ImageHash::try_from(hash.as_slice()).map_err(|_| CudaError::INVALID_VALUE)?;
            restored.under_way_bytes += contents.len() as u64;
            restored.under_way.insert(hash, contents);
        }
        Ok(restored)
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
