//! Activations as 8-bit integers, one scale for every 32.

use super::formats::GROUP;
use crate::kernels::threads::{self, Disjoint};

/// Numbers under one sum: the smallest that a format scales alone.
pub const SUMMED: usize = 16;

/// Numbers that one task quantizes, about ten microseconds' worth.
const TASK: usize = 1 << 15;

/// Rows of activations, `x ≈ scale · quant`.
///
/// The quants lie in −127..=127. A group that holds an infinity or a NaN gets a scale of NaN, which every
/// product with it then shows.
#[derive(Default)]
pub struct Activations {
    k: usize,
    quants: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

/// One row of [`Activations`].
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// `[k]`
    pub quants: &'a [i8],
    /// `[k / GROUP]`
    pub scales: &'a [f32],
    /// Sums of the quants, `[k / SUMMED]`
    pub sums: &'a [i32],
}

impl Activations {
    /// Quantizes `x`, rows of `k`, into the buffers that are there. `row` is the kernel for one row.
    pub fn quantize(
        &mut self,
        x: &[f32],
        k: usize,
        row: impl Fn(&[f32], &mut [i8], &mut [f32], &mut [i32]) + Sync,
    ) {
        self.k = k;
        self.quants.resize(x.len(), 0);
        self.scales.resize(x.len() / GROUP, 0.0);
        self.sums.resize(x.len() / SUMMED, 0);
        let rows = (TASK / k).max(1);
        let (quants, scales, sums) =
            (Disjoint::new(&mut self.quants), Disjoint::new(&mut self.scales), Disjoint::new(&mut self.sums));
        threads::parallel(x.len().div_ceil(rows * k), |task| {
            let from = task * rows * k;
            let x = &x[from..x.len().min(from + rows * k)];
            // SAFETY: the tasks' ranges of `x` do not overlap, and neither do these, which follow from them.
            let (quants, scales, sums) = unsafe {
                (
                    quants.range(from, x.len()),
                    scales.range(from / GROUP, x.len() / GROUP),
                    sums.range(from / SUMMED, x.len() / SUMMED),
                )
            };
            row(x, quants, scales, sums);
        });
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.quants.len() / self.k
    }

    /// Row `t`.
    pub fn row(&self, t: usize) -> Row<'_> {
        let k = self.k;
        Row {
            quants: &self.quants[t * k..][..k],
            scales: &self.scales[t * (k / GROUP)..][..k / GROUP],
            sums: &self.sums[t * (k / SUMMED)..][..k / SUMMED],
        }
    }
}

/// Quantizes groups: `scale = max |x| / 127`, `quant = x · (127 / max |x|)` to the nearest, ties to even.
#[inline(always)]
pub fn quantize(x: &[f32], quants: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    let (x, _) = x.as_chunks::<GROUP>();
    let (quants, _) = quants.as_chunks_mut::<GROUP>();
    let (sums, _) = sums.as_chunks_mut::<{ GROUP / SUMMED }>();
    for (((x, quants), scale), sums) in x.iter().zip(quants).zip(scales).zip(sums) {
        // Magnitudes compare as integers, and a NaN is the largest.
        let largest = x.iter().fold(0, |most, v| most.max(v.to_bits() & 0x7fff_ffff));
        let largest = f32::from_bits(largest);
        let inverse = 127.0 / largest;
        // Too small to divide by, or zero.
        let inverse = if inverse.is_finite() && largest.is_finite() { inverse } else { 0.0 };
        *scale = if largest.is_finite() {
            if inverse == 0.0 {
                0.0
            } else {
                largest / 127.0
            }
        } else {
            f32::NAN
        };
        for (q, v) in quants.iter_mut().zip(x) {
            // Adding 1.5 · 2^23 leaves the nearest integer in the low bits.
            *q = if inverse == 0.0 { 0 } else { (v * inverse + 12_582_912.0).to_bits() as i8 };
        }
        for (sum, quants) in sums.iter_mut().zip(quants.as_chunks::<SUMMED>().0) {
            *sum = quants.iter().map(|&q| i32::from(q)).sum();
        }
    }
}
