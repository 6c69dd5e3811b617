//! The micro-kernel: a tile of sums that stays in registers.

use crate::kernels::lanes::Arith;
use crate::kernels::prefetch::prefetch;

/// How far before a single row's weights are needed they are asked for: 4 KiB. A row alone waits for nothing else.
const AHEAD: usize = 1024;

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
            if R == 1 {
                prefetch(y.as_ptr().wrapping_add(at + AHEAD).cast());
            }
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

/// A panel's part that is computed tile by tile.
pub(super) trait Tiles<A: Arith> {
    /// Columns of the panel.
    fn width(&self) -> usize;

    /// Computes `R` rows from `row` on, of them `P` registers of columns from `col` on.
    fn columns<const R: usize, const P: usize>(&mut self, arith: A, row: usize, col: usize);

    /// All columns of `R` rows from `row` on are computed.
    fn complete<const R: usize>(&mut self, arith: A, row: usize);
}

/// Computes so many rows in tiles that fill the level's registers.
#[inline(always)]
pub(super) fn cover<A: Arith>(arith: A, rows: usize, tiles: &mut impl Tiles<A>) {
    let mut row = 0;
    while row < rows {
        row += match rows - row {
            8.. if A::N == 16 => tile::<8, A>(arith, row, tiles),
            4.. => tile::<4, A>(arith, row, tiles),
            2.. => tile::<2, A>(arith, row, tiles),
            _ => tile::<1, A>(arith, row, tiles),
        };
    }
}

#[inline(always)]
fn tile<const R: usize, A: Arith>(arith: A, row: usize, tiles: &mut impl Tiles<A>) -> usize {
    if tiles.width() >= 2 * A::N {
        // No closure: that would be compiled without the level's features.
        for col in (0..tiles.width()).step_by(2 * A::N) {
            tiles.columns::<R, 2>(arith, row, col);
        }
    } else {
        tiles.columns::<R, 1>(arith, row, 0);
    }
    tiles.complete::<R>(arith, row);
    R
}
