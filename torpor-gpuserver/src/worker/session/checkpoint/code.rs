//! Images, those on their way, kernels and graphs as data.

use super::saved::Saved;
use crate::worker::gpu::images::ImageHash;
use crate::worker::objects::graph::{ClientGraph, Graphs};
use crate::worker::objects::image::{ClientImage, Images};
use crate::worker::objects::image_upload::Uploads;
use crate::worker::objects::kernel::Kernels;
use crate::worker::objects::variables::Own;
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use torpor_proto::control::migration;
use torpor_proto::error::CudaError;

impl Saved for Images {
    const NAME: &'static str = "images";
    type State = Vec<migration::Image>;

    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        let images = session.images.table.iter().map(|(id, known)| {
            let ClientImage { image, own, .. } = &**known;
            let (hash, bytes) = (image.hash().to_vec(), image.bytes());
            let (variables, managed_variables) = match own {
                Own::Nothing => (None, None),
                Own::Placed(placed) => {
                    (Some(placed.block.address), placed.managed.map(|managed| managed.address))
                }
                // No checkpoint is taken of a client that has some: nothing but this GPU's driver could place them.
                Own::Fixed { .. } => return Err(CudaError::NOT_SUPPORTED.into()),
            };
            Ok(migration::Image { id, hash, bytes, variables, managed_variables })
        });
        images.collect()
    }

    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        for migration::Image { id, hash, bytes, variables, managed_variables } in state {
            let hash = ImageHash::try_from(hash.as_slice()).map_err(|_| CudaError::INVALID_VALUE)?;
            // A lower limit takes nothing away from a client that is moved.
            if !session.know_image(id, (hash, bytes), u64::MAX)? {
                return Err(CudaError::FILE_NOT_FOUND.into());
            }
            if let Some(address) = variables {
                let image = session.images.table.get(id)?.image.clone();
                let placed = session.restore_variables(&image, address, managed_variables)?;
                session.images.table.get_mut(id)?.own = Own::Placed(Box::new(placed));
            }
        }
        Ok(())
    }
}

impl Saved for Uploads {
    const NAME: &'static str = "images that have not arrived whole";
    /// Also how many bytes the client has uploaded in its life.
    type State = (Vec<migration::Upload>, u64);

    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        let uploads = &session.images.uploads;
        let upload = |(hash, contents): (&ImageHash, &[u8])| migration::Upload {
            hash: hash.to_vec(),
            contents: contents.to_vec(),
        };
        Ok((uploads.under_way().map(upload).collect(), uploads.lifetime_bytes()))
    }

    fn restore(session: &mut Session, (uploads, lifetime_bytes): Self::State) -> Result<(), Halt> {
        let mut under_way = Vec::with_capacity(uploads.len());
        for migration::Upload { hash, contents } in uploads {
            let hash = ImageHash::try_from(hash.as_slice()).map_err(|_| CudaError::INVALID_VALUE)?;
            under_way.push((hash, contents));
        }
        session.images.uploads = Self::new(under_way, lifetime_bytes);
        Ok(())
    }
}

impl Saved for Kernels {
    const NAME: &'static str = "kernels";
    type State = Vec<migration::Kernel>;

    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        let kernels = session.kernels.table.iter().map(|(id, kernel)| {
            let (image, name) = (kernel.image, kernel.name.clone());
            migration::Kernel { id, image, name, settings: kernel.settings.save() }
        });
        Ok(kernels.collect())
    }

    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        for migration::Kernel { id, image, name, settings } in state {
            let _silence = match session.is_new_kernel(image, &name)? {
                true => session.wait_for_silence()?,
                false => None,
            };
            session.take_kernel(image, id, &name)?;
            for migration::KernelSetting { attribute, value } in settings {
                session.kernels.set(id, attribute, value)?;
            }
        }
        Ok(())
    }
}

impl Saved for Graphs {
    const NAME: &'static str = "graphs";
    type State = Vec<migration::Graph>;

    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        let graphs = session.graphs.table.iter().map(|(id, graph)| migration::Graph {
            id,
            words: graph.words.clone(),
            next: graph.next.clone(),
            flags: graph.flags,
        });
        Ok(graphs.collect())
    }

    /// Each is made launchable when it is first launched here: the driver looks at addresses, and the client's memory is not on
    /// this GPU yet.
    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        for migration::Graph { id, words, next, flags } in state {
            session.graphs.words += words.len() + next.len();
            let graph = ClientGraph { words, next, flags, ..ClientGraph::default() };
            session.graphs.table.insert(id, Box::new(graph))?;
        }
        Ok(())
    }
}
