//! Rows that are unpacked together.

use std::marker::PhantomData;

/// The same bytes of each of some rows: a pointer and a distance, so that all addresses fit in registers.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    start: *const u8,
    stride: usize,
    len: usize,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Rows<'a> {
    /// `N` whole rows from `from` on.
    #[inline(always)]
    pub fn new<const N: usize>(w: &'a [u8], row_bytes: usize, from: usize) -> Self {
        let bytes = &w[from * row_bytes..][..N * row_bytes];
        Self { start: bytes.as_ptr(), stride: row_bytes, len: row_bytes, bytes: PhantomData }
    }

    /// Bytes of each.
    #[inline(always)]
    pub fn len(self) -> usize {
        self.len
    }

    /// Of each row the `len` bytes from `at` on.
    #[inline(always)]
    pub fn skip(self, at: usize, len: usize) -> Self {
        assert!(at <= self.len && len <= self.len - at, "within the row");
        Self { start: self.start.wrapping_add(at), len, ..self }
    }

    /// Row `r`'s `len` bytes, where there are more than `r` rows.
    #[inline(always)]
    pub fn row(self, r: usize) -> *const u8 {
        self.start.wrapping_add(r * self.stride)
    }
}
