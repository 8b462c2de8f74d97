//! Why variables cannot be moved.

use super::super::ImageError;
use thiserror::Error;

/// Why the variables of an image must stay where the driver puts them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Immovable {
    /// It cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Something refers to a variable, or an initialiser to something, in a way that is not known.
    #[error("{section} refers to {symbol:?} by a relocation of kind {kind:#x}, which is not known")]
    Reference {
        /// What is referred to.
        symbol: String,
        /// From where.
        section: String,
        /// `r_type`.
        kind: u32,
    },
    /// More alignment than the block has.
    #[error("{section} wants to be aligned to {bytes} bytes")]
    Alignment {
        /// Which section.
        section: String,
        /// To what.
        bytes: u64,
    },
    /// The driver does not say where its copy of a variable is, from which the block would have its pointers to code.
    #[error("the driver does not tell of {variable:?} as the image has it, which points to code")]
    CodePointers {
        /// Which one.
        variable: String,
    },
    /// The driver does not load it with other addresses in it.
    #[error("the driver refuses its code with other addresses in it (CUDA error {0})")]
    Refused(u32),
    /// There is no code for the GPU in the image, or more than one cubin for it.
    #[error("the image has {0} cubins for this GPU and no PTX in their place")]
    Code(usize),
    /// The driver makes no cubin of the image's PTX.
    #[error("the driver makes no cubin of its PTX (CUDA error {0})")]
    Ptx(u32),
}
