//! What a copy moves: rows and slices, from one side to the other.

/// One side of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Side {
    /// Where it starts.
    pub address: u64,
    /// From one row to the next.
    pub pitch: u64,
    /// From one slice to the next.
    pub slice: u64,
}

/// What is copied where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// To where.
    pub target: Side,
    /// From where.
    pub source: Side,
    /// Bytes of a row.
    pub width: u64,
    /// Rows of a slice.
    pub rows: u64,
    /// Slices.
    pub slices: u64,
}

impl Side {
    /// Bytes from the start to the end of the last row, if that can be said.
    pub(super) fn extent(&self, shape: &Shape) -> Option<u64> {
        let rows = shape.rows.checked_sub(1)?.checked_mul(self.pitch)?;
        let slices = shape.slices.checked_sub(1)?.checked_mul(self.slice)?;
        let extent = rows.checked_add(slices)?.checked_add(shape.width)?;
        self.address.checked_add(extent)?;
        Some(extent)
    }

    pub(super) fn row(&self, slice: u64, row: u64) -> u64 {
        self.address + slice * self.slice + row * self.pitch
    }
}

impl Shape {
    /// `bytes` in a line.
    pub fn line(target: u64, source: u64, bytes: u64) -> Self {
        let side = |address| Side { address, pitch: bytes, slice: bytes };
        Self { target: side(target), source: side(source), width: bytes, rows: 1, slices: 1 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.width.saturating_mul(self.rows).saturating_mul(self.slices)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (u64, u64)> {
        let rows = self.rows;
        (0..self.slices).flat_map(move |slice| (0..rows).map(move |row| (slice, row)))
    }

    /// Calls `visit` with start and length of every row that is written.
    pub fn each_target_row(&self, mut visit: impl FnMut(u64, u64)) {
        self.rows().for_each(|(slice, row)| visit(self.target.row(slice, row), self.width));
    }
}
