//! Linking (`cuLink…`). What comes out of one input alone is that input, which a GPU's driver compiles when it is loaded; several, or one
//! that no driver loads as it is, become a bundle, which the node links as soon as it is complete, and finds linked when it is loaded.

use super::CudaResult;
use super::handle::Table;
use super::image::Image;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::error::CudaError;
use torpor_proto::image::bundle::{Input, InputKind, bundle_of, inputs};
use torpor_proto::image::{Image as Bytes, ImageKind};

/// The least length of a result: as many bytes as a magic number has, which a loader reads without being told how many there are.
const LEAST_BYTES: usize = 4;

/// A linker invocation. Serves as `CUlinkState`.
pub struct Link {
    number: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    added: Vec<(InputKind, Box<[u8]>)>,
    /// Once it is complete. The program has its address.
    result: Option<Box<[u8]>>,
}

static LINKS: Table<Link> = Table::new(4096);

impl Link {
    /// `cuLinkCreate`.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` with thousands of them.
    pub fn create() -> CudaResult<&'static Self> {
        let make = |number| Self { number, state: Mutex::default() };
        LINKS.insert(make, |link| *link.lock() = State::default()).ok_or(CudaError::OUT_OF_MEMORY)
    }

    /// The invocation behind a handle.
    ///
    /// # Errors
    /// `INVALID_HANDLE`.
    pub fn find(handle: *mut c_void) -> CudaResult<&'static Self> {
        LINKS.get(handle).ok_or(CudaError::INVALID_HANDLE)
    }

    /// What the program is given for it.
    #[must_use]
    pub fn handle(&'static self) -> *mut c_void {
        Table::handle(self)
    }

    /// `cuLinkAddData`.
    ///
    /// # Errors
    /// `INVALID_VALUE` for nothing, or if it is complete.
    pub fn add(&self, kind: InputKind, bytes: Vec<u8>) -> CudaResult<()> {
        let mut state = self.lock();
        if bytes.is_empty() || state.result.is_some() {
            return Err(CudaError::INVALID_VALUE);
        }
        state.added.extend(taken(kind, bytes));
        Ok(())
    }

    /// `cuLinkComplete`: address and length of the result, which stays until the invocation is destroyed.
    ///
    /// # Errors
    /// `INVALID_VALUE` without an input, and what the driver says of several.
    pub fn complete(&self) -> CudaResult<(*const u8, usize)> {
        let mut state = self.lock();
        if state.result.is_none() {
            state.result = Some(result_of(&state.added)?.into_boxed_slice());
        }
        let result = state.result.as_deref().unwrap_or_default();
        Ok((result.as_ptr(), result.len()))
    }

    /// `cuLinkDestroy`.
    pub fn destroy(&self) {
        *self.lock() = State::default();
        LINKS.retire(self.number);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The inputs that an input stands for: what another invocation made is a cubin for the program, and one or more inputs here.
fn taken(kind: InputKind, mut bytes: Vec<u8>) -> Vec<(InputKind, Box<[u8]>)> {
    let found = Bytes::parse(&bytes).map(|image| (image.kind, image.bytes));
    let kind = match (kind, found) {
        (_, Ok((ImageKind::Bundle, bundle))) => {
            let inputs = inputs(bundle).unwrap_or_default();
            return inputs.into_iter().map(|input| (input.kind, input.bytes.into())).collect();
        }
        (InputKind::Cubin, Ok((ImageKind::Ptx, _))) => InputKind::Ptx,
        (InputKind::Cubin, Ok((ImageKind::Container, _))) => InputKind::Fatbinary,
        (kind, _) => kind,
    };
    if kind == InputKind::Ptx {
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        bytes.push(0);
    }
    vec![(kind, bytes.into_boxed_slice())]
}

fn result_of(added: &[(InputKind, Box<[u8]>)]) -> CudaResult<Vec<u8>> {
    match added {
        [] => Err(CudaError::INVALID_VALUE),
        [(InputKind::Cubin | InputKind::Ptx | InputKind::Fatbinary, bytes)] => {
            let mut alone = bytes.to_vec();
            alone.resize(bytes.len().max(LEAST_BYTES), 0);
            Ok(alone)
        }
        _ => {
            let inputs: Vec<_> = added.iter().map(|(kind, bytes)| Input { kind: *kind, bytes }).collect();
            let bundle = bundle_of(&inputs);
            try_out(&bundle)?;
            Ok(bundle)
        }
    }
}

/// Has the node link a bundle, which tells whether that can be done.
fn try_out(bundle: &[u8]) -> CudaResult<()> {
    // SAFETY: a bundle is complete in itself, and stays during the call.
    let image = unsafe { Image::load(bundle.as_ptr(), false) }?;
    let linked = image.kernel_names().map(drop);
    image.unload()?;
    linked
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b".version 8.0\n";

    fn add(state: &mut State, kind: InputKind, bytes: &[u8]) {
        state.added.extend(taken(kind, bytes.to_vec()));
    }

    #[test]
    fn one_input_comes_out_as_it_is_and_a_loader_finds_its_end() {
        for (kind, bytes, result) in [
            (InputKind::Ptx, TEXT, &b".version 8.0\n\0"[..]),
            (InputKind::Ptx, b".version 8.0\n\0\0\0", b".version 8.0\n\0"),
            (InputKind::Cubin, b"\x7fELF and more", b"\x7fELF and more"),
            (InputKind::Fatbinary, b"x", b"x\0\0\0"),
        ] {
            let mut state = State::default();
            add(&mut state, kind, bytes);
            assert_eq!(result_of(&state.added).unwrap(), result);
        }
        assert_eq!(result_of(&[]), Err(CudaError::INVALID_VALUE));
    }

    #[test]
    fn what_another_link_made_counts_as_its_inputs() {
        let mut state = State::default();
        add(&mut state, InputKind::Cubin, b".version 8.0\n\0");
        let library = Input { kind: InputKind::Library, bytes: b"!<arch>\n" };
        let text = Input { kind: InputKind::Ptx, bytes: b".version 7.0\n\0" };
        add(&mut state, InputKind::Cubin, &bundle_of(&[text, library]));
        let kinds: Vec<_> = state.added.iter().map(|(kind, bytes)| (*kind, &bytes[..])).collect();
        let expected = [
            (InputKind::Ptx, &b".version 8.0\n\0"[..]),
            (text.kind, text.bytes),
            (library.kind, library.bytes),
        ];
        assert_eq!(kinds, expected);
    }
}
