//! Where to fetch weights before they are needed, when rows are multiplied four at a time.

use std::arch::x86_64::*;

/// Bytes of a row from what is multiplied to what is fetched: with four rows, what memory delivers to a thread in
/// some three times its latency.
const AHEAD: usize = 2048;

/// Bytes that a prefetch brings.
const CACHE_LINE: usize = 64;

/// The distance, for rows of some length.
#[derive(Clone, Copy)]
pub struct Ahead {
    row_bytes: usize,
    near: usize,
    /// What comes to it where the row ends before that: the place is in one of the next four rows.
    beyond: usize,
}

impl Ahead {
    /// For rows of so many bytes that follow each other.
    pub fn new(row_bytes: usize) -> Self {
        if row_bytes > AHEAD {
            Self { row_bytes, near: AHEAD, beyond: 3 * row_bytes }
        } else {
            Self { row_bytes, near: AHEAD.div_ceil(row_bytes) * 4 * row_bytes, beyond: 0 }
        }
    }

    /// Brings the `len` bytes nearer that come so far after byte `at` of a row; they may lie past the matrix.
    #[inline(always)]
    pub fn fetch(&self, row: *const u8, at: usize, len: usize) {
        let to = at + self.near + if at + self.near < self.row_bytes { 0 } else { self.beyond };
        for line in (0..len).step_by(CACHE_LINE) {
            // SAFETY: SSE is part of the baseline, and nothing is dereferenced.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(to + line).cast()) };
        }
    }
}
