//! Linking (`cuLink…`). What comes out of one input alone is that input; several, one that no driver loads as it is, or one for which the program
//! has chosen how it is made, become a bundle. What has to be made the node makes as soon as it is complete, and finds it when it is loaded.

use super::CudaResult;
use super::compile::is_source;
use super::handle::Table;
use super::image::Image;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};
use torpor_proto::error::CudaError;
use torpor_proto::image::bundle::{Bundle, Choice, Input, InputKind};
use torpor_proto::image::{Image as Bytes, ImageKind, Refusal};

/// The least length of a result: as many bytes as a magic number has, which a loader reads without being told how many there are.
const LEAST_BYTES: usize = 4;

/// A linker invocation. Serves as `CUlinkState`.
pub struct Link {
    number: u32,
    state: Mutex<State>,
}

/// Tells the program what the linker says of errors.
type Tell = Box<dyn Fn(&[u8]) + Send>;

#[derive(Default)]
struct State {
    /// Each option once.
    choices: Vec<Choice>,
    added: Vec<(InputKind, Box<[u8]>)>,
    tell: Option<Tell>,
    /// Once it is complete. The program has its address.
    result: Option<Box<[u8]>>,
}

static LINKS: Table<Link> = Table::new(4096);

impl Link {
    /// `cuLinkCreate`. `tell` is told what the linker says of errors, until the invocation is destroyed.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY` with thousands of them.
    pub fn create(choices: &[Choice], tell: impl Fn(&[u8]) + Send + 'static) -> CudaResult<&'static Self> {
        let make = |number| Self { number, state: Mutex::default() };
        let link = LINKS.insert(make, |_| ()).ok_or(CudaError::OUT_OF_MEMORY)?;
        *link.lock() = State { choices: choices.to_vec(), tell: Some(Box::new(tell)), ..State::default() };
        Ok(link)
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
        state.take(kind, bytes);
        Ok(())
    }

    /// `cuLinkComplete`: address and length of the result, which stays until the invocation is destroyed.
    ///
    /// # Errors
    /// `INVALID_VALUE` without an input, and what the driver says of several.
    pub fn complete(&self) -> CudaResult<(*const u8, usize)> {
        let mut state = self.lock();
        if state.result.is_none() {
            let result = state.result_of().map_err(Refusal::from);
            let result = result.and_then(|result| try_out(&result).map(|()| result.into_boxed_slice()));
            state.result = Some(result.map_err(|refusal| {
                state.tell.iter().for_each(|tell| tell(&refusal.said));
                refusal.error
            })?);
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

impl State {
    /// Adds the inputs that an input stands for: what another invocation made is a cubin for the program, and one or more inputs here, with what
    /// was chosen for them, unless that is chosen here.
    fn take(&mut self, kind: InputKind, mut bytes: Vec<u8>) {
        let found = Bytes::parse(&bytes).map(|image| (image.kind, image.bytes));
        let kind = match (kind, found) {
            (_, Ok((ImageKind::Bundle, bundle))) => {
                let Bundle { choices, inputs } = Bundle::parse(bundle).unwrap_or_default();
                self.added.extend(inputs.into_iter().map(|input| (input.kind, input.bytes.into())));
                let is_new = |choice: &Choice| self.choices.iter().all(|other| other.option != choice.option);
                let new: Vec<_> = choices.into_iter().filter(is_new).collect();
                self.choices.extend(new);
                return;
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
        self.added.push((kind, bytes.into_boxed_slice()));
    }

    fn result_of(&self) -> CudaResult<Vec<u8>> {
        match &self.added[..] {
            [] => Err(CudaError::INVALID_VALUE),
            // Nothing of a cubin is still to be chosen.
            [(kind @ (InputKind::Cubin | InputKind::Ptx | InputKind::Fatbinary), bytes)]
                if *kind == InputKind::Cubin || self.choices.is_empty() =>
            {
                let mut alone = bytes.to_vec();
                alone.resize(bytes.len().max(LEAST_BYTES), 0);
                Ok(alone)
            }
            added => {
                let inputs = added.iter().map(|(kind, bytes)| Input { kind: *kind, bytes }).collect();
                Ok(Bundle { choices: self.choices.clone(), inputs }.to_bytes())
            }
        }
    }
}

/// Has the node make the code of what has none yet, which tells whether that can be done.
fn try_out(result: &[u8]) -> Result<(), Refusal> {
    if !Bytes::parse(result).is_ok_and(|image| is_source(&image)) {
        return Ok(());
    }
    // SAFETY: it is complete in itself, and stays during the call.
    let image = unsafe { Image::load(result.as_ptr(), false) }?;
    image.compile()?;
    Ok(image.unload()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use torpor_proto::image::bundle::CompilerOption;

    const TEXT: &[u8] = b".version 8.0\n";

    #[test]
    fn one_input_comes_out_as_it_is_and_a_loader_finds_its_end() {
        for (kind, bytes, result) in [
            (InputKind::Ptx, TEXT, &b".version 8.0\n\0"[..]),
            (InputKind::Ptx, b".version 8.0\n\0\0\0", b".version 8.0\n\0"),
            (InputKind::Cubin, b"\x7fELF and more", b"\x7fELF and more"),
            (InputKind::Fatbinary, b"x", b"x\0\0\0"),
        ] {
            let mut state = State::default();
            state.take(kind, bytes.to_vec());
            assert_eq!(state.result_of().unwrap(), result);
        }
        assert_eq!(State::default().result_of(), Err(CudaError::INVALID_VALUE));
        let mut state = State::default();
        state.choices.push(Choice { option: CompilerOption::MaxRegisters, value: 32 });
        state.take(InputKind::Cubin, b"\x7fELF and more".to_vec());
        assert_eq!(state.result_of().unwrap(), b"\x7fELF and more", "it is made already");
    }

    #[test]
    fn what_another_link_made_counts_as_its_inputs() {
        let mut state = State::default();
        state.take(InputKind::Cubin, b".version 8.0\n\0".to_vec());
        let library = Input { kind: InputKind::Library, bytes: b"!<arch>\n" };
        let text = Input { kind: InputKind::Ptx, bytes: b".version 7.0\n\0" };
        let registers = |value| Choice { option: CompilerOption::MaxRegisters, value };
        let level = Choice { option: CompilerOption::OptimizationLevel, value: 1 };
        state.choices.push(registers(32));
        let linked = Bundle { choices: vec![registers(64), level], inputs: vec![text, library] };
        state.take(InputKind::Cubin, linked.to_bytes());
        assert_eq!(state.choices, [registers(32), level]);
        let kinds: Vec<_> = state.added.iter().map(|(kind, bytes)| (*kind, &bytes[..])).collect();
        let expected = [
            (InputKind::Ptx, &b".version 8.0\n\0"[..]),
            (text.kind, text.bytes),
            (library.kind, library.bytes),
        ];
        assert_eq!(kinds, expected);
    }
}
