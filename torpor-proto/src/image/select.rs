//! The code in an image that a GPU's driver takes.

use super::fatbin::{self, Entry, EntryKind, FLAG_ONE_GPU};
use super::relocate::Immovable;
use super::{Image, ImageError, ImageKind};

/// Code for one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// A cubin.
    Cubin(Vec<u8>),
    /// PTX text with its NUL, which the driver compiles.
    Ptx(Vec<u8>),
}

/// What the driver of a GPU of compute capability `sm` (90 for 9.0) takes of the image at the start of `bytes`: a cubin for this
/// GPU alone (sm_90a), else that for the latest GPU that this one is compatible with, else the latest PTX.
///
/// # Errors
/// If there is none, or no saying which, or if the image is damaged.
pub fn code_for(bytes: &[u8], sm: u32) -> Result<Code, Immovable> {
    let image = Image::parse(bytes)?;
    match image.kind {
        ImageKind::Elf => return Ok(Code::Cubin(image.bytes.to_vec())),
        ImageKind::Ptx => return Ok(Code::Ptx(image.bytes.to_vec())),
        ImageKind::Container => {}
    }
    let entries = fatbin::entries(image.bytes)?.collect::<Result<Vec<Entry<'_>>, ImageError>>()?;
    // A cubin's rank; none if it does not run here.
    let rank = |entry: &Entry<'_>| {
        let is_for_one = entry.flags & FLAG_ONE_GPU != 0;
        let runs = entry.sm / 10 == sm / 10 && entry.sm <= sm && (!is_for_one || entry.sm == sm);
        (entry.kind == EntryKind::CUBIN && runs).then_some((entry.sm, is_for_one))
    };
    let best = entries.iter().filter_map(rank).max();
    let cubins: Vec<_> =
        entries.iter().filter(|entry| rank(entry).is_some() && rank(entry) == best).collect();
    match cubins[..] {
        [cubin] => Ok(Code::Cubin(cubin.payload()?.into_owned())),
        [] => {
            let texts = entries.iter().filter(|entry| entry.kind == EntryKind::PTX && entry.sm <= sm);
            let text = texts.max_by_key(|entry| entry.sm).ok_or(Immovable::Code(0))?;
            let mut text = text.payload()?.into_owned();
            text.push(0);
            Ok(Code::Ptx(text))
        }
        // The driver chooses by what is not known here.
        _ => Err(Immovable::Code(cubins.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::{container, plain_entry};
    use super::*;

    fn with(entries: &[(EntryKind, u32)]) -> Vec<u8> {
        let entry = |&(kind, sm): &(EntryKind, u32)| {
            plain_entry(kind, sm, 0x40, format!("{} {sm}", kind.0).as_bytes())
        };
        container(&entries.iter().map(entry).collect::<Vec<_>>())
    }

    #[test]
    fn the_best_cubin_comes_first_and_then_the_best_text() {
        let (cubin, text) = (EntryKind::CUBIN, EntryKind::PTX);
        let all = with(&[(text, 80), (cubin, 80), (cubin, 86), (text, 90), (cubin, 100), (cubin, 100)]);
        assert_eq!(code_for(&all, 89), Ok(Code::Cubin(b"2 86\0\0\0\0".to_vec())));
        assert_eq!(code_for(&all, 80), Ok(Code::Cubin(b"2 80\0\0\0\0".to_vec())));
        assert_eq!(code_for(&all, 90), Ok(Code::Ptx(b"1 90\0\0\0\0\0".to_vec())));
        assert_eq!(code_for(&all, 75), Err(Immovable::Code(0)));
        assert_eq!(code_for(&all, 100), Err(Immovable::Code(2)));
    }

    #[test]
    fn a_cubin_for_one_gpu_alone_comes_before_the_others_there_and_runs_nowhere_else() {
        let for_one = |text: &[u8]| {
            let mut entry = plain_entry(EntryKind::CUBIN, 80, 0x40, text);
            entry[40..48].copy_from_slice(&FLAG_ONE_GPU.to_le_bytes());
            entry
        };
        let all = container(&[for_one(b"80a.80a."), plain_entry(EntryKind::CUBIN, 80, 0x40, b"80..80..")]);
        assert_eq!(code_for(&all, 80), Ok(Code::Cubin(b"80a.80a.".to_vec())));
        assert_eq!(code_for(&all, 86), Ok(Code::Cubin(b"80..80..".to_vec())));
        assert_eq!(code_for(&container(&[for_one(b"80a.80a.")]), 86), Err(Immovable::Code(0)));
    }
}
