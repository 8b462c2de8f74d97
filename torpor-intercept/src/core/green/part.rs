//! Parts of the GPU as programs name them: what was split of what, which is all that a worker needs to know.
//!
//! A program has a part as a structure that it copies as it likes, so what a part is stays here, under a number.

use super::super::{CudaResult, client};
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use torpor_proto::command::{
    MOST_PART_GROUPS, MOST_PART_LEVELS, PART_REST, PartLevel, PartLook, PartShape, PartSplit, PartSplitReply,
};
use torpor_proto::error::CudaError;

/// How a part comes of the whole GPU; nothing is the whole.
pub(super) type Levels = Arc<[PartLevel]>;

/// A part that a program has.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// The number of its cut.
    pub cut: u32,
    /// Which group of it, if it is one of several.
    pub group: u32,
    /// Its multiprocessors.
    pub shape: PartShape,
}

/// All that a device or a green context has, or what a split made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cut {
    device: u32,
    of: Levels,
    /// With nothing taken.
    split: Option<PartLevel>,
}

/// By number. What was described stays, as with CUDA, which has no function that ends it.
struct Known {
    cuts: Vec<Cut>,
    descriptions: Vec<&'static (u32, Levels)>,
}

static KNOWN: Mutex<Known> = Mutex::new(Known { cuts: Vec::new(), descriptions: Vec::new() });

fn known() -> MutexGuard<'static, Known> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    /// The same split has the same number.
    fn number(&mut self, cut: Cut) -> u32 {
        let at = self.cuts.iter().position(|known| *known == cut).unwrap_or_else(|| {
            self.cuts.push(cut);
            self.cuts.len() - 1
        });
        at as u32
    }
}

/// The multiprocessors of a part.
pub(super) fn look(levels: &[PartLevel]) -> CudaResult<PartShape> {
    Ok(client()?.call(&PartLook {}, bytemuck::cast_slice(levels))?.reply)
}

pub(super) fn of_levels(device: u32, of: Levels, shape: PartShape) -> Piece {
    Piece { cut: known().number(Cut { device, of, split: None }), group: 0, shape }
}

/// `cuDeviceGetDevResource`.
///
/// # Errors
/// What the driver says.
pub fn whole(device: u32) -> CudaResult<Piece> {
    Ok(of_levels(device, Levels::default(), look(&[])?))
}

/// `cuDevSmResourceSplitByCount`: the groups and what remains, which may be nothing. Without groups, how many there could be.
///
/// # Errors
/// `INVALID_VALUE` for what is no part; `INVALID_RESOURCE_CONFIGURATION` for one that was split and is no context's; what the driver says.
pub fn split(
    cut: u32,
    groups: Option<u32>,
    (flags, least): (u32, u32),
) -> CudaResult<(u32, Vec<Piece>, Option<Piece>)> {
    let Cut { device, of, split } =
        known().cuts.get(cut as usize).cloned().ok_or(CudaError::INVALID_VALUE)?;
    if split.is_some() || of.len() >= MOST_PART_LEVELS {
        return Err(CudaError::INVALID_RESOURCE_CONFIGURATION);
    }
    let asked = match groups {
        Some(0) => return Err(CudaError::INVALID_VALUE),
        Some(groups) => groups.min(MOST_PART_GROUPS),
        None => 0,
    };
    let command = PartSplit { least, flags, groups: asked, reserved: 0 };
    let answer = client()?.call(&command, bytemuck::cast_slice(&of))?;
    let PartSplitReply { groups: found, each, rest, .. } = answer.reply;
    if asked == 0 {
        return Ok((found, Vec::new(), None));
    }
    let level = PartLevel { least, flags, groups: asked, ..PartLevel::default() };
    let cut = known().number(Cut { device, of, split: Some(level) });
    let pieces = (0..found.min(asked)).map(|group| Piece { cut, group, shape: each }).collect();
    let rest = (rest.multiprocessors > 0).then_some(Piece { cut, group: PART_REST, shape: rest });
    Ok((found, pieces, rest))
}

/// `cuDevResourceGenerateDesc`, of cuts and groups.
///
/// # Errors
/// `INVALID_VALUE` for what is no part, `INVALID_RESOURCE_CONFIGURATION` for parts that are not of one split.
pub fn describe(pieces: &[(u32, u32)]) -> CudaResult<*mut c_void> {
    let &(first, _) = pieces.first().ok_or(CudaError::INVALID_VALUE)?;
    let mut known = known();
    let Cut { device, of, split } =
        known.cuts.get(first as usize).cloned().ok_or(CudaError::INVALID_VALUE)?;
    if pieces.iter().any(|&(cut, _)| cut != first) || (split.is_none() && pieces.len() > 1) {
        return Err(CudaError::INVALID_RESOURCE_CONFIGURATION);
    }
    let levels = match split {
        None => of,
        Some(mut level) => {
            for &(_, group) in pieces {
                if group > PART_REST {
                    return Err(CudaError::INVALID_VALUE);
                }
                level.take(group);
            }
            of.iter().copied().chain([level]).collect()
        }
    };
    let same = known.descriptions.iter().find(|&&&(of, ref known)| (of, known) == (device, &levels)).copied();
    Ok(handle_of(same.unwrap_or_else(|| {
        let new: &_ = Box::leak(Box::new((device, levels)));
        known.descriptions.push(new);
        new
    })))
}

fn handle_of(description: &(u32, Levels)) -> *mut c_void {
    std::ptr::from_ref(description).cast_mut().cast()
}

/// What [`describe`] gave a handle for: its device and its part.
pub(super) fn described(handle: *mut c_void) -> CudaResult<(u32, Levels)> {
    let known = known();
    let found = known.descriptions.iter().copied().find(|known| handle_of(known).addr() == handle.addr());
    found.cloned().ok_or(CudaError::INVALID_VALUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(device: u32, groups: u32) -> u32 {
        let level = PartLevel { least: 8, groups, ..PartLevel::default() };
        known().number(Cut { device, of: Levels::default(), split: Some(level) })
    }

    #[test]
    fn a_description_is_of_parts_of_one_split() {
        let (two, three) = (cut(5, 2), cut(5, 3));
        assert_eq!((cut(5, 2), cut(6, 2) == two), (two, false), "the same split has the same number");
        let both = describe(&[(two, 0), (two, PART_REST)]).unwrap();
        let (device, levels) = described(both).unwrap();
        assert_eq!((device, levels.len(), levels[0].groups), (5, 1, 2));
        assert!(levels[0].takes(0) && levels[0].takes(PART_REST) && !levels[0].takes(1));
        assert_eq!(describe(&[(two, PART_REST), (two, 0)]), Ok(both), "and the same description");
        let unlike = CudaError::INVALID_RESOURCE_CONFIGURATION;
        assert_eq!(describe(&[(two, 0), (three, 0)]), Err(unlike));
        for wrong in [&[][..], &[(u32::MAX, 0)], &[(two, 256)]] {
            assert_eq!(describe(wrong), Err(CudaError::INVALID_VALUE), "{wrong:?}");
        }
        assert_eq!(described(both.wrapping_byte_add(8)), Err(CudaError::INVALID_VALUE));
    }

    #[test]
    fn a_whole_is_described_alone_and_a_group_is_not_split() {
        let shape = PartShape { multiprocessors: 132, ..PartShape::default() };
        let whole = of_levels(7, Levels::default(), shape);
        let description = describe(&[(whole.cut, 0)]).unwrap();
        assert_eq!(described(description), Ok((7, Levels::default())));
        let twice = [(whole.cut, 0); 2];
        assert_eq!(describe(&twice), Err(CudaError::INVALID_RESOURCE_CONFIGURATION));
        let of_group = split(cut(7, 2), Some(1), (0, 8));
        assert_eq!(of_group.err(), Some(CudaError::INVALID_RESOURCE_CONFIGURATION));
        assert_eq!(split(u32::MAX, None, (0, 8)).err(), Some(CudaError::INVALID_VALUE));
    }
}
