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
        // What a driver takes of it has yet to be made.
        ImageKind::Bundle => return Err(ImageError::Malformed { what: "container", offset: 0 }.into()),
        ImageKind::Container => {}
    }
    let entries = fatbin::entries(image.bytes)?.collect::<Result<Vec<Entry<'_>>, ImageError>>()?;
    let cubins = best_cubins(&entries, sm);
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

/// How many cubins are equally good for a GPU of compute capability `sm` in the container at the start of `bytes`, and a container of these
/// alone, none of them compressed: for a driver, which chooses by what is not known here.
///
/// # Errors
/// If the container is damaged.
pub fn choice_for(bytes: &[u8], sm: u32) -> Result<(u32, Vec<u8>), ImageError> {
    let entries = fatbin::entries(bytes)?.collect::<Result<Vec<Entry<'_>>, ImageError>>()?;
    let cubins = best_cubins(&entries, sm);
    let plain = cubins.iter().map(|entry| entry.plain()).collect::<Result<Vec<_>, ImageError>>()?;
    Ok((cubins.len() as u32, fatbin::container_of(plain.iter().map(Vec::as_slice))))
}

/// The cubins of the highest rank for a GPU.
fn best_cubins<'a, 'b>(entries: &'b [Entry<'a>], sm: u32) -> Vec<&'b Entry<'a>> {
    // None if it does not run there.
    let rank = |entry: &Entry<'_>| {
        let is_for_one = entry.flags & FLAG_ONE_GPU != 0;
        let runs = entry.sm / 10 == sm / 10 && entry.sm <= sm && (!is_for_one || entry.sm == sm);
        (entry.kind == EntryKind::CUBIN && runs).then_some((entry.sm, is_for_one))
    };
    let best = entries.iter().filter_map(rank).max();
    entries.iter().filter(|entry| rank(entry).is_some() && rank(entry) == best).collect()
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::{container, lz4_entry, plain_entry, zstd_entry};
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

    #[test]
    fn what_the_driver_chooses_among_is_not_compressed() {
        let cubins = [b"\x7fELF one".repeat(9), b"\x7fELF two".repeat(8)];
        let compressed = container(&[
            lz4_entry(EntryKind::CUBIN, 90, 0x40, &cubins[0]),
            plain_entry(EntryKind::PTX, 90, 0x40, b"text"),
            zstd_entry(EntryKind::CUBIN, 90, 0x70, &cubins[1]),
            zstd_entry(EntryKind::CUBIN, 80, 0x40, &cubins[1]),
        ]);
        let (count, plain) = choice_for(&compressed, 90).unwrap();
        let entries: Vec<_> = fatbin::entries(&plain).unwrap().map(Result::unwrap).collect();
        assert_eq!((count, entries.len()), (2, 2));
        for (entry, cubin) in entries.iter().zip(&cubins) {
            assert_eq!((entry.kind, entry.sm, entry.compressed_bytes), (EntryKind::CUBIN, 90, 0));
            assert!(entry.stored.starts_with(cubin) && entry.stored.len() % 8 == 0);
            assert_eq!(entry.flags & (fatbin::FLAG_LZ4 | fatbin::FLAG_ZSTD), 0);
        }
        assert_eq!(code_for(&plain, 90), Err(Immovable::Code(2)));
    }
}
