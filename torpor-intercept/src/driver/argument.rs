//! Arguments of C functions as types: what a pointer is for decides what can be done with it.
//!
//! A value of these types exists only as an argument of an exported function, whose caller promises what `cuda.h` says:
//! the pointer is null, or valid for what its type does. That promise is the safety of every block in here, and
//! the reason why the adapters need none of their own.

use crate::core::CudaResult;
use std::ffi::{CStr, CString, c_char};
use torpor_proto::error::CudaError;

/// A place for a result.
#[repr(transparent)]
pub(crate) struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    /// Writes the result.
    ///
    /// # Errors
    /// `INVALID_VALUE` if the program gave no place.
    #[inline]
    pub(crate) fn put(self, value: T) -> CudaResult<()> {
        if self.0.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: the caller of the C function promises a place for a T (see the module).
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Writes a result that the program may not want.
    #[inline]
    pub(crate) fn put_if_wanted(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: as above.
            unsafe { self.0.write_unaligned(value) };
        }
    }

    /// Writes several results; the program promises room for as many.
    ///
    /// # Errors
    /// `INVALID_VALUE` if the program gave no place.
    pub(crate) fn put_all(self, values: impl IntoIterator<Item = T>) -> CudaResult<()> {
        if self.0.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        for (index, value) in values.into_iter().enumerate() {
            // SAFETY: the caller of the C function promises an array of at least that length.
            unsafe { self.0.add(index).write_unaligned(value) };
        }
        Ok(())
    }

    /// What is there before: some results are arguments too.
    ///
    /// # Errors
    /// `INVALID_VALUE` for null.
    pub(crate) fn get(self) -> CudaResult<T>
    where
        T: Copy,
    {
        if self.0.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: the caller of the C function promises a T there.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// As [`Self::get`], for several.
    ///
    /// # Errors
    /// `INVALID_VALUE` for null.
    pub(crate) fn slice(self, count: usize) -> CudaResult<Vec<T>>
    where
        T: Copy,
    {
        In(self.0.cast_const()).slice(count)
    }

    /// A place so many bytes behind it, in a structure whose meaning another part of it says. Null stays null.
    pub(crate) fn within<U>(self, offset: usize) -> Out<U> {
        Out(if self.0.is_null() { std::ptr::null_mut() } else { self.0.wrapping_byte_add(offset).cast() })
    }

    /// An array of a test's.
    #[cfg(test)]
    pub(crate) fn to(values: &mut [T]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// No place.
    pub(crate) fn nowhere() -> Self {
        Self(std::ptr::null_mut())
    }

    /// What is there before, to be read.
    pub(crate) fn as_in(self) -> In<T> {
        In(self.0.cast_const())
    }

    /// The same place for what another argument says that it is for.
    pub(crate) fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// Whether the program gave no place.
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }
}

/// A pointer to something to read.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct In<T>(*const T);

impl<T> In<T> {
    /// For the program, to read what is there.
    pub(crate) fn to(values: &[T]) -> Self {
        Self(values.as_ptr())
    }

    /// Nothing to read.
    pub(crate) fn nothing() -> Self {
        Self(std::ptr::null())
    }

    /// What begins so many bytes behind it, in a structure whose meaning another part of it says. Null stays null.
    pub(crate) fn within<U>(self, offset: usize) -> In<U> {
        In(if self.0.is_null() { std::ptr::null() } else { self.0.wrapping_byte_add(offset).cast() })
    }
}

impl<T: Copy> In<T> {
    /// Whether the program gave none.
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// What is there.
    ///
    /// # Errors
    /// `INVALID_VALUE` for null.
    #[inline]
    pub(crate) fn get(self) -> CudaResult<T> {
        if self.0.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: the caller of the C function promises a T there (see the module).
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// The first `count` of an array.
    ///
    /// # Errors
    /// `INVALID_VALUE` for null, unless `count` is 0.
    pub(crate) fn slice(self, count: usize) -> CudaResult<Vec<T>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        if self.0.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: the caller of the C function promises an array of that length.
        Ok((0..count).map(|index| unsafe { self.0.add(index).read_unaligned() }).collect())
    }
}

/// A C string to read.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Text(*const c_char);

impl Text {
    /// Its characters.
    ///
    /// # Errors
    /// `INVALID_VALUE` for null.
    pub(crate) fn get(self) -> CudaResult<CString> {
        if self.0.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: the caller of the C function promises a NUL-terminated string.
        Ok(unsafe { CStr::from_ptr(self.0) }.to_owned())
    }
}

/// A place for a C string of limited length.
///
/// # Errors
/// `INVALID_VALUE` if there is no place.
pub(crate) fn put_text(place: Out<c_char>, room: i32, text: &str) -> CudaResult<()> {
    let room = usize::try_from(room).ok().filter(|&room| room > 0).ok_or(CudaError::INVALID_VALUE)?;
    let cut = text.len().min(room - 1);
    place.put_all(text.as_bytes()[..cut].iter().map(|&byte| byte as c_char).chain([0]))
}
