//! The specification: what every other level computes, bit for bit.

use std::ops::Range;

use super::formats::{Block, GROUP};
use crate::kernels::panel::{Tile, QUAD};

/// A row of weights, unpacked: quants as they are, scales and mins for each `B::SCALED` of them.
#[derive(Default)]
struct Unpacked {
    quants: Vec<[u8; GROUP]>,
    scales: Vec<(f32, f32)>,
}

/// `out(row, t, y)` for each of the rows `range` of `w` and each token.
pub fn matmul<B: Block>(
    w: &[u8],
    row_bytes: usize,
    range: Range<usize>,
    x: &[Tile],
    mut out: impl FnMut(usize, usize, f32),
) {
    let mut scratch = Unpacked::default();
    for row in range {
        unpack::<B>(&w[row * row_bytes..][..row_bytes], &mut scratch);
        for (t, x) in x.iter().enumerate() {
            out(row, t, dot::<B>(&scratch, x));
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
/// the format has a min, `y += ((Σ x) · x_scale) · min`; the outer product and the sum fused.
fn dot<B: Block>(w: &Unpacked, x: &Tile) -> f32 {
    let quads = x.quads.chunks_exact(B::SCALED / QUAD);
    let quants = w.quants.as_flattened().chunks_exact(B::SCALED).zip(quads);
    let mut y = 0.0f32;
    for (i, ((w, quads), (scale, min))) in quants.zip(&w.scales).enumerate() {
        let mut dot = x.starts[i];
        for (w, quad) in w.as_chunks::<QUAD>().0.iter().zip(quads) {
            for (&w, x) in w.iter().zip(quad.to_le_bytes()) {
                let w = if B::BITS == 8 { i32::from(w as i8) } else { i32::from(w) };
                dot += w * i32::from(x as i8);
            }
        }
        y = (dot as f32).mul_add(scale * x.scales[i], y);
        if B::HAS_MIN {
            y = x.sums[i].mul_add(*min, y);
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
