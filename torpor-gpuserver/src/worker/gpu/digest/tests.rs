//! The kernel against the same digest in Rust, on the simulated GPU or on the one that `TORPOR_TEST_DRIVER` names.

use super::*;
use crate::driver::{Driver, Mapping, PhysicalMemory, Place, Reservation};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use torpor_proto::layout::{DEVICE_WINDOW, SEGMENT_GRANULE_BYTES};

const TILE_WORDS: usize = TILE_BYTES as usize / 8;

const ARENA: AddressRange = AddressRange { address: 0x1000_0000_0000, bytes: 0x30_0000_0000 };
const HOST: AddressRange = AddressRange { address: 0x4000_0000_0000, bytes: 0x1000_0000 };
const NOWHERE: AddressRange = AddressRange { address: 0, bytes: 0 };

/// What `digest.ptx` computes.
fn reference(words: &[u64], ranges: [AddressRange; 2]) -> ChunkDigest {
    let tiles = (words.len() / TILE_WORDS).next_multiple_of(2);
    let (mut low_sum, mut high_sum) = (0_u64, 0_u64);
    for thread in 0..u64::from(THREADS) {
        let mut low = (thread + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut high = (thread + 1).wrapping_mul(0xe703_7ed1_a0b4_28db);
        for tile in 0..tiles {
            for half in 0..2 {
                let word = words.get(tile * TILE_WORDS + thread as usize * 2 + half).copied().unwrap_or(0);
                low = (low ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(32);
                high = (high ^ word).rotate_left(32).wrapping_mul(0xa076_1d64_78bd_642f);
            }
        }
        low_sum = low_sum.wrapping_add(finish(low));
        high_sum = high_sum.wrapping_add(finish(high));
    }
    let points = |word: u64| ranges.iter().any(|range| range.contains(word, 1));
    let pointers = words.iter().filter(|&&word| points(word)).count() as u64;
    let is_zero = words.iter().all(|&word| word == 0);
    ChunkDigest { low: low_sum, high: high_sum, pointers, is_zero }
}

/// The finaliser of MurmurHash3 for 64 bits.
fn finish(mut state: u64) -> u64 {
    state = (state ^ (state >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state = (state ^ (state >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ (state >> 33)
}

/// Numbers without a pattern, the same in every run.
fn noise(count: usize, seed: u64) -> Vec<u64> {
    (1..=count as u64)
        .map(|index| finish(seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
        .collect()
}

fn driver() -> PathBuf {
    if let Some(path) = std::env::var_os("TORPOR_TEST_DRIVER") {
        return path.into();
    }
    let program = std::env::current_exe().expect("this program has a path");
    let places = program.ancestors().skip(1).take(2).map(|folder| folder.join("libtorpor_simgpu.so"));
    let found = places.into_iter().find(|path| path.exists());
    found.expect("no simulated driver beside the tests: run `cargo build -p torpor-simgpu` first")
}

/// The device, current on this thread.
fn device() -> Arc<Device> {
    static DEVICE: OnceLock<Arc<Device>> = OnceLock::new();
    let open = || Device::open(Driver::load(&driver()).expect("the driver loads"), 0).expect("a device");
    let device = DEVICE.get_or_init(open);
    device.make_current().expect("the context is fine");
    device.clone()
}

fn finish_work(stream: &Stream) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match stream.query() {
            Err(CudaError::NOT_READY) => assert!(Instant::now() < deadline, "the kernel does not end"),
            other => return other.expect("the work succeeds"),
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Puts the words of chunks of equal lengths into device memory and digests them there.
fn digests(chunks: &[Vec<u64>], ranges: [AddressRange; 2]) -> Vec<ChunkDigest> {
    static NEXT: AtomicU64 = AtomicU64::new(DEVICE_WINDOW.address);
    let device = device();
    let chunk_bytes = size_of_val(chunks[0].as_slice()) as u64;
    let bytes = (chunk_bytes * chunks.len() as u64).next_multiple_of(SEGMENT_GRANULE_BYTES);
    let address = NEXT.fetch_add(bytes, Ordering::Relaxed);
    let _addresses = Reservation::exactly(&device, address, bytes).expect("addresses");
    let physical = PhysicalMemory::new(&device, bytes).expect("memory");
    let _mapping = Mapping::new(&physical, address).expect("a mapping");
    let words = chunks.concat();
    let source = PinnedArray::new(&device, words.len()).expect("page-locked memory");
    words.iter().enumerate().for_each(|(index, &word)| source.store(index, word));

    let kernel = Digests::load(&device).expect("the kernel loads");
    let buffer = DigestBuffer::new(&device, chunks.len()).expect("page-locked memory");
    let stream = Stream::new(&device, 0).expect("a stream");
    (0..chunks.len()).for_each(|index| buffer.set_chunk(index, address + index as u64 * chunk_bytes));
    // SAFETY: source, segment, kernel and buffer live until the stream's work is done, below.
    unsafe {
        stream
            .copy((Place::Device, address), (Place::Host, source.device_address(0)), words.len() * 8)
            .expect("a copy is posted");
        kernel.post(&stream, &buffer, chunks.len(), chunk_bytes, ranges).expect("the kernel is posted");
    }
    finish_work(&stream);
    (0..buffer.capacity()).map(|index| buffer.digest(index)).collect()
}

fn assert_same(found: ChunkDigest, expected: ChunkDigest) {
    assert_eq!(found, expected);
    assert_eq!((found.pointers, found.is_zero), (expected.pointers, expected.is_zero));
}

#[test]
fn the_kernel_agrees_with_the_reference() {
    for tiles in [1, 2, 3, 4, 7] {
        let chunks: Vec<_> = (0..3).map(|seed| noise(tiles * TILE_WORDS, seed)).collect();
        for (chunk, found) in chunks.iter().zip(digests(&chunks, [ARENA, HOST])) {
            assert_same(found, reference(chunk, [ARENA, HOST]));
        }
    }
}

#[test]
fn chunks_of_2_mib_are_digested() {
    let chunks = [noise((2 << 20) / 8, 1), noise((2 << 20) / 8, 2)];
    let found = digests(&chunks, [ARENA, HOST]);
    assert_same(found[0], reference(&chunks[0], [ARENA, HOST]));
    assert_same(found[1], reference(&chunks[1], [ARENA, HOST]));
    assert_ne!(found[0], found[1]);
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let original = noise(2 * TILE_WORDS, 3);
    let mut chunks = vec![original.clone()];
    // Every bit of a word once, and with these steps every kind of place in a tile, a round and a warp.
    for bit in 0..64 {
        let mut changed = original.clone();
        changed[bit * 65 % original.len()] ^= 1 << bit;
        chunks.push(changed);
    }
    let found = digests(&chunks, [ARENA, HOST]);
    for (index, digest) in found.iter().enumerate() {
        let same = found.iter().filter(|&other| other == digest).count();
        assert_eq!(same, 1, "chunk {index} has the digest of another");
        assert!(index == 0 || (digest.low != found[0].low && digest.high != found[0].high));
    }
}

#[test]
fn words_that_traded_places_are_found() {
    let original = noise(4 * TILE_WORDS, 4);
    let mut chunks = vec![original.clone()];
    // Vectors of 16 bytes: neighbours, of another warp, of another tile, of another round.
    for other in [1, 32, TILE_WORDS / 2, TILE_WORDS] {
        let mut changed = original.clone();
        (0..2).for_each(|half| changed.swap(half, other * 2 + half));
        chunks.push(changed);
    }
    // The two words of one thread's vector.
    let mut changed = original;
    changed.swap(0, 1);
    chunks.push(changed);
    let found = digests(&chunks, [ARENA, HOST]);
    for (index, digest) in found.iter().enumerate() {
        assert_eq!(found.iter().filter(|&other| other == digest).count(), 1, "chunk {index}");
    }
}

#[test]
fn zeros_and_pointers_are_counted() {
    let (first, last) = (ARENA.address, ARENA.end() - 1);
    let zeros = vec![0; TILE_WORDS];
    let mut everywhere = vec![0; TILE_WORDS];
    for (index, word) in everywhere.iter_mut().enumerate() {
        *word = if index % 2 == 0 { first } else { last };
    }
    let mut outside = vec![0; TILE_WORDS];
    (outside[0], outside[1], outside[TILE_WORDS - 1]) = (first - 1, last + 1, u64::MAX);
    let mut one = zeros.clone();
    one[TILE_WORDS - 1] = last;
    // Half a pointer in one word and half in the next is none.
    let mut across = zeros.clone();
    (across[5], across[6]) = (first << 32, first >> 32);
    let mut single_bit = zeros.clone();
    single_bit[777] = 1 << 63;
    let mut to_host = zeros.clone();
    (to_host[0], to_host[3], to_host[TILE_WORDS - 2]) = (HOST.address, HOST.end(), HOST.end() - 1);
    let chunks = [zeros, everywhere, outside, one, across, single_bit, to_host];
    let found = digests(&chunks, [ARENA, HOST]);
    let counts: Vec<_> = found.iter().map(|digest| (digest.pointers, digest.is_zero)).collect();
    let expected =
        [(0, true), (TILE_WORDS as u64, false), (0, false), (1, false), (0, false), (0, false), (2, false)];
    assert_eq!(counts, expected);
    assert!(digests(&chunks, [NOWHERE; 2]).iter().all(|digest| digest.pointers == 0));
}

#[test]
fn what_the_kernel_cannot_do_is_refused() {
    let device = device();
    let kernel = Digests::load(&device).expect("the kernel loads");
    let buffer = DigestBuffer::new(&device, 2).expect("page-locked memory");
    let stream = Stream::new(&device, 0).expect("a stream");
    // SAFETY: nothing is launched.
    let post = |count, bytes| unsafe { kernel.post(&stream, &buffer, count, bytes, [ARENA, HOST]) };
    assert_eq!(post(0, TILE_BYTES), Ok(()));
    assert_eq!(post(3, TILE_BYTES), Err(CudaError::INVALID_VALUE));
    assert_eq!(post(1, TILE_BYTES + 16), Err(CudaError::INVALID_VALUE));
    buffer.set_chunk(1, 8);
    assert_eq!(post(2, TILE_BYTES), Err(CudaError::INVALID_VALUE));
}

/// A multiplication by an odd number leaves a change of the highest bit alone: what undoes it in one half of the digest must
/// not do so in the other.
#[test]
fn no_two_bits_undo_each_other() {
    let original = noise(2 * TILE_WORDS, 5);
    let digest = reference(&original, [ARENA, HOST]);
    // Words that one thread mixes one after the other.
    for (place, next) in [(0, 1), (1, TILE_WORDS)] {
        for (bit, other_bit) in (0..64 * 64).map(|pair| (pair / 64, pair % 64)) {
            let mut changed = original.clone();
            changed[place] ^= 1 << bit;
            changed[next] ^= 1 << other_bit;
            assert_ne!(reference(&changed, [ARENA, HOST]), digest, "bits {bit} and {other_bit}");
        }
    }
}
