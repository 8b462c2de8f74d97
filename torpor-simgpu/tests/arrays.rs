//! Arrays, texture and surface objects, and copies between arrays and memory.

mod common;

use common::*;
use torpor_simgpu::abi::{
    Array3dDescriptor, ArrayDescriptor, Memcpy2d, Memcpy3d, ResourceDesc, ResourceViewDesc, TextureDesc,
};

/// `CU_AD_FORMAT_UNSIGNED_INT32`
const WORD: u32 = 3;

/// `CU_MEMORYTYPE_HOST`, `…_DEVICE`, `…_ARRAY`
const HOST: u32 = 1;
const DEVICE: u32 = 2;
const ARRAY: u32 = 3;

fn words(width: usize, height: usize, depth: usize, flags: u32) -> Array3dDescriptor {
    Array3dDescriptor { width, height, depth, format: WORD, channels: 1, flags }
}

fn array(descriptor: Array3dDescriptor) -> u64 {
    let mut array = 0;
    assert_eq!(cuArray3DCreate_v2(&mut array, &descriptor), SUCCESS);
    array
}

fn over(kind: u32, words: &[u64]) -> ResourceDesc {
    let mut resource = ResourceDesc { kind, ..ResourceDesc::default() };
    resource.value[..words.len()].copy_from_slice(words);
    resource
}

#[test]
fn boxes_go_into_arrays_and_come_back() {
    passes("boxes_go_into_arrays_and_come_back", &[], || {
        use_device(0);
        let (mut free, mut total) = (0, 0);
        assert_eq!(cuMemGetInfo_v2(&mut free, &mut total), SUCCESS);
        let cube = array(words(8, 4, 3, 0));
        let numbers: Vec<u32> = (0..8 * 4 * 3).collect();
        let whole = Memcpy3d {
            src_type: HOST,
            src_host: numbers.as_ptr() as u64,
            src_pitch: 32,
            src_height: 4,
            dst_type: ARRAY,
            dst_array: cube,
            width_bytes: 32,
            height: 4,
            depth: 3,
            ..Memcpy3d::default()
        };
        assert_eq!(cuMemcpy3D_v2(&whole), SUCCESS);
        // A part of it, to the device, through another array.
        let (flat, device) = (array(words(4, 2, 0, 0)), allocate(1024));
        let part = Memcpy3d {
            src_type: ARRAY,
            src_array: cube,
            src_x_bytes: 8,
            src_y: 1,
            src_z: 2,
            dst_type: ARRAY,
            dst_array: flat,
            width_bytes: 16,
            height: 2,
            depth: 1,
            ..Memcpy3d::default()
        };
        assert_eq!(cuMemcpy3D_v2(&part), SUCCESS);
        let out = Memcpy2d {
            src_type: ARRAY,
            src_array: flat,
            dst_type: DEVICE,
            dst_device: device,
            dst_pitch: 32,
            width_bytes: 16,
            height: 2,
            ..Memcpy2d::default()
        };
        assert_eq!(cuMemcpy2D_v2(&out), SUCCESS);
        assert_eq!(get::<u32>(device, 4), [74, 75, 76, 77]);
        assert_eq!(get::<u32>(device + 32, 4), [82, 83, 84, 85]);
        // What does not lie in the array is refused, and so is the array where an address is wanted.
        for wrong in [
            Memcpy2d { src_x_bytes: 4, ..out },
            Memcpy2d { src_y: 1, ..out },
            Memcpy2d { src_x_bytes: usize::MAX, ..out },
            Memcpy2d { width_bytes: 15, ..out },
            Memcpy2d { dst_type: DEVICE, dst_device: flat, ..out },
        ] {
            assert_eq!(cuMemcpy2D_v2(&wrong), INVALID_VALUE, "{wrong:?}");
        }
        assert_eq!(cuMemcpy2D_v2(&Memcpy2d { src_array: 7, ..out }), INVALID_HANDLE);
        let mut bytes = [0_u8; 4];
        assert_eq!(cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), cube, 4), INVALID_VALUE);
        assert_eq!(cuMemFree_v2(device), SUCCESS);
        for array in [cube, flat] {
            assert_eq!(cuArrayDestroy(array), SUCCESS);
            assert_eq!(cuArrayDestroy(array), INVALID_HANDLE);
        }
        let mut now = 0;
        assert_eq!(cuMemGetInfo_v2(&mut now, &mut total), SUCCESS);
        assert_eq!(now, free, "their memory has come back");
    });
}

#[test]
fn arrays_say_what_they_are_and_some_cannot_be() {
    passes("arrays_say_what_they_are_and_some_cannot_be", &[], || {
        use_device(0);
        let descriptor = words(8, 4, 3, 1);
        let layered = array(descriptor);
        let mut said = Array3dDescriptor::default();
        assert_eq!(cuArray3DGetDescriptor_v2(&mut said, layered), SUCCESS);
        assert_eq!(said, descriptor);
        let mut flat = ArrayDescriptor::default();
        assert_eq!(cuArrayGetDescriptor_v2(&mut flat, layered), SUCCESS);
        assert_eq!(flat, ArrayDescriptor { width: 8, height: 4, format: WORD, channels: 1 });
        for wrong in [
            words(0, 0, 0, 0),
            words(8, 0, 8, 0),
            words(8, 4, 0, 1),
            words(8, 4, 6, 4),
            words(1 << 20, 0, 0, 0),
            words(8, 4, 0, 0x80),
            Array3dDescriptor { channels: 3, ..words(8, 4, 0, 0) },
            Array3dDescriptor { format: 5, ..words(8, 4, 0, 0) },
        ] {
            assert_eq!(cuArray3DCreate_v2(&mut 0, &wrong), INVALID_VALUE, "{wrong:?}");
        }
        let (mut levels, mut level) = (0, 0);
        assert_eq!(cuMipmappedArrayCreate(&mut levels, &words(8, 4, 0, 0), 5), INVALID_VALUE);
        assert_eq!(cuMipmappedArrayCreate(&mut levels, &words(8, 4, 0, 0), 4), SUCCESS);
        assert_eq!(cuMipmappedArrayGetLevel(&mut level, levels, 4), INVALID_VALUE);
        assert_eq!(cuMipmappedArrayGetLevel(&mut level, levels, 2), SUCCESS);
        assert_eq!(cuArray3DGetDescriptor_v2(&mut said, level), SUCCESS);
        assert_eq!(said, words(2, 1, 0, 0));
        assert_eq!(cuArrayDestroy(level), INVALID_HANDLE, "a level goes with the whole");
        assert_eq!(cuMipmappedArrayDestroy(levels), SUCCESS);
        assert_eq!(cuArray3DGetDescriptor_v2(&mut said, level), INVALID_HANDLE);
    });
}

#[test]
fn objects_are_over_arrays_and_memory() {
    passes("objects_are_over_arrays_and_memory", &[], || {
        use_device(0);
        let (plain, for_surfaces) = (array(words(8, 4, 0, 0)), array(words(8, 4, 0, 2)));
        let sampler = TextureDesc { filter_mode: 1, ..TextureDesc::default() };
        let device = allocate(4096);
        let element = u64::from(WORD) | 1 << 32;
        let make = |resource: ResourceDesc| {
            let mut texture = 0;
            let made = cuTexObjectCreate(&mut texture, &resource, &sampler, std::ptr::null());
            (made, texture)
        };
        let (made, texture) = make(over(0, &[plain]));
        assert_eq!(made, SUCCESS);
        let (mut resource, mut said) = (ResourceDesc::default(), TextureDesc::default());
        assert_eq!(cuTexObjectGetResourceDesc(&mut resource, texture), SUCCESS);
        assert_eq!((resource.kind, resource.value[0]), (0, plain));
        assert_eq!(cuTexObjectGetTextureDesc(&mut said, texture), SUCCESS);
        assert_eq!(said.filter_mode, 1);
        assert_eq!(cuTexObjectGetResourceViewDesc(&mut ResourceViewDesc::default(), texture), INVALID_VALUE);
        assert_eq!(make(over(2, &[device, element, 4096])).0, SUCCESS);
        assert_eq!(make(over(3, &[device, element, 16, 8, 512])).0, SUCCESS);
        for (wrong, why) in [
            (over(2, &[device, element, 4 << 20]), "beyond the allocation"),
            (over(2, &[device + 4, element, 64]), "not aligned"),
            (over(2, &[0, element, 64]), "nowhere"),
            (over(3, &[device, element, 200, 8, 512]), "wider than the pitch"),
            (over(3, &[device, element, 16, 8, 500]), "a pitch that is not aligned"),
            (over(4, &[plain]), "no kind"),
        ] {
            assert_eq!(make(wrong).0, INVALID_VALUE, "{why}");
        }
        assert_eq!(make(over(0, &[5])).0, INVALID_HANDLE);
        let mut surface = 0;
        assert_eq!(cuSurfObjectCreate(&mut surface, &over(0, &[plain])), INVALID_VALUE);
        assert_eq!(cuSurfObjectCreate(&mut surface, &over(0, &[for_surfaces])), SUCCESS);
        assert_eq!(cuSurfObjectGetResourceDesc(&mut resource, surface), SUCCESS);
        assert_eq!(resource.value[0], for_surfaces);
        assert_eq!(cuTexObjectDestroy(surface), INVALID_VALUE);
        assert_eq!((cuSurfObjectDestroy(surface), cuTexObjectDestroy(texture)), (SUCCESS, SUCCESS));
        assert_eq!(cuTexObjectDestroy(texture), INVALID_VALUE);
    });
}

#[test]
fn an_object_has_the_lowest_handle_that_is_free_or_a_new_one() {
    for setting in ["in-word", "new"] {
        let name = "an_object_has_the_lowest_handle_that_is_free_or_a_new_one";
        passes(name, &[("HANDLES", setting)], || {
            use_device(0);
            let array = array(words(8, 4, 0, 2));
            let texture = || {
                let mut texture = 0;
                let sampler = TextureDesc::default();
                let made = cuTexObjectCreate(&mut texture, &over(0, &[array]), &sampler, std::ptr::null());
                assert_eq!(made, SUCCESS);
                texture
            };
            let (first, second) = (texture(), texture());
            assert_eq!(second, first + 1);
            assert_eq!(cuTexObjectDestroy(first), SUCCESS);
            let mut surface = 0;
            assert_eq!(cuSurfObjectCreate(&mut surface, &over(0, &[array])), SUCCESS);
            let reused = std::env::var("TORPOR_SIMGPU_HANDLES").is_ok_and(|setting| setting == "in-word");
            assert_eq!(surface, if reused { first } else { second + 1 });
            if reused {
                let word: Vec<u64> = (second..64).map(|_| texture()).collect();
                assert_eq!((word.len() as u64, word.last()), (64 - second, Some(&64)));
                assert_eq!(cuTexObjectDestroy(first + 1), SUCCESS);
                assert_eq!(texture(), first + 1, "the word has one again");
                assert_eq!(texture(), 65);
                assert_eq!(cuTexObjectDestroy(first + 1), SUCCESS);
                assert_eq!(texture(), 66, "the last word is another one now");
            }
        });
    }
}

/// Reads textures and surfaces: one thread an element.
const KERNELS: &str = include_str!("arrays.ptx");

fn texture_of(array: u64, sampler: TextureDesc) -> u64 {
    let mut texture = 0;
    assert_eq!(cuTexObjectCreate(&mut texture, &over(0, &[array]), &sampler, std::ptr::null()), SUCCESS);
    texture
}

fn fill<T: Copy>(array: u64, values: &[T], width: usize, height: usize) {
    let copy = Memcpy2d {
        src_type: HOST,
        src_host: values.as_ptr() as u64,
        src_pitch: width * size_of::<T>(),
        dst_type: ARRAY,
        dst_array: array,
        width_bytes: width * size_of::<T>(),
        height,
        ..Memcpy2d::default()
    };
    assert_eq!(cuMemcpy2D_v2(&copy), SUCCESS);
}

#[test]
fn kernels_read_textures_as_their_samplers_say() {
    passes("kernels_read_textures_as_their_samplers_say", &[], || {
        use_device(0);
        let module = module(KERNELS).expect("PTX loads");
        let out = allocate(4096);
        let row = array(Array3dDescriptor { format: 0x20, ..words(4, 0, 0, 0) });
        fill(row, &[1.0_f32, 3.0, 7.0, 15.0], 4, 1);
        let read = |texture: u64, step: f32, offset: f32, count: u32| {
            let parameters = [out, texture, step.to_bits().into(), offset.to_bits().into()];
            assert_eq!(launch(function(module, c"fetch_1d"), 1, count, 0, &parameters), SUCCESS);
            assert_eq!(cuCtxSynchronize(), SUCCESS);
            get::<f32>(out, count as usize)
        };
        let mode = |mode: u32, filter_mode: u32, flags: u32| {
            let border_color = [9.0; 4];
            texture_of(
                row,
                TextureDesc {
                    address_modes: [mode; 3],
                    filter_mode,
                    flags,
                    border_color,
                    ..TextureDesc::default()
                },
            )
        };
        // Two before the beginning and two behind the end.
        assert_eq!(read(mode(1, 0, 0), 1.0, -1.5, 8), [1.0, 1.0, 1.0, 3.0, 7.0, 15.0, 15.0, 15.0]);
        assert_eq!(read(mode(3, 0, 0), 1.0, -1.5, 8), [9.0, 9.0, 1.0, 3.0, 7.0, 15.0, 9.0, 9.0]);
        assert_eq!(read(mode(0, 0, 2), 0.25, -0.375, 8), [7.0, 15.0, 1.0, 3.0, 7.0, 15.0, 1.0, 3.0]);
        assert_eq!(read(mode(2, 0, 2), 0.25, -0.375, 8), [3.0, 1.0, 1.0, 3.0, 7.0, 15.0, 15.0, 7.0]);
        assert_eq!(read(mode(1, 1, 0), 0.5, 0.5, 7), [1.0, 2.0, 3.0, 5.0, 7.0, 11.0, 15.0]);

        let plane = array(words(4, 3, 0, 0));
        let numbers: Vec<u32> = (100..112).collect();
        fill(plane, &numbers, 4, 3);
        let texture = texture_of(plane, TextureDesc { flags: 1, ..TextureDesc::default() });
        assert_eq!(launch(function(module, c"fetch_2d"), 1, 12, 0, &[out, texture, 4]), SUCCESS);
        assert_eq!(cuCtxSynchronize(), SUCCESS);
        assert_eq!(get::<u32>(out, 12), numbers);

        let memory = allocate(64);
        put(memory, &numbers);
        let (mut linear, resource) = (0, over(2, &[memory, u64::from(WORD) | 1 << 32, 48]));
        assert_eq!(
            cuTexObjectCreate(&mut linear, &resource, &TextureDesc::default(), std::ptr::null()),
            SUCCESS
        );
        assert_eq!(launch(function(module, c"fetch_row"), 1, 14, 0, &[out, linear]), SUCCESS);
        assert_eq!(cuCtxSynchronize(), SUCCESS);
        assert_eq!(get::<u32>(out, 14), [numbers, vec![0, 0]].concat(), "beyond its end there is nothing");
    });
}

#[test]
fn kernels_read_and_write_surfaces() {
    passes("kernels_read_and_write_surfaces", &[], || {
        use_device(0);
        let module = module(KERNELS).expect("PTX loads");
        let halves = Array3dDescriptor { format: 2, channels: 2, ..words(8, 2, 0, 2) };
        let (from, to) = (array(halves), array(halves));
        let numbers: Vec<u16> = (0..32).collect();
        fill(from, &numbers, 16, 2);
        fill(to, &[0_u16; 32], 16, 2);
        let surface_of = |array| {
            let mut surface = 0;
            assert_eq!(cuSurfObjectCreate(&mut surface, &over(0, &[array])), SUCCESS);
            surface
        };
        let (reads, writes) = (surface_of(from), surface_of(to));
        assert_eq!(launch(function(module, c"swap"), 1, 8, 0, &[reads, writes]), SUCCESS);
        assert_eq!(cuCtxSynchronize(), SUCCESS);
        let back = [0_u16; 16];
        let copy = Memcpy2d {
            src_type: ARRAY,
            src_array: to,
            src_y: 1,
            dst_type: HOST,
            dst_host: back.as_ptr() as u64,
            dst_pitch: 32,
            width_bytes: 32,
            height: 1,
            ..Memcpy2d::default()
        };
        assert_eq!(cuMemcpy2D_v2(&copy), SUCCESS);
        let expected: Vec<u16> = (16..32).map(|number| number ^ 1).collect();
        // SAFETY: what the driver wrote is read as such.
        assert_eq!(unsafe { std::ptr::from_ref(&back).read_volatile() }.to_vec(), expected);
        // Outside: nothing, the nearest, an error.
        assert_eq!(launch(function(module, c"beyond"), 1, 1, 0, &[writes]), SUCCESS);
        assert_eq!(cuCtxSynchronize(), ILLEGAL_ADDRESS);
    });
}
