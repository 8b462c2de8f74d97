//! Pointer arguments, wrapped in types that only a C caller can make.
//!
//! Every exported function is `unsafe` and demands that its pointers are null or valid as cuda.h says, and that promise is what the
//! reads and writes in this file rely on.

use std::ffi::{CStr, c_char};

use crate::error::{CudaError, Result};

/// Where a result goes: null, or valid for writing one `T`.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T: Copy> Out<T> {
    /// Writes the result; null is refused.
    pub fn set(self, value: T) -> Result {
        if self.0.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: not null, so valid for writing by the contract of the exported functions.
        unsafe { self.0.write_unaligned(value) };
        Ok(())
    }

    /// Writes the result where one is wanted.
    pub fn set_if_wanted(self, value: T) {
        // Null means that the caller does not want it.
        let _ = self.set(value);
    }

    /// Writes the leading `values` of an array that the caller said has room for `room` elements.
    pub fn set_all(self, room: usize, values: impl IntoIterator<Item = T>) -> Result {
        if self.0.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        for (index, value) in values.into_iter().take(room).enumerate() {
            // SAFETY: the caller's array has `room` elements and `index` is less.
            unsafe { self.0.add(index).write_unaligned(value) };
        }
        Ok(())
    }

    /// Whether the caller wants this result.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// What is stored there now, for arguments that go both ways.
    pub fn get(self) -> Result<T> {
        In(self.0.cast_const()).get()
    }

    /// The address as a number.
    pub fn address(self) -> u64 {
        self.0 as u64
    }
}

impl Out<u8> {
    /// The place behind a bare address, such as an element of an array of pointers; see [`In::at`].
    pub(crate) fn at(address: u64) -> Self {
        Self(address as *mut u8)
    }

    /// The same place, for another type.
    pub fn cast<T>(self) -> Out<T> {
        Out(self.0.cast())
    }

    /// Writes `text` and its NUL into a buffer of `room` bytes, cut to fit.
    pub fn set_text(self, room: i32, text: &str) -> Result {
        let room = usize::try_from(room).ok().filter(|&room| room > 0).ok_or(CudaError::INVALID_VALUE)?;
        let kept = text.len().min(room - 1);
        self.set_all(room, text.as_bytes()[..kept].iter().copied().chain([0]))
    }
}

/// An argument passed by address: null, or valid for reading one `T` or an array of them.
#[repr(transparent)]
pub struct In<T>(*const T);

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<T> {}

impl<T: Copy> In<T> {
    /// The value; null is refused.
    pub fn get(self) -> Result<T> {
        if self.0.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: not null, so valid for reading by the contract of the exported functions; all `T` used here are plain data.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// The first `count` elements of an array; none if it is null and `count` is 0.
    pub fn array(self, count: usize) -> Result<Vec<T>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        if self.0.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: the caller says that the array has `count` elements.
        Ok((0..count).map(|index| unsafe { self.0.add(index).read_unaligned() }).collect())
    }

    /// The element at `index` of an array that has at least as many.
    pub fn element(self, index: usize) -> Result<T> {
        if self.0.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: the caller says that the array reaches that far.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }

    /// Whether nothing was passed.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }
}

impl In<u8> {
    /// The argument behind a bare address, such as an element of an array of pointers.
    ///
    /// The address must come from a C caller that promises the same as for a declared pointer argument.
    pub(crate) fn at(address: u64) -> Self {
        Self(address as *const u8)
    }

    /// The same place, for another type.
    pub fn cast<T>(self) -> In<T> {
        In(self.0.cast())
    }

    /// The pointer itself.
    pub fn pointer(self) -> *const u8 {
        self.0
    }
}

/// A NUL-terminated string.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Text(*const c_char);

impl Text {
    /// The string; null and what is not UTF-8 are refused.
    pub fn get(self) -> Result<String> {
        if self.0.is_null() {
            return Err(CudaError::INVALID_VALUE);
        }
        // SAFETY: not null, so a NUL-terminated string by the contract of the exported functions.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map(str::to_owned).map_err(|_| CudaError::INVALID_VALUE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_to_the_room_there_is() {
        let mut buffer = [0xff_u8; 8];
        Out(buffer.as_mut_ptr()).set_text(6, "simulated").expect("room for six");
        assert_eq!(&buffer, b"simul\0\xff\xff");
        assert_eq!(Out(buffer.as_mut_ptr()).set_text(0, "x"), Err(CudaError::INVALID_VALUE));
        assert_eq!(Out::<u8>(std::ptr::null_mut()).set(1), Err(CudaError::INVALID_VALUE));
    }
}
