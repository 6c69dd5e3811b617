//! Numbers from the start of a cache line on.

use std::ops::{Deref, DerefMut};

/// Numbers of 32 bits in a cache line.
const NUMBERS: usize = 16;

/// A cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line<T>([T; NUMBERS]);

/// A vector of numbers of 32 bits that begins with a cache line, so that no register of a multiple of sixteen of them is
/// read from two.
#[derive(Default)]
pub struct Aligned<T> {
    lines: Vec<Line<T>>,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// Makes it so long; numbers that were there keep their values, others may be anything that was.
    pub fn resize(&mut self, len: usize) {
        const { assert!(size_of::<T>() == 4) };
        let lines = len.div_ceil(NUMBERS);
        if lines > self.lines.len() {
            self.lines.resize(lines, Line([T::default(); NUMBERS]));
        }
        self.len = len;
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: lines are arrays without gaps, and hold as many numbers.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_line_and_has_the_length_it_was_given() {
        let mut numbers = Aligned::<f32>::default();
        for len in [0, 1, 16, 17, 1000, 3] {
            numbers.resize(len);
            assert_eq!((numbers.len(), numbers.as_ptr().addr() % 64), (len, 0));
            numbers.fill(1.0);
        }
        numbers.resize(1000);
        assert_eq!(numbers[999], 1.0);
    }
}
