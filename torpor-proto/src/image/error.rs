//! Why an image was refused.

use thiserror::Error;

/// Why bytes, or the memory behind a pointer, are not an image that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The image pointer, or a pointer inside a fatbin wrapper, is null.
    #[error("no image: the {0} pointer is null; pass the address of a fatbin, a cubin or PTX text")]
    Null(&'static str),
    /// Neither a fatbin, nor a 64-bit ELF file, nor text.
    #[error(
        "not a GPU image: it starts with {first:#010x}, which is no fatbin, no 64-bit ELF file and no PTX text; \
         check what the program passes to the module loader"
    )]
    Unrecognised {
        /// The first four bytes, little-endian; zero where there are fewer.
        first: u32,
    },
    /// Something reaches beyond the end of the bytes at hand.
    #[error(
        "the image is cut off: its {what} ends at byte {end}, but there are only {available} bytes; \
         load the whole file"
    )]
    Truncated {
        /// The part that does not fit.
        what: &'static str,
        /// Where it would end, in bytes from the start.
        end: u64,
        /// How many bytes there are.
        available: u64,
    },
    /// A size beyond the limit of this build.
    #[error(
        "the image is too large: its {what} has {bytes} bytes and the limit is {maximum}; split the module"
    )]
    TooLarge {
        /// The part that is too large.
        what: &'static str,
        /// Its declared size in bytes (saturated).
        bytes: u64,
        /// The limit in bytes.
        maximum: u64,
    },
    /// A field whose value contradicts the format.
    #[error("the image is damaged: bad {what} at byte {offset}; build or install its library again")]
    Malformed {
        /// The part that is wrong.
        what: &'static str,
        /// Where it was read, in bytes from the start of the part's own file.
        offset: u64,
    },
    /// A compressed payload that does not decompress to what its header declares.
    #[error("the image is damaged: its {method} payload does not decompress to {expected} bytes ({reason})")]
    Decompression {
        /// `LZ4` or `zstd`.
        method: &'static str,
        /// The size the entry declares, in bytes.
        expected: u64,
        /// What the decompressor says.
        reason: String,
    },
}
