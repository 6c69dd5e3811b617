//! Integers of 8 bits: symmetric, a scale for each row or for each group of a row's inputs.

use candle_engine::kernels::matmul::DenseFormat;

use crate::encode::{inverse, max_abs, push_scale, round, stored, Part, LANES};

/// The extremes are ±127, so that the range is symmetric.
const MOST: f32 = 127.0;

/// Appends one row.
pub(crate) fn encode(row: &[f32], group: usize, scales: DenseFormat, part: &mut Part) {
    for w in row.chunks_exact(group) {
        let scale = stored(max_abs(w) / MOST, scales);
        push_scale(scale, scales, &mut part.scales);
        let from = part.quants.len();
        part.quants.resize(from + group, 0);
        part.error += quantize(w, scale, &mut part.quants[from..]);
    }
}

/// Divides by the scale and rounds; returns the squared error.
pub(crate) fn quantize(w: &[f32], scale: f32, quants: &mut [u8]) -> f64 {
    let inverse = inverse(scale);
    let one = |w: f32, quant: &mut u8| {
        let (q, number) = round(w * inverse, -MOST, MOST);
        *quant = number as u8;
        (w - q * scale) * (w - q * scale)
    };
    let mut sums = [0f32; LANES];
    let (whole, rest) = w.as_chunks::<LANES>();
    let (quants, quants_rest) = quants.as_chunks_mut::<LANES>();
    for (w, quants) in whole.iter().zip(quants) {
        for i in 0..LANES {
            sums[i] += one(w[i], &mut quants[i]);
        }
    }
    let rest: f32 = rest.iter().zip(quants_rest).map(|(&w, quant)| one(w, quant)).sum();
    f64::from(rest) + sums.iter().map(|&x| f64::from(x)).sum::<f64>()
}
