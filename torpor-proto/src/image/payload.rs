//! Decompression of fatbin payloads, with a limit against decompression bombs.

use super::ImageError;

/// The largest decompressed payload, in bytes. The largest in libtorch_cuda 2.11 has a few megabytes.
pub const MAX_PAYLOAD_BYTES: u64 = 1 << 30;

/// How a payload is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    /// One LZ4 block without a frame.
    Lz4,
    /// One zstd frame.
    Zstd,
}

/// Decompresses `compressed`, which must give exactly `plain_bytes` bytes.
///
/// The declared size bounds the output: nothing is written beyond it, and a larger one than [`MAX_PAYLOAD_BYTES`] is
/// refused before anything is allocated.
pub(super) fn decompress(
    compression: Compression,
    compressed: &[u8],
    plain_bytes: u64,
) -> Result<Vec<u8>, ImageError> {
    let too_large =
        ImageError::TooLarge { what: "decompressed payload", bytes: plain_bytes, maximum: MAX_PAYLOAD_BYTES };
    if plain_bytes > MAX_PAYLOAD_BYTES {
        return Err(too_large);
    }
    let capacity = usize::try_from(plain_bytes).map_err(|_| too_large)?;
    let (method, result) = match compression {
        Compression::Lz4 => ("LZ4", lz4(compressed, capacity)),
        Compression::Zstd => {
            ("zstd", zstd::bulk::decompress(compressed, capacity).map_err(|error| error.to_string()))
        }
    };
    let failed = |reason| ImageError::Decompression { method, expected: plain_bytes, reason };
    let plain = result.map_err(failed)?;
    if plain.len() != capacity {
        return Err(failed(format!("it gives {} bytes", plain.len())));
    }
    Ok(plain)
}

/// LZ4 gives at most 255 bytes for one, so a small block that declares a large size is refused before allocating.
fn lz4(compressed: &[u8], capacity: usize) -> Result<Vec<u8>, String> {
    if capacity / 255 > compressed.len() {
        return Err("no LZ4 block of this size gives as much".to_owned());
    }
    let mut plain = vec![0; capacity];
    let written =
        lz4_flex::block::decompress_into(compressed, &mut plain).map_err(|error| error.to_string())?;
    plain.truncate(written);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(compression: Compression, plain: &[u8]) -> Vec<u8> {
        match compression {
            Compression::Lz4 => lz4_flex::block::compress(plain),
            Compression::Zstd => zstd::bulk::compress(plain, 3).expect("zstd compresses"),
        }
    }

    #[test]
    fn both_methods_give_back_what_went_in() {
        let plain: Vec<u8> = (0..10_000_u32).flat_map(|word| (word / 7).to_le_bytes()).collect();
        for compression in [Compression::Lz4, Compression::Zstd] {
            let stored = compressed(compression, &plain);
            assert_eq!(decompress(compression, &stored, plain.len() as u64).expect("sound"), plain);
        }
    }

    #[test]
    fn another_size_than_declared_is_refused() {
        for compression in [Compression::Lz4, Compression::Zstd] {
            let stored = compressed(compression, &[7; 4096]);
            for declared in [0, 1, 4095, 4097, 8192] {
                let result = decompress(compression, &stored, declared);
                assert!(
                    matches!(result, Err(ImageError::Decompression { .. })),
                    "{compression:?} {declared}"
                );
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_unpacked() {
        let stored = compressed(Compression::Zstd, &[0; 4096]);
        let result = decompress(Compression::Zstd, &stored, MAX_PAYLOAD_BYTES + 1);
        assert!(matches!(result, Err(ImageError::TooLarge { .. })));
        let result = decompress(Compression::Lz4, &[0; 16], MAX_PAYLOAD_BYTES);
        assert!(matches!(result, Err(ImageError::Decompression { .. })));
    }
}
