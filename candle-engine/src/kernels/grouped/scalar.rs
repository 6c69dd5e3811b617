//! The specification: what every other level computes, bit for bit.

use super::{Bits, Grouped};
use crate::kernels::panel::quantize_group;

/// See [`super::matmul`].
pub fn matmul(w: &Grouped, x: &[f32], y: &mut [f32]) {
    for (x, y) in x.chunks_exact(w.cols).zip(y.chunks_exact_mut(w.rows)) {
        let mut quants = vec![0; w.cols];
        let periods: Vec<_> = x
            .chunks(w.period())
            .zip(quants.chunks_mut(w.period()))
            .map(|(x, quants)| quantize_group(x, true, quants))
            .collect();
        for (r, y) in y.iter_mut().enumerate() {
            *y = 0.0;
            for (i, ((x_scale, outliers), quants)) in
                periods.iter().zip(quants.chunks(w.period())).enumerate()
            {
                let first = i * w.period();
                let (scale, min) = w.scale(r, first / w.group);
                let weight = |i: usize| quant(w, r, first + i) - w.offset();
                let dot: i32 = quants.iter().enumerate().map(|(i, &q)| weight(i) * i32::from(q)).sum();
                *y = (dot as f32).mul_add(scale * x_scale, *y);
                if w.zeros.is_some() {
                    let sum: i32 = quants.iter().map(|&q| i32::from(q)).sum();
                    *y = (sum as f32 * x_scale).mul_add(min, *y);
                }
                for &i in outliers {
                    *y = x[first + i].mul_add(scale.mul_add(weight(i) as f32, min), *y);
                }
            }
        }
    }
}

/// The quant of row `r` and input `i`, an 8-bit one with its sign flipped.
pub fn quant(w: &Grouped, r: usize, i: usize) -> i32 {
    let row = w.row(r);
    match w.bits {
        Bits::Int8 => i32::from(row[i] ^ 0x80),
        Bits::Int4 => i32::from((row[i / 2] >> (4 * (i % 2))) & 15),
    }
}
