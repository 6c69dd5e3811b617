//! The specification: what every other level computes, bit for bit.

use std::ops::Range;

use super::activations::{Activations, Row, SUMMED};
use super::formats::{Block, GROUP};

/// A row of weights, unpacked: quants as they are, scales and mins for each `B::SCALED` of them.
#[derive(Default)]
pub struct Unpacked {
    quants: Vec<[u8; GROUP]>,
    scales: Vec<(f32, f32)>,
}

/// `out(row, t, y)` for each of the rows `range` of `w` and each token.
pub fn matmul<B: Block>(
    w: &[u8],
    row_bytes: usize,
    range: Range<usize>,
    x: &Activations,
    scratch: &mut Unpacked,
    mut out: impl FnMut(usize, usize, f32),
) {
    for row in range {
        unpack::<B>(&w[row * row_bytes..][..row_bytes], scratch);
        for t in 0..x.len() {
            out(row, t, dot::<B>(scratch, x.row(t)));
        }
    }
}

fn unpack<B: Block>(w: &[u8], to: &mut Unpacked) {
    to.quants.clear();
    to.scales.clear();
    for block in w.chunks_exact(B::BYTES) {
        to.quants.extend((0..B::LEN / GROUP).map(|g| B::quants(block, g)));
        to.scales.extend((0..B::LEN / B::SCALED).map(|i| B::scale(block, i)));
    }
}

/// For each group, in order: `y += (Σ (w − OFFSET) · x) · (scale · x_scale)`, the sum an integer; and, where
/// the format has a min, `y += (Σ x) · (min · x_scale)`.
fn dot<B: Block>(w: &Unpacked, x: Row) -> f32 {
    let quants = w.quants.as_flattened().chunks_exact(B::SCALED).zip(x.quants.chunks_exact(B::SCALED));
    let sums = x.sums.chunks_exact(B::SCALED / SUMMED);
    let mut y = 0.0;
    for (i, (((w, a), sums), (scale, min))) in quants.zip(sums).zip(&w.scales).enumerate() {
        let x_scale = x.scales[i * B::SCALED / GROUP];
        let sum: i32 = sums.iter().sum();
        let dot: i32 = w
            .iter()
            .zip(a)
            .map(|(&w, &a)| {
                let w = if B::BITS == 8 { i32::from(w as i8) } else { i32::from(w) };
                w * i32::from(a)
            })
            .sum();
        y += (dot - B::OFFSET * sum) as f32 * (scale * x_scale);
        if B::HAS_MIN {
            y += sum as f32 * (min * x_scale);
        }
    }
    y
}

/// The numbers of a row.
pub fn dequantize<B: Block>(w: &[u8], out: &mut [f32]) {
    for (block, out) in w.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::LEN)) {
        for (g, out) in out.chunks_exact_mut(GROUP).enumerate() {
            let quants = B::quants(block, g);
            for (i, (out, quants)) in
                out.chunks_exact_mut(B::SCALED).zip(quants.chunks_exact(B::SCALED)).enumerate()
            {
                let (scale, min) = B::scale(block, g * (GROUP / B::SCALED) + i);
                for (out, &q) in out.iter_mut().zip(quants) {
                    let q = if B::BITS == 8 { i32::from(q as i8) } else { i32::from(q) };
                    *out = scale * (q - B::OFFSET) as f32;
                    if B::HAS_MIN {
                        *out += min;
                    }
                }
            }
        }
    }
}
