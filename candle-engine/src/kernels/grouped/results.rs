//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: results of sixteen rows from the sums of their periods.

use std::arch::x86_64::*;

use super::vnni::{sixteen_scales, SCALES};
use super::Grouped;
use crate::kernels::panel::{Tile, SIXTEEN};

/// Results of sixteen rows and each token, as the sums come in.
pub(super) struct Results<'a, const T: usize> {
    w: &'a Grouped<'a>,
    from: usize,
    x: &'a [Tile],
    pub y: [__m512; T],
    /// The period that comes next, and how many there are.
    period: usize,
    periods: usize,
    /// The group that comes next, how many periods it has, and how many are left of the one before.
    group: usize,
    in_group: usize,
    left: usize,
    scales: [__m512; SCALES],
    mins: [__m512; SCALES],
    /// Each token's outlier that comes next, and its input, or a number above all.
    outliers: [(usize, usize); T],
}

impl<'a, const T: usize> Results<'a, T> {
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    pub fn new(w: &'a Grouped<'a>, from: usize, x: &'a [Tile]) -> Self {
        let zeros = [_mm512_setzero_ps(); SCALES];
        let mut outliers = [(0, 0); T];
        for ((_, input), x) in outliers.iter_mut().zip(x) {
            *input = outlier_input(x, 0);
        }
        Self {
            w,
            from,
            x,
            y: [_mm512_setzero_ps(); T],
            period: 0,
            periods: w.cols.div_ceil(w.period()),
            group: 0,
            in_group: w.group.div_ceil(w.period()),
            left: 0,
            scales: zeros,
            mins: zeros,
            outliers,
        }
    }

    /// Adds periods, each the sums of all tokens, by the same operations in the same order as the specification; what is
    /// after the last is left out.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    pub fn add_periods(&mut self, dots: &[__m512i]) {
        let w = self.w;
        let len = w.period();
        let mut y = self.y;
        for dots in dots.chunks_exact(T).take(self.periods - self.period) {
            if self.left == 0 {
                if self.group.is_multiple_of(SCALES) {
                    sixteen_scales(w, self.from, self.group, &mut self.scales, &mut self.mins);
                }
                self.group += 1;
                self.left = self.in_group;
            }
            self.left -= 1;
            let group = (self.group - 1) % SCALES;
            let (scale, min) = (self.scales[group], self.mins[group]);
            let end = (self.period + 1) * len;
            for t in 0..T {
                let x = &self.x[t];
                let start = _mm512_set1_epi32(x.starts[self.period]);
                let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(start, dots[t]));
                let x_scale = _mm512_mul_ps(scale, _mm512_set1_ps(x.scales[self.period]));
                y[t] = _mm512_fmadd_ps(sum, x_scale, y[t]);
                if w.zeros.is_some() {
                    y[t] = _mm512_fmadd_ps(_mm512_set1_ps(x.sums[self.period]), min, y[t]);
                }
                let (next, input) = self.outliers[t];
                if input < end {
                    let (next, sum) = add_outliers(w, self.from, x, next, end, scale, min, y[t]);
                    (self.outliers[t], y[t]) = ((next, outlier_input(x, next)), sum);
                }
            }
            self.period += 1;
        }
        self.y = y;
    }
}

/// The input of a token's outlier; past the last a number above all.
fn outlier_input(x: &Tile, outlier: usize) -> usize {
    x.outliers.get(outlier).map_or(usize::MAX, |outlier| outlier.input)
}

/// Adds the outliers of a token from `next` on whose inputs are before `end`, to sixteen rows under one scale; returns
/// which comes next.
#[cold]
#[inline(never)]
#[allow(clippy::too_many_arguments)] // registers, so that none needs an address where there is no outlier
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn add_outliers(
    w: &Grouped,
    from: usize,
    x: &Tile,
    mut next: usize,
    end: usize,
    scale: __m512,
    min: __m512,
    mut y: __m512,
) -> (usize, __m512) {
    while let Some(outlier) = x.outliers.get(next).filter(|outlier| outlier.input < end) {
        let mut quants = [0; SIXTEEN];
        for (r, quant) in quants.iter_mut().enumerate() {
            *quant = w.quant(from + r, outlier.input) - w.offset();
        }
        // SAFETY: sixteen integers.
        let quants = _mm512_cvtepi32_ps(unsafe { _mm512_loadu_si512(quants.as_ptr().cast()) });
        let weights = _mm512_fmadd_ps(scale, quants, min);
        y = _mm512_fmadd_ps(_mm512_set1_ps(outlier.value), weights, y);
        next += 1;
    }
    (next, y)
}
