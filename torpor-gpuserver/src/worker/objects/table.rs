//! From the client's numbers to what they stand for: a lookup is an index into a vector.

use torpor_proto::error::CudaError;

/// Things by number. Numbers are below a limit, so that a hostile client cannot make the table large.
#[derive(Debug)]
pub(crate) struct Table<T> {
    limit: u32,
    entries: Vec<Option<T>>,
}

impl<T> Table<T> {
    /// An empty table for numbers below `limit`.
    pub(crate) fn new(limit: u32) -> Self {
        Self { limit, entries: Vec::new() }
    }

    /// Whether a number can be given: `CUDA_ERROR_OUT_OF_MEMORY` past the limit, `CUDA_ERROR_INVALID_VALUE` if in use.
    pub(crate) fn check_free(&self, id: u32) -> Result<(), CudaError> {
        if id >= self.limit {
            return Err(CudaError::OUT_OF_MEMORY);
        }
        match self.entries.get(id as usize) {
            Some(Some(_)) => Err(CudaError::INVALID_VALUE),
            _ => Ok(()),
        }
    }

    /// Gives a number, as [`Self::check_free`] allows.
    pub(crate) fn insert(&mut self, id: u32, value: T) -> Result<(), CudaError> {
        self.check_free(id)?;
        let index = id as usize;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        self.entries[index] = Some(value);
        Ok(())
    }

    /// What a number stands for; `CUDA_ERROR_INVALID_HANDLE` if nothing.
    #[inline]
    pub(crate) fn get(&self, id: u32) -> Result<&T, CudaError> {
        self.entries.get(id as usize).and_then(Option::as_ref).ok_or(CudaError::INVALID_HANDLE)
    }

    /// As [`Self::get`].
    #[inline]
    pub(crate) fn get_mut(&mut self, id: u32) -> Result<&mut T, CudaError> {
        self.entries.get_mut(id as usize).and_then(Option::as_mut).ok_or(CudaError::INVALID_HANDLE)
    }

    /// As [`Self::get`], for two different numbers.
    #[inline]
    pub(crate) fn get_two_mut(&mut self, one: u32, other: u32) -> Result<(&mut T, &mut T), CudaError> {
        match self.entries.get_disjoint_mut([one as usize, other as usize]) {
            Ok([Some(one), Some(other)]) => Ok((one, other)),
            _ => Err(CudaError::INVALID_HANDLE),
        }
    }

    /// Takes a number back.
    pub(crate) fn remove(&mut self, id: u32) -> Result<T, CudaError> {
        self.entries.get_mut(id as usize).and_then(Option::take).ok_or(CudaError::INVALID_HANDLE)
    }

    /// All there is.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().flatten()
    }

    /// All there is, with the numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.entries).filter_map(|(id, entry)| Some((id, entry.as_ref()?)))
    }

    /// Takes back every number whose value is as asked.
    pub(crate) fn remove_if(&mut self, mut unwanted: impl FnMut(&T) -> bool) {
        for entry in &mut self.entries {
            if entry.as_ref().is_some_and(&mut unwanted) {
                *entry = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_once_and_stay_below_the_limit() {
        let mut table = Table::new(4);
        assert_eq!(table.get(0), Err(CudaError::INVALID_HANDLE));
        table.insert(3, 'x').unwrap();
        assert_eq!(table.insert(3, 'y'), Err(CudaError::INVALID_VALUE));
        assert_eq!(table.insert(4, 'y'), Err(CudaError::OUT_OF_MEMORY));
        assert_eq!(table.insert(u32::MAX, 'y'), Err(CudaError::OUT_OF_MEMORY));
        assert_eq!(table.get(3), Ok(&'x'));
        assert_eq!(table.get(u32::MAX), Err(CudaError::INVALID_HANDLE));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(3, &'x')]);
        table.insert(1, 'w').unwrap();
        assert_eq!(table.get_two_mut(3, 1), Ok((&mut 'x', &mut 'w')));
        for (one, other) in [(1, 1), (1, 2), (1, 9)] {
            assert_eq!(table.get_two_mut(one, other), Err(CudaError::INVALID_HANDLE));
        }
        table.remove(1).unwrap();
        assert_eq!(table.remove(3), Ok('x'));
        assert_eq!(table.remove(3), Err(CudaError::INVALID_HANDLE));
        table.insert(3, 'z').unwrap();
        table.remove_if(|&value| value == 'z');
        assert_eq!(table.values_mut().count(), 0);
    }
}
