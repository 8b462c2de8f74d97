//! Images: code that is uploaded, found, kept and refused.

#[path = "server_support/eventually.rs"]
mod eventually;
mod worker_support;

use eventually::eventually;
use std::path::{Path, PathBuf};
use torpor_proto::command::{
    ImageErrors, ImageKernels, ImageLoad, ImageLoadReply, ImageUnload, ImageUpload, KernelResolve, Ping,
};
use torpor_proto::control::worker::{Attach, Begin};
use torpor_proto::error::CudaError;
use torpor_proto::image::bundle::{Bundle, Input, InputKind};
use worker_support::client::hash;
use worker_support::kernels::{PTX, image};
use worker_support::{Client, Worker};

const MIB: u64 = 1 << 20;

/// A kernel that stores what another text's variable holds.
const STORE_STEP: &[u8] =
    b".version 8.0\n.target sm_80\n.address_size 64\n.extern .global .align 4 .u32 step;
.visible .entry store_step(.param .u64 out) { .reg .b32 %r; .reg .b64 %d; ld.param.u64 %d, [out];
cvta.to.global.u64 %d, %d; ld.global.u32 %r, [step]; st.global.u32 [%d], %r; ret; }\n\0";

/// A kernel that calls what no text has.
const CALLS_NOTHING: &[u8] = b".version 8.0\n.target sm_80\n.address_size 64\n.extern .func nothing();
.visible .entry calls() { call nothing; ret; }\n\0";

/// A linker's inputs, as a program's library brings them.
fn bundle(inputs: &[(InputKind, &[u8])]) -> Vec<u8> {
    let inputs = inputs.iter().map(|&(kind, bytes)| Input { kind, bytes }).collect();
    Bundle { choices: Vec::new(), inputs }.to_bytes()
}

/// The files of images in a directory, beside which lies what was compiled of them.
fn images_in(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_none()).collect()
}

#[test]
fn a_kernel_runs_for_two_clients_and_is_uploaded_once() {
    let mut worker = Worker::start();
    let mut first = worker.attach(0);
    first.load_kernels();
    assert_eq!(images_in(worker.images()).len(), 1);
    let mut second = worker.attach(1);
    let contents = image();
    let load = ImageLoad { image: 1, reserved: 0, bytes: contents.len() as u64, hash: hash(&contents) };
    assert_eq!(second.ask(load), Ok(ImageLoadReply { known: 1 }));
    let parameters = second.resolve(1, 1, "add_step").unwrap();
    let expected: Vec<u8> = [0_u32, 8, 8, 4].iter().flat_map(|number| number.to_le_bytes()).collect();
    assert_eq!(parameters, expected, "offset and length of each parameter");
    for client in [&mut first, &mut second] {
        let address = client.allocate(0, 2 * MIB).unwrap();
        client.add_step(address, 1000, 0);
        client.add_step(address, 999, 0);
        client.settle().unwrap();
        let words = client.words(address, 1001);
        assert_eq!((words[0], words[998], words[999], words[1000]), (6, 6, 3, 0));
    }
    assert_eq!(first.resolve(1, 9, "no_such_kernel"), Err(CudaError::NOT_FOUND));
    assert_eq!(first.resolve(7, 9, "add_step"), Err(CudaError::INVALID_HANDLE));
    assert_eq!(first.resolve(1, 1, "add_step"), Err(CudaError::INVALID_VALUE), "the number is in use");
    assert_eq!(first.resolve(1, 1 << 20, "add_step"), Err(CudaError::OUT_OF_MEMORY));
    let (reply, names) = first.ask_all(ImageKernels { image: 1, first: 0 }, &[]).unwrap();
    assert_eq!((reply.total, reply.count), (6, 6));
    let mut names: Vec<_> = names.split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [b"add_step".as_slice(), b"add_through", b"add_through_map", b"add_through_tables", b"poke", b"spin"]
    );
    let (reply, names) = first.ask_all(ImageKernels { image: 1, first: u32::MAX }, &[]).unwrap();
    assert_eq!((reply.total, reply.count, names.len()), (6, 0, 0));
    first.post(ImageUnload { image: 1, reserved: 0 }, &[]);
    first.settle().unwrap();
    first.add_step(first.arena.address, 10, 0);
    assert_eq!(first.settle(), Err(CudaError::INVALID_HANDLE), "its kernels go with an image");
    second.add_step(second.arena.address, 10, 0);
    second.settle().unwrap();
}

#[test]
fn another_worker_finds_the_image_in_its_file() {
    let mut worker = Worker::start();
    worker.attach(0).load_kernels();
    let file = images_in(worker.images()).remove(0);
    let mut other = Worker::start();
    std::fs::copy(&file, other.images().join(file.file_name().unwrap())).unwrap();
    let mut client = other.attach(0);
    let contents = image();
    let load = ImageLoad { image: 1, reserved: 0, bytes: contents.len() as u64, hash: hash(&contents) };
    assert_eq!(client.ask(load), Ok(ImageLoadReply { known: 1 }));
    client.resolve(1, 1, "add_step").unwrap();
}

#[test]
fn images_that_nobody_uses_leave_the_gpu() {
    let unlike = |number: u32| [format!("{PTX}// {number}").as_bytes(), b"\0"].concat();
    let limit = 3 * unlike(0).len() as u64;
    let mut worker = Worker::start_told(&[], Begin { code_limit_bytes: limit, ..Worker::begin_message() });
    let mut client = worker.attach(0);
    client.load_kernels();
    let address = client.allocate(0, 2 * MIB).unwrap();
    for number in 0..10 {
        client.load_image(2, &unlike(number)).unwrap();
        client.resolve(2, 20, "add_step").unwrap();
        client.post(ImageUnload { image: 2, reserved: 0 }, &[]);
        client.settle().unwrap();
    }
    let loaded = worker.usage().code_bytes;
    assert!((1..=limit).contains(&loaded), "{loaded} bytes are loaded, {limit} may be");
    client.add_step(address, 1, 0);
    assert_eq!(client.words(address, 1), [3], "what is used stays");
}

#[test]
fn nobody_waits_for_others_kernels_to_give_an_image_up() {
    let mut worker = Worker::start();
    let [mut client, mut other] = [0, 1].map(|slot| worker.attach(slot));
    other.load_kernels();
    client.load_kernels();
    client.load_state();
    // An instance of its own, for its variable.
    let (step, _) = client.variable(1, "step").unwrap();
    client.upload(step, &100_u32.to_le_bytes());
    let out = client.allocate(0, 2 * MIB).unwrap();
    other.spin();
    other.ask(Ping {}).unwrap();
    client.add_step(out, 1, 0);
    assert_eq!(client.words(out, 1), [100]);
    client.post(ImageUnload { image: 1, reserved: 0 }, &[]);
    // Kernels that are known.
    client.load_kernels();
    client.add_step(out, 1, 0);
    assert_eq!(client.words(out, 1), [103]);
    worker.detach(client.id);
    let mut next = worker.attach(2);
    next.load_kernels();
    let out = next.allocate(0, 2 * MIB).unwrap();
    next.add_step(out, 1, 0);
    assert_eq!(next.words(out, 1), [3]);
    let waiting = worker.usage().free_memory_bytes;
    other.stop_spinning();
    other.settle().unwrap();
    eventually("they are unloaded", || worker.usage().free_memory_bytes > waiting);
}

#[test]
fn nobody_waits_for_an_image_that_the_driver_takes_long_to_load() {
    // The first is the worker's own.
    let unlike = [format!("{PTX}// another one").as_bytes(), b"\0"].concat();
    let mut worker = Worker::start_with(&[("TORPOR_SIMGPU_FAULTS", "call:cuLibraryLoadData@2:hang")]);
    let [mut client, mut other] = [0, 1].map(|slot| worker.attach(slot));
    client.load_image(1, &image()).unwrap();
    client.ask_later(KernelResolve { image: 1, kernel: 1 }, b"add_step");
    let is_compiled = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "cubin");
    eventually("the driver is next", || {
        let files = std::fs::read_dir(worker.images()).unwrap();
        files.map(|file| file.unwrap().path()).any(|file| is_compiled(&file))
    });
    assert_eq!(worker.usage().code_bytes, 0, "it is not loaded yet");
    other.load_image(1, &unlike).unwrap();
    other.resolve(1, 1, "add_step").unwrap();
    assert!(worker.usage().code_bytes > 0);
}

#[test]
fn a_function_uses_as_much_code_as_it_may() {
    let unlike = |number: u32| [format!("{PTX}// {number}").as_bytes(), b"\0"].concat();
    let limit = unlike(0).len() as u64 * 5 / 2;
    let mut worker = Worker::start();
    let [mut client, mut other] = [0, 1].map(|slot| {
        let attach = Attach { image_limit_bytes: limit, ..Worker::attach_message(slot) };
        worker.attach_as(attach)
    });
    client.load_image(1, &unlike(1)).unwrap();
    client.load_image(2, &unlike(2)).unwrap();
    other.load_image(1, &unlike(1)).unwrap();
    assert_eq!(other.load_image(2, &unlike(3)), Err(CudaError::OUT_OF_MEMORY), "both are of one function");
    let used = worker.usage().clients[0].function_image_bytes;
    assert_eq!(used, 2 * unlike(0).len() as u64);
    client.post(ImageUnload { image: 2, reserved: 0 }, &[]);
    client.settle().unwrap();
    other.load_image(2, &unlike(3)).unwrap();
}

#[test]
fn bad_images_are_refused_before_the_driver_sees_them() {
    let mut worker = Worker::start();
    let mut client = worker.attach(0);
    let container =
        [0xba55_ed50_u32.to_le_bytes().to_vec(), vec![1, 0, 16, 0], 4096_u64.to_le_bytes().to_vec()];
    let truncated_container = container.concat();
    let truncated_elf = [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 100]].concat();
    for contents in [truncated_container.as_slice(), &truncated_elf, PTX.as_bytes(), b"\x01\x02\x03\x04"] {
        assert_eq!(client.load_image(1, contents), Err(CudaError::INVALID_IMAGE), "{:?}", &contents[..4]);
    }
    let contents = image();
    let total_bytes = contents.len() as u64;
    let source = client.write_host(0, &contents);
    let whole = ImageUpload { hash: hash(&contents), total_bytes, offset: 0, source, bytes: total_bytes };
    let host_end = client.host.end();
    for (wrong, error) in [
        (ImageUpload { hash: [1, 2, 3, 4], ..whole }, CudaError::INVALID_IMAGE),
        (ImageUpload { offset: 8, bytes: 8, ..whole }, CudaError::INVALID_VALUE),
        (ImageUpload { bytes: total_bytes + 1, ..whole }, CudaError::INVALID_VALUE),
        (ImageUpload { offset: u64::MAX, ..whole }, CudaError::INVALID_VALUE),
        (ImageUpload { bytes: u64::MAX, total_bytes: u64::MAX, ..whole }, CudaError::OUT_OF_MEMORY),
        (ImageUpload { source: host_end - 1, ..whole }, CudaError::INVALID_VALUE),
        (ImageUpload { source: 0x1000, ..whole }, CudaError::INVALID_VALUE),
        (ImageUpload { source: client.arena.address, ..whole }, CudaError::INVALID_VALUE),
    ] {
        client.post(wrong, &[]);
        assert_eq!(client.settle(), Err(error), "{wrong:?}");
    }
    assert_eq!(std::fs::read_dir(worker.images()).unwrap().count(), 0);
    client.load_image(1, &contents).unwrap();
    // PTX that is whole but makes no sense is for the driver to refuse.
    client.load_image(2, b".version 8.0\n.target sm_80\n.address_size 64\nnonsense!\n\0").unwrap();
    assert!(client.resolve(2, 9, "nonsense").is_err());
    client.ask(Ping {}).unwrap();
    assert_eq!(client.load_image(65_536, &contents), Err(CudaError::OUT_OF_MEMORY));
}

#[test]
fn the_inputs_of_a_linker_are_one_image_with_variables_of_each_client() {
    let mut worker = Worker::start();
    let contents = bundle(&[(InputKind::Ptx, &image()), (InputKind::Ptx, STORE_STEP)]);
    let [mut client, mut other] = [0, 1].map(|slot| worker.attach(slot));
    for (client, step) in [(&mut client, 100_u32), (&mut other, 7)] {
        client.load_image(1, &contents).unwrap();
        client.resolve(1, 1, "add_step").unwrap();
        client.resolve(1, 2, "store_step").unwrap();
        let (variable, bytes) = client.variable(1, "step").unwrap();
        assert_eq!(bytes, 4);
        let out = client.allocate(0, 2 * MIB).unwrap();
        client.launch_at(2, out, 0);
        assert_eq!(client.words(out, 1), [3]);
        client.upload(variable, &step.to_le_bytes());
        client.add_step(out, 1, 0);
        client.launch_at(2, out + 4, 0);
        assert_eq!(client.words(out, 2), [3 + step, step]);
        let (reply, _) = client.ask_all(ImageKernels { image: 1, first: 0 }, &[]).unwrap();
        assert_eq!(reply.total, 7, "kernels of both");
    }
    assert_eq!(images_in(worker.images()).len(), 1, "it is uploaded once");
    assert_eq!(std::fs::read_dir(worker.images()).unwrap().count(), 2, "and linked once");
}

#[test]
fn of_a_bad_bundle_only_who_brings_it_hears() {
    let mut worker = Worker::start();
    let [mut client, mut other] = [0, 1].map(|slot| worker.attach(slot));
    other.load_kernels();
    let whole = bundle(&[(InputKind::Ptx, &image()), (InputKind::Ptx, STORE_STEP)]);
    let with = |offset: usize, word: u64| {
        let mut contents = whole.clone();
        contents[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
        contents
    };
    let nested = bundle(&[(InputKind::Cubin, &whole)]);
    let cut = whole[..whole.len() - 8].to_vec();
    for contents in [cut, with(8, 1 << 40), with(16, 3), with(16, 0), with(24, 9), with(32, 1 << 40), nested]
    {
        assert_eq!(client.load_image(1, &contents), Err(CudaError::INVALID_IMAGE));
    }
    // What is whole is for the driver to refuse.
    let nonsense = &b".version 8.0\n.target sm_80\n.address_size 64\nnonsense!\n\0"[..];
    let sound = (InputKind::Ptx, &image()[..]);
    for (image, inputs, error) in [
        (1, [sound, (InputKind::Ptx, nonsense)], CudaError::INVALID_PTX),
        (2, [sound, (InputKind::Library, b"!<arch>\n")], CudaError::INVALID_IMAGE),
        (3, [sound, (InputKind::Ptx, CALLS_NOTHING)], CudaError::UNKNOWN),
        (4, [sound, sound], CudaError::UNKNOWN),
    ] {
        client.load_image(image, &bundle(&inputs)).unwrap();
        assert_eq!(client.resolve(image, 9, "add_step"), Err(error), "image {image}");
    }
    let errors = |client: &mut Client, image, first| {
        client.ask_all(ImageErrors { image, first }, &[]).map(|(reply, said)| (reply.total as usize, said))
    };
    let (total, said) = errors(&mut client, 3, 0).unwrap();
    assert!(said.starts_with(b"ptxas fatal   : ") && total == said.len(), "{said:?}");
    assert_eq!(errors(&mut client, 3, 9), Ok((total, said[9..].to_vec())));
    assert_eq!(errors(&mut client, 3, u32::MAX), Ok((total, Vec::new())));
    assert_eq!(errors(&mut client, 77, 0), Err(CudaError::INVALID_HANDLE));
    client.ask(Ping {}).unwrap();
    let out = other.allocate(0, 2 * MIB).unwrap();
    other.add_step(out, 1, 0);
    assert_eq!(other.words(out, 1), [3]);
}
