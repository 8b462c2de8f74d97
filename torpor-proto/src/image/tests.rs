//! The whole way: images built here, PyTorch's own images, and what hostile ones do.

use proptest::prelude::*;

use super::fatbin::EntryKind;
use super::synthetic::{self, CubinSource, KernelSource, VariableSource};
use super::*;

fn sample_cubin() -> Vec<u8> {
    synthetic::cubin(&sample())
}

fn sample() -> CubinSource {
    CubinSource {
        kernels: vec![
            KernelSource {
                name: "scale".to_owned(),
                parameters: vec![(0, 8), (8, 4), (16, 24), (40, 1)],
                block_bytes: 41,
                shared_bytes: 256,
                registers: 12,
            },
            KernelSource {
                name: "large".to_owned(),
                parameters: vec![(0, 20_000), (20_000, 8)],
                block_bytes: 20_008,
                shared_bytes: 16,
                registers: 255,
            },
            KernelSource {
                name: "none".to_owned(),
                parameters: vec![],
                block_bytes: 0,
                shared_bytes: 0,
                registers: 4,
            },
        ],
        variables: vec![
            VariableSource::of(".nv.global", "counter", 4, 0),
            VariableSource::of(".nv.global.init", "table", 40, 1),
            VariableSource::of(".nv.constant3", "coeff", 16, 1),
        ],
        ..CubinSource::default()
    }
}

/// One entry of every kind: PTX, a plain cubin, both compressions with both header sizes, an unknown kind.
fn sample_container() -> Vec<u8> {
    let cubin = sample_cubin();
    synthetic::container(&[
        synthetic::plain_entry(EntryKind::PTX, 90, 0x40, b".version 8.0\n.target sm_90\n\0"),
        synthetic::plain_entry(EntryKind::CUBIN, 75, 0x40, &cubin),
        synthetic::lz4_entry(EntryKind::CUBIN, 80, 0x48, &cubin),
        synthetic::zstd_entry(EntryKind::CUBIN, 100, 0x70, &cubin),
        synthetic::plain_entry(EntryKind(77), 1, 0x40, b"something new..."),
    ])
}

/// One input of every kind, and a choice.
fn sample_bundle() -> Vec<u8> {
    use bundle::{Bundle, Choice, CompilerOption, Input, InputKind};
    let (cubin, container) = (sample_cubin(), sample_container());
    let input = |kind, bytes| Input { kind, bytes };
    let inputs = vec![
        input(InputKind::Cubin, &cubin),
        input(InputKind::Ptx, b".version 8.0\n\0"),
        input(InputKind::Fatbinary, &container),
        input(InputKind::Object, &cubin),
        input(InputKind::Library, b"!<arch>\n"),
    ];
    let choices = vec![Choice { option: CompilerOption::MaxRegisters, value: 64 }];
    Bundle { choices, inputs }.to_bytes()
}

#[test]
fn each_kind_is_measured_the_same_from_a_pointer_and_from_a_slice() {
    for (kind, image) in [
        (ImageKind::Container, sample_container()),
        (ImageKind::Elf, sample_cubin()),
        (ImageKind::Bundle, sample_bundle()),
        (ImageKind::Ptx, b"// text\n.version 8.0\n\0".to_vec()),
    ] {
        let mut longer = image.clone();
        longer.extend_from_slice(&[0xee; 64]);
        let parsed = Image::parse(&longer).expect("sound");
        assert_eq!((parsed.kind, parsed.bytes), (kind, &image[..]));
        // SAFETY: `longer` holds a complete image and outlives the result.
        let measured = unsafe { measure(longer.as_ptr()) }.expect("sound");
        assert_eq!(measured, parsed);
    }
}

#[test]
fn a_relocatable_cubin_ends_where_its_bytes_end() {
    // Its global and shared sections have types of their own, sizes, and no bytes.
    let mut source = sample();
    source.kernels[0].shared_bytes = 1 << 40;
    let cubin = synthetic::cubin(&source);
    assert_eq!(Image::parse(&cubin).expect("sound").bytes.len(), cubin.len());
}

#[test]
fn a_wrapper_leads_to_its_containers() {
    let (container, other) = (sample_container(), synthetic::container(&[]));
    let list = [other.as_ptr(), container.as_ptr(), std::ptr::null()];
    let name = c"file.fatbin";
    for (version, extra, prelinked) in
        [(1, name.as_ptr().cast::<u8>(), vec![]), (2, list.as_ptr().cast(), vec![&other[..], &container[..]])]
    {
        let wrapper = Wrapper { magic: WRAPPER_MAGIC, version, container: container.as_ptr(), extra };
        // SAFETY: the wrapper and all that it refers to are complete and outlive the result.
        let image = unsafe { measure((&raw const wrapper).cast()) }.expect("sound");
        assert_eq!(image, Image { kind: ImageKind::Container, bytes: &container, prelinked });
    }
    let wrapper =
        Wrapper { magic: WRAPPER_MAGIC, version: 1, container: std::ptr::null(), extra: std::ptr::null() };
    // SAFETY: the wrapper is complete; null pointers are not followed.
    assert_eq!(unsafe { measure((&raw const wrapper).cast()) }, Err(ImageError::Null("container")));
}

#[test]
fn what_is_no_image_is_refused() {
    // SAFETY: null is allowed.
    assert_eq!(unsafe { measure(std::ptr::null()) }, Err(ImageError::Null("image")));
    for bytes in [&b"\0\0\0\0"[..], b"text\x01\0", b"\x7fELA", b"MZ\x90\0"] {
        // SAFETY: four readable bytes which start no known image; text is followed to its first other byte.
        assert!(matches!(unsafe { measure(bytes.as_ptr()) }, Err(ImageError::Unrecognised { .. })));
        assert!(matches!(Image::parse(bytes), Err(ImageError::Unrecognised { .. })));
    }
    assert!(matches!(Image::parse(b".version 8.0"), Err(ImageError::Truncated { .. })));
    assert!(matches!(Image::parse(b""), Err(ImageError::Truncated { .. })));
    let mut elf32 = sample_cubin();
    elf32[4] = 1;
    assert!(matches!(Image::parse(&elf32), Err(ImageError::Malformed { .. })));
    // A wrapper in a slice is of no use: its pointers are another process's.
    let wrapper = [WRAPPER_MAGIC.to_le_bytes().as_slice(), &[0; 20]].concat();
    assert!(matches!(Image::parse(&wrapper), Err(ImageError::Unrecognised { .. })));
}

#[test]
fn a_huge_declared_size_is_refused() {
    let mut container = sample_container();
    container[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(Image::parse(&container), Err(ImageError::TooLarge { .. })));
    // SAFETY: the declared size is refused before anything behind the header is read.
    assert!(matches!(unsafe { measure(container.as_ptr()) }, Err(ImageError::TooLarge { .. })));
}

#[test]
fn entries_keep_what_they_are_and_give_their_payloads() {
    let (container, cubin) = (sample_container(), sample_cubin());
    let entries: Vec<_> =
        fatbin::entries(&container).expect("sound").map(|entry| entry.expect("sound")).collect();
    let heads: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.sm, entry.header.len())).collect();
    let cubins = EntryKind::CUBIN;
    assert_eq!(
        heads,
        [
            (EntryKind::PTX, 90, 0x40),
            (cubins, 75, 0x40),
            (cubins, 80, 0x48),
            (cubins, 100, 0x70),
            (EntryKind(77), 1, 0x40)
        ]
    );
    for entry in entries.iter().filter(|entry| entry.kind == cubins) {
        let payload = entry.payload().expect("sound");
        assert_eq!(payload[..cubin.len()], cubin);
    }
    assert_eq!(ptx::text(&entries[0].payload().expect("plain")), Some(".version 8.0\n.target sm_90\n"));
}

#[test]
fn an_unknown_compression_is_refused() {
    let mut entry = synthetic::zstd_entry(EntryKind::CUBIN, 90, 0x40, &sample_cubin());
    entry[40..48].fill(0);
    let container = synthetic::container(&[entry]);
    let entry = fatbin::entries(&container).expect("sound").next().expect("one").expect("sound");
    assert!(matches!(entry.payload(), Err(ImageError::Malformed { .. })));
}

#[test]
fn kernels_and_globals_are_found() {
    let (source, cubin) = (sample(), sample_cubin());
    let kernels = cubin::kernels(&cubin).expect("sound");
    assert_eq!(kernels.len(), source.kernels.len());
    for (kernel, source) in kernels.iter().zip(&source.kernels) {
        assert_eq!(kernel.name, source.name);
        let parameters: Vec<_> = kernel.parameters.iter().map(|p| (p.offset_bytes, p.size_bytes)).collect();
        assert_eq!(parameters, source.parameters);
        assert_eq!(kernel.parameter_block_bytes, source.block_bytes);
        assert_eq!(kernel.static_shared_bytes, source.shared_bytes);
        assert_eq!(kernel.registers, source.registers);
    }
    let globals: Vec<_> =
        cubin::globals(&cubin).expect("sound").iter().map(|g| (g.name, g.size_bytes, g.space)).collect();
    use cubin::GlobalSpace::{Constant, Device};
    assert_eq!(globals, [("coeff", 16, Constant), ("table", 40, Device), ("counter", 4, Device)]);
}

#[test]
fn impossible_parameter_layouts_are_refused() {
    for (parameters, block_bytes) in [
        (vec![(0, 8), (4, 4)], 16),
        (vec![(0, 8), (8, 8)], 12),
        (vec![(8, 8), (0, 8)], 16),
        (vec![(0, 1)], 0),
    ] {
        let mut source = sample();
        source.kernels[0].parameters = parameters;
        source.kernels[0].block_bytes = block_bytes;
        let cubin = synthetic::cubin(&source);
        assert!(matches!(cubin::kernels(&cubin), Err(ImageError::Malformed { .. })));
    }
}

/// Everything that reads bytes from somebody else; what it says does not matter here, only that it returns.
fn read_everything(bytes: &[u8]) {
    _ = Image::parse(bytes);
    _ = bundle::Bundle::parse(bytes);
    _ = cubin::kernels(bytes);
    _ = cubin::globals(bytes);
    for entry in fatbin::entries(bytes).into_iter().flatten().flatten() {
        if let Ok(payload) = entry.payload() {
            _ = cubin::kernels(&payload);
            _ = cubin::globals(&payload);
        }
    }
}

proptest! {
    #[test]
    fn truncated_images_are_errors_and_never_panic(cut in any::<prop::sample::Index>()) {
        for image in [sample_container(), sample_cubin(), sample_bundle()] {
            let part = &image[..cut.index(image.len())];
            prop_assert!(Image::parse(part).is_err());
            read_everything(part);
        }
    }

    #[test]
    fn mutated_images_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..16),
        word in (any::<prop::sample::Index>(), prop::sample::select(vec![0, 1, 0x7fff_ffff, u32::MAX])),
    ) {
        for mut image in [sample_container(), sample_cubin(), sample_bundle()] {
            for (place, byte) in &changes {
                let place = place.index(image.len());
                image[place] = *byte;
            }
            let place = word.0.index(image.len() - 4);
            image[place..place + 4].copy_from_slice(&word.1.to_le_bytes());
            read_everything(&image);
        }
    }

    #[test]
    fn mutated_section_headers_never_panic(
        changes in prop::collection::vec((0..1024_usize, prop::sample::select(vec![0, 1, 2, 8, 18, 64, 255_u8])), 1..8),
    ) {
        let mut cubin = sample_cubin();
        for (place, byte) in changes {
            // Section headers are the last thing in a synthetic cubin.
            let place = cubin.len() - 1 - place % cubin.len();
            cubin[place] = byte;
        }
        read_everything(&cubin);
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let magics = [fatbin::CONTAINER_MAGIC, bundle::BUNDLE_MAGIC].map(u32::to_le_bytes);
        for magic in magics.into_iter().chain([*b"\x7fELF"]) {
            read_everything(&[&magic, &bytes[..]].concat());
        }
        read_everything(&bytes);
    }
}

/// Found by fuzzing: section header 0, which says how many there are, was read and not counted.
#[test]
fn an_elf_file_s_extent_has_the_section_header_that_is_read() {
    let mut file = vec![0; 300];
    file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
    file[40..48].copy_from_slice(&66_u64.to_le_bytes());
    file[58..60].copy_from_slice(&64_u16.to_le_bytes());
    let image = Image::parse(&file[..]).expect("an ELF file without sections");
    assert_eq!(image.bytes.len(), 66 + 64);
    assert_eq!(Image::parse(image.bytes), Ok(image));
}
