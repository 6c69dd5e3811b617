//! The online softmax: weighted sums so far, and how two of them become one.

use crate::kernels::lanes::Arith;
use crate::kernels::math::exp;

/// Weighted sums of values over some positions, for rows of `width` numbers.
pub(super) struct Softmax {
    width: usize,
    /// Largest score so far, `[rows]`.
    pub max: Vec<f32>,
    /// Sum of the weights so far, `[rows]`, relative to the largest score; 0 before the first position.
    pub total: Vec<f32>,
    /// Weighted sums of values so far, `[rows, width]`.
    pub sums: Vec<f32>,
}

impl Softmax {
    /// Before the first position.
    pub fn new(rows: usize, width: usize) -> Self {
        let (max, total) = (vec![f32::NEG_INFINITY; rows], vec![0.0; rows]);
        Self { width, max, total, sums: vec![0.0; rows * width] }
    }

    /// Takes in the positions of `next`, which follow those so far. A row that saw none of them, or none before
    /// them, is left or taken as it is, to the bit.
    #[inline(always)]
    pub fn merge(&mut self, arith: impl Arith, next: &Self) {
        for row in 0..self.max.len() {
            let columns = row * self.width..(row + 1) * self.width;
            let (sums, more) = (&mut self.sums[columns.clone()], &next.sums[columns]);
            if next.total[row] == 0.0 {
                continue;
            }
            if self.total[row] == 0.0 {
                (self.max[row], self.total[row]) = (next.max[row], next.total[row]);
                sums.copy_from_slice(more);
                continue;
            }
            let max = if next.max[row] > self.max[row] { next.max[row] } else { self.max[row] };
            let (old, new) = (exp(arith, self.max[row] - max), exp(arith, next.max[row] - max));
            self.max[row] = max;
            self.total[row] = arith.mul_add(next.total[row], new, self.total[row] * old);
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum = arith.mul_add(*more, new, *sum * old);
            }
        }
    }

    /// The sums of a row, divided by its total.
    pub fn write(&self, row: usize, out: &mut [f32]) {
        // As one division: they are as much work as some of the sums.
        let factor = 1.0 / self.total[row];
        for (out, sum) in out.iter_mut().zip(&self.sums[row * self.width..]) {
            *out = sum * factor;
        }
    }
}
