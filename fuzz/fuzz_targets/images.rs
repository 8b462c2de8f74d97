//! Fatbins, cubins, PTX and bundles as a client may upload them: readers never panic, never read outside, and agree with each other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use torpor_proto::image::{self, Image, ImageKind, bundle::Bundle, cubin, fatbin};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(image) = Image::parse(bytes) {
        assert!(bytes.starts_with(image.bytes), "an image is the beginning of what it was found in");
        assert_eq!(
            Image::parse(image.bytes).as_ref(),
            Ok(&image),
            "an image's extent does not depend on what follows"
        );
        if image.kind == ImageKind::Bundle {
            let found = Bundle::parse(image.bytes).expect("a bundle was looked at");
            assert_eq!(Bundle::parse(&found.to_bytes()), Ok(found.clone()), "it stays as it is");
        }
    }
    read_cubin(bytes);
    if let Ok(entries) = fatbin::entries(bytes) {
        for entry in entries.map_while(Result::ok) {
            if let Ok(payload) = entry.payload() {
                read_cubin(&payload);
            }
        }
    }
    if let Some(narrowed) = image::for_gpu(bytes, 90) {
        let entries = fatbin::entries(&narrowed).expect("a narrowed container is one");
        assert!(entries.clone().all(|entry| entry.is_ok()), "a narrowed container is whole");
        assert_eq!(image::for_gpu(&narrowed, 90), None, "narrowing twice is narrowing once");
    }
});

fn read_cubin(bytes: &[u8]) {
    if let Ok(kernels) = cubin::kernels(bytes) {
        for kernel in kernels {
            for parameter in kernel.parameters {
                let end = u64::from(parameter.offset_bytes) + u64::from(parameter.size_bytes);
                assert!(end <= u64::from(kernel.parameter_block_bytes), "an argument outside of its block");
            }
        }
    }
    let _ = cubin::globals(bytes);
}
