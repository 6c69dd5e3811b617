//! The micro-kernel: a tile of sums that stays in registers.

use crate::kernels::lanes::Arith;

/// What is multiplied: numbers of `x`, each by a row of `y`.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    /// Where the first number lies.
    pub x: &'a [f32],
    /// From a tile's row to the next.
    pub x_row: usize,
    /// From a step to the next.
    pub x_step: usize,
    /// The first step's row.
    pub y: &'a [f32],
    /// From a step to the next.
    pub y_step: usize,
    /// Number of products in a sum.
    pub steps: usize,
}

/// `sums[r][p] += Σ_k x[r, k] · y[k, p]`, `P` registers of columns, the products in order.
#[inline(always)]
pub(super) fn multiply<const R: usize, const P: usize, A: Arith>(
    arith: A,
    operands: Operands,
    sums: &mut [[A::V; P]; R],
) {
    let Operands { x, x_row, x_step, y, y_step, steps } = operands;
    if steps == 0 {
        return;
    }
    assert!((R - 1) * x_row + (steps - 1) * x_step < x.len(), "tile: x");
    assert!((steps - 1) * y_step + P * A::N <= y.len(), "tile: y");
    for k in 0..steps {
        let mut columns = [arith.splat(0.0); P];
        for (p, columns) in columns.iter_mut().enumerate() {
            let at = k * y_step + p * A::N;
            // SAFETY: the last step's columns end within `y`.
            *columns = arith.load(unsafe { y.get_unchecked(at..at + A::N) });
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the last row's last number is within `x`.
            let x = arith.splat(unsafe { *x.get_unchecked(r * x_row + k * x_step) });
            for p in 0..P {
                sums[p] = arith.mul_add_v(x, columns[p], sums[p]);
            }
        }
    }
}

/// Rows of a tile that fill the level's registers.
pub(super) const fn rows<A: Arith>() -> usize {
    if A::N == 16 {
        8
    } else {
        4
    }
}
