//! The specification: what every other level computes, bit for bit.

use std::ops::Range;

use super::{Bits, Grouped};
use crate::kernels::panel::Tile;

/// `out(row, t, y)` for each of the rows `range` and each token.
pub fn matmul(w: &Grouped, range: Range<usize>, x: &[Tile], mut out: impl FnMut(usize, usize, f32)) {
    for row in range {
        for (t, x) in x.iter().enumerate() {
            out(row, t, dot(w, row, x));
        }
    }
}

fn dot(w: &Grouped, r: usize, x: &Tile) -> f32 {
    let quants: Vec<i32> = x.quads.iter().flat_map(|q| q.to_le_bytes()).map(|q| i32::from(q as i8)).collect();
    let mut outliers = x.outliers.iter().peekable();
    // Quants of 8 bits are taken with their sign here.
    let sign = if w.bits == Bits::Int8 { 128 } else { 0 };
    let mut y = 0.0f32;
    for (i, first) in (0..w.cols).step_by(w.period()).enumerate() {
        let end = w.cols.min(first + w.period());
        let dot: i32 = (first..end).map(|i| (w.quant(r, i) - sign) * quants[i]).sum();
        let (scale, min) = w.scale(r, first / w.group);
        y = ((x.starts[i] + dot) as f32).mul_add(scale * x.scales[i], y);
        if w.zeros.is_some() {
            y = x.sums[i].mul_add(min, y);
        }
        while let Some(outlier) = outliers.next_if(|o| o.input < end) {
            y = outlier.value.mul_add(w.weight(r, outlier.input), y);
        }
    }
    y
}
