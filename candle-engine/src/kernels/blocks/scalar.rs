//! The specification: what every other level computes, bit for bit.

use std::ops::Range;

use super::formats::{has_sub_scales, number, Block, GROUP};
use crate::kernels::panel::{Tile, QUAD};

/// A row of weights, unpacked: quants as they are, scales of blocks, sub-scales of periods.
#[derive(Default)]
struct Unpacked {
    quants: Vec<[u8; GROUP]>,
    scales: Vec<(f32, f32)>,
    sub_scales: Vec<(i32, i32)>,
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
        let row_bytes = &w[row * row_bytes..][..row_bytes];
        unpack::<B>(row_bytes, &mut scratch);
        for (t, x) in x.iter().enumerate() {
            out(row, t, dot::<B>(row_bytes, &scratch, x));
        }
    }
}

fn unpack<B: Block>(w: &[u8], to: &mut Unpacked) {
    to.quants.clear();
    to.scales.clear();
    to.sub_scales.clear();
    for block in w.chunks_exact(B::BYTES) {
        to.quants.extend((0..B::LEN / GROUP).map(|g| B::quants(block, g)));
        to.scales.push(B::scale(block));
        to.sub_scales.extend((0..B::LEN / B::PERIOD).map(|i| B::sub_scale(block, i)));
    }
}

/// For each block, in order: `y += (Σ sub_scale · Σ (w − OFFSET) · x) · (scale · x_scale)`, the sums integers; where the
/// format has a min, `y += ((Σ x) · x_scale) · min`, or of sub-mins `y += (Σ sub_min · Σ x) · (min · x_scale)`; the outer
/// product and the sum fused. Then its outliers, each fused.
fn dot<B: Block>(row: &[u8], w: &Unpacked, x: &Tile) -> f32 {
    let per_block = B::LEN / B::PERIOD;
    let periods = w.quants.as_flattened().chunks_exact(B::PERIOD).zip(x.quads.chunks_exact(B::PERIOD / QUAD));
    let mut sums = periods.zip(&x.starts).map(|((w, quads), &start)| {
        let mut sums = (start, 0);
        for (w, quad) in w.as_chunks::<QUAD>().0.iter().zip(quads) {
            for (&w, x) in w.iter().zip(quad.to_le_bytes()) {
                let w = if B::BITS == 8 { i32::from(w as i8) } else { i32::from(w) };
                sums.0 += w * i32::from(x as i8);
                sums.1 += i32::from(x as i8);
            }
        }
        sums
    });
    let mut outliers = x.outliers.iter().peekable();
    let mut y = 0.0f32;
    for (b, (&(scale, min), sub_scales)) in
        w.scales.iter().zip(w.sub_scales.chunks_exact(per_block)).enumerate()
    {
        let (mut dot, mut sum) = (0, 0);
        for (&(sub_scale, sub_min), (dots, quants)) in sub_scales.iter().zip(&mut sums) {
            dot += sub_scale * dots;
            sum += sub_min * quants;
        }
        y = (dot as f32).mul_add(scale * x.scales[b], y);
        if B::HAS_MIN {
            y = match has_sub_scales::<B>() {
                true => (sum as f32).mul_add(min * x.scales[b], y),
                false => x.sums[b].mul_add(min, y),
            };
        }
        while let Some(outlier) = outliers.next_if(|o| o.input < (b + 1) * B::LEN) {
            let block = &row[b * B::BYTES..][..B::BYTES];
            y = outlier.value.mul_add(number::<B>(block, outlier.input % B::LEN), y);
        }
    }
    y
}

/// The numbers of a row.
pub fn dequantize<B: Block>(w: &[u8], out: &mut [f32]) {
    for (block, out) in w.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::LEN)) {
        let (scale, min) = B::scale(block);
        for (g, out) in out.chunks_exact_mut(GROUP).enumerate() {
            let quants = B::quants(block, g);
            let periods = out.chunks_exact_mut(B::PERIOD).zip(quants.chunks_exact(B::PERIOD));
            for (i, (out, quants)) in periods.enumerate() {
                let (sub_scale, sub_min) = B::sub_scale(block, g * (GROUP / B::PERIOD) + i);
                let (scale, min) = (scale * sub_scale as f32, min * sub_min as f32);
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
