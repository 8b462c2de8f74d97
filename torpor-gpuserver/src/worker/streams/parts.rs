//! Parts of the GPU that a client's green contexts have.
//!
//! A part is named by how it comes of the whole ([`Levels`]), which says as much to every worker: the client's streams carry it. A real
//! green context is made for each, when it is first asked about or used. Where the driver makes none, or nothing runs in it, an
//! ordinary stream serves: its results are the same, on more multiprocessors.

use crate::driver::{GreenContext, Part, Stream};
use crate::worker::gpu::Shared;
use crate::worker::gpu::digest::DigestBuffer;
use crate::worker::gpu::fence::Fences;
use crate::worker::streams::live::Live;
use crate::worker::sync::lock;
use std::sync::Arc;
use torpor_proto::command::{MOST_PART_GROUPS, MOST_PART_LEVELS, PART_REST, PartLevel};
use torpor_proto::error::CudaError;
use torpor_proto::layout::AddressRange;

/// Real green contexts of a client, of which the GPU has few.
const MOST: usize = 64;

/// How a part comes of the whole GPU; nothing is the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Levels(Option<Arc<[PartLevel]>>);

impl Levels {
    /// Reads what a client says.
    ///
    /// # Errors
    /// `INVALID_VALUE` for what names no part.
    pub(crate) fn read(words: &[u8]) -> Result<Self, CudaError> {
        if words.is_empty() {
            return Ok(Self(None));
        }
        let (levels, rest) = words.as_chunks::<{ size_of::<PartLevel>() }>();
        if !rest.is_empty() || levels.len() > MOST_PART_LEVELS {
            return Err(CudaError::INVALID_VALUE);
        }
        let levels: Arc<[PartLevel]> =
            levels.iter().map(|level| bytemuck::pod_read_unaligned(level)).collect();
        let is_part =
            |level: &PartLevel| (1..=MOST_PART_GROUPS).contains(&level.groups) && level.taken != [0; 4];
        if levels.iter().all(is_part) { Ok(Self(Some(levels))) } else { Err(CudaError::INVALID_VALUE) }
    }

    /// What [`Self::read`] reads.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], bytemuck::cast_slice)
    }

    /// Whether it is the whole GPU.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.is_none()
    }

    /// The last level, and the part that it comes of.
    fn last(&self) -> Option<(Self, PartLevel)> {
        let (&last, before) = self.0.as_deref()?.split_last()?;
        Some((Self((!before.is_empty()).then(|| before.into())), last))
    }
}

/// The green contexts of one client.
#[derive(Debug)]
pub(crate) struct Parts {
    shared: Arc<Shared>,
    client: u64,
    made: Vec<(Levels, Arc<GreenContext>)>,
    /// Whether streams of them do all that streams must; unknown before the first one.
    serves: Option<bool>,
    has_warned: bool,
    /// What the kernel that was tried writes to.
    tried: Option<DigestBuffer>,
}

impl Parts {
    pub(super) fn new(shared: &Arc<Shared>, client: u64) -> Self {
        let shared = shared.clone();
        Self { shared, client, made: Vec::new(), serves: None, has_warned: false, tried: None }
    }

    /// The multiprocessors of a part.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn look(&mut self, levels: &Levels) -> Result<Part, CudaError> {
        if levels.is_whole() { self.shared.device.whole() } else { self.context(levels)?.part() }
    }

    /// The green context of a part that is not the whole.
    fn context(&mut self, levels: &Levels) -> Result<Arc<GreenContext>, CudaError> {
        if let Some((_, known)) = self.made.iter().find(|(known, _)| known == levels) {
            return Ok(known.clone());
        }
        let (before, level) = levels.last().ok_or(CudaError::INVALID_VALUE)?;
        let parent = if before.is_whole() { None } else { Some(self.context(&before)?) };
        let device = &self.shared.device;
        let of = parent.as_ref().map_or_else(|| device.whole(), |parent| parent.part())?;
        let (groups, rest) = of.split(device, level.groups, (level.flags, level.least))?;
        let numbered = (0..).zip(groups).chain(std::iter::once((PART_REST, rest)));
        let taken: Vec<_> = numbered.filter(|&(group, _)| level.takes(group)).map(|(_, part)| part).collect();
        let wanted: u32 = level.taken.iter().map(|word| word.count_ones()).sum();
        // A GPU of the same name may have its multiprocessors elsewhere.
        if taken.len() != wanted as usize {
            return Err(CudaError::INVALID_RESOURCE_CONFIGURATION);
        }
        if self.made.len() >= MOST {
            self.made.retain(|(_, context)| Arc::strong_count(context) > 1);
        }
        if self.made.len() >= MOST {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        let context = GreenContext::new(device, &taken, parent)?;
        self.made.push((levels.clone(), context.clone()));
        Ok(context)
    }

    /// A real stream for one that the client has declared of a context that has this part.
    pub(super) fn live(
        &mut self,
        fences: &mut Fences,
        part: &Levels,
        declared: (i32, u32),
    ) -> Result<Box<Live>, CudaError> {
        if !part.is_whole() && self.serves != Some(false) {
            match self.green_live(fences, part, declared) {
                Ok(live) => return Ok(live),
                Err(error) => self.warn(error),
            }
        }
        let (priority, context) = declared;
        Live::new(Stream::new(&self.shared.device, priority)?, fences, context)
    }

    fn warn(&mut self, error: CudaError) {
        if !std::mem::replace(&mut self.has_warned, true) {
            let why = "the driver gives no stream of a green context: it runs on all multiprocessors";
            tracing::warn!(client = self.client, %error, "{why}");
        }
    }

    fn green_live(
        &mut self,
        fences: &mut Fences,
        part: &Levels,
        (priority, context): (i32, u32),
    ) -> Result<Box<Live>, CudaError> {
        let mut live = Live::new(self.context(part)?.stream(priority)?, fences, context)?;
        if self.serves.is_none() {
            let tried = self.try_out(&mut live, fences);
            self.serves = Some(tried.is_ok());
            tried?;
        }
        Ok(live)
    }

    /// Has a stream do what streams must: each is refused at once by a driver that does not do it there.
    fn try_out(&mut self, live: &mut Live, fences: &Fences) -> Result<(), CudaError> {
        let device = live.stream.device().clone();
        let known = lock(&self.shared.digest_buffers).pop();
        let buffer = self.tried.insert(known.map_or_else(|| DigestBuffer::new(&device, 1), Ok)?);
        buffer.set_chunk(0, 0);
        let nowhere = AddressRange { address: 0, bytes: 0 };
        // SAFETY: the kernel and the buffer outlive the client's work, and no other launch has the buffer; a chunk of no bytes is not
        // read.
        unsafe { self.shared.digests.post(&live.stream, buffer, 1, 0, [nowhere; 2]) }?;
        live.unfenced = true;
        let other = Stream::new(&device, 0)?;
        other.wait(live.record_join()?, 0)?;
        if let Some(joined) = &live.join {
            live.stream.wait(joined, 0)?;
        }
        live.fence(fences).map(drop)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        lock(&self.shared.digest_buffers).extend(self.tried.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(groups: u32, group: u32) -> PartLevel {
        let mut level = PartLevel { least: 8, groups, ..PartLevel::default() };
        level.take(group);
        level
    }

    #[test]
    fn a_part_is_read_as_it_is_written() {
        assert!(Levels::read(&[]).unwrap().is_whole());
        let two = [level(2, 1), level(1, PART_REST)];
        let levels = Levels::read(bytemuck::cast_slice(&two)).unwrap();
        assert_eq!((levels.bytes(), levels.is_whole()), (bytemuck::cast_slice(&two), false));
        let (before, last) = levels.last().unwrap();
        assert_eq!((before.bytes(), last), (bytemuck::cast_slice(&two[..1]), two[1]));
        let (before, _) = before.last().unwrap();
        assert!(before.is_whole());
    }

    #[test]
    fn what_names_no_part_is_refused() {
        let none_taken = PartLevel { groups: 1, ..PartLevel::default() };
        for levels in [
            &[none_taken][..],
            &[level(0, 0)],
            &[level(MOST_PART_GROUPS + 1, 0)],
            &[level(1, 0); MOST_PART_LEVELS + 1],
        ] {
            assert_eq!(
                Levels::read(bytemuck::cast_slice(levels)),
                Err(CudaError::INVALID_VALUE),
                "{levels:?}"
            );
        }
        assert_eq!(Levels::read(&[1; 7]), Err(CudaError::INVALID_VALUE));
    }
}
