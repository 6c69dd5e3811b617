//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: sixteen rows of 8-bit weights by a few tokens.
//!
//! More than one token and less than a tile: laying rows out in a panel would cost more than the products. Each
//! weight is multiplied by all tokens as it comes from memory.
//!
//! There are no closures in the kernels: they would not become part of their callers' code.

use std::arch::x86_64::*;
use std::ops::Range;

use super::vnni::{load_line, load_quads, WIDE};
use super::{avx2, Grouped};
use crate::kernels::panel::{
    from_array, quarter_sums, to_array, transpose_quarters, transpose_sixteen, Tile, QUAD, SIXTEEN,
};

/// Tokens up to which this is faster than a panel.
pub const FEW: usize = 8;

/// Bytes from what is multiplied to what is fetched, in long rows.
const AHEAD: usize = 2048;

/// `out(row, t, y)` for runs of the rows `range` of `w` and each token.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn matmul(w: &Grouped, range: Range<usize>, x: &[Tile], mut out: impl FnMut(usize, usize, &[f32])) {
    let whole = range.start + range.len() / SIXTEEN * SIXTEEN;
    for from in (range.start..whole).step_by(SIXTEEN) {
        // What the first tokens brought into a cache the others find there.
        let mut t = 0;
        while t < x.len() {
            let x = &x[t..];
            let mut y = [[0.0; SIXTEEN]; FEW];
            let count = match x.len() {
                8 => across::<8>(w, from, x, &mut y),
                7 => across::<7>(w, from, x, &mut y),
                1 => some::<1>(w, from, x, &mut y),
                2 => some::<2>(w, from, x, &mut y),
                3 | 6 => some::<3>(w, from, x, &mut y),
                5 => some::<5>(w, from, x, &mut y),
                _ => some::<4>(w, from, x, &mut y),
            };
            for (i, y) in y[..count].iter().enumerate() {
                out(from, t + i, y);
            }
            t += count;
        }
    }
    if whole < range.end {
        avx2::matmul::<8>(w, whole..range.end, x, out);
    }
}

/// Sixteen rows from `from` on by the first `T` tokens; returns `T`.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn some<const T: usize>(w: &Grouped, from: usize, x: &[Tile], out: &mut [[f32; SIXTEEN]; FEW]) -> usize {
    let mut rows = [from; SIXTEEN];
    for (r, row) in rows.iter_mut().enumerate() {
        *row += r;
    }
    // In this row, or in that which comes after these sixteen.
    let ahead = if w.cols > AHEAD { AHEAD } else { SIXTEEN * w.cols };
    let x = &x[..T];
    let (mut y, mut scales, mut outliers) = ([_mm512_setzero_ps(); T], _mm512_setzero_ps(), [0; T]);
    let (mut first, mut i) = (0, 0);
    while first < w.cols {
        let end = w.cols.min(first + w.period());
        let mut parts = [[_mm512_setzero_si512(); T]; 4];
        for (j, parts) in parts.iter_mut().enumerate() {
            let mut four: [&[u8]; 4] = [&[]; 4];
            for (r, row) in four.iter_mut().enumerate() {
                *row = &w.row(from + 4 * j + r)[first..end];
            }
            let sums = products::<T>(four, x, first, ahead);
            for t in 0..T {
                parts[t] = quarter_sums(sums[t]);
            }
        }
        if first % w.group == 0 {
            scales = from_array(&w.scales(rows, first / w.group).0);
        }
        let mut dots = [_mm512_setzero_si512(); T];
        for t in 0..T {
            let [a, b, c, d] = transpose_quarters([parts[0][t], parts[1][t], parts[2][t], parts[3][t]]);
            dots[t] = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
        }
        add::<T>(w, &rows, x, i, end, scales, dots, &mut outliers, &mut y);
        (first, i) = (end, i + 1);
    }
    for t in 0..T {
        out[t] = to_array(y[t]);
    }
    T
}

/// Four rows' weights from input `first` on by each token: sixteen sums of each.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn products<const T: usize>(rows: [&[u8]; 4], x: &[Tile], first: usize, ahead: usize) -> [[__m512i; 4]; T] {
    let mut sums = [[_mm512_setzero_si512(); 4]; T];
    let len = rows[0].len();
    let mut at = 0;
    while at < len {
        let here = WIDE.min(len - at);
        let mut a = [_mm512_setzero_si512(); T];
        for t in 0..T {
            a[t] = load_quads(&x[t].quads[(first + at) / QUAD..][..here.div_ceil(QUAD)]);
        }
        for r in 0..4 {
            let row = &rows[r][at..at + here];
            _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(ahead).cast());
            // Unsigned: 128 is added. Past the end of a row activations are zero.
            let weights = _mm512_xor_si512(load_line(row), _mm512_set1_epi8(i8::MIN));
            for t in 0..T {
                sums[t][r] = _mm512_dpbusd_epi32(sums[t][r], weights, a[t]);
            }
        }
        at += here;
    }
    sums
}

/// As [`some`], for more tokens: sixteen rows' weights are transposed in registers, and no sums are.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn across<const T: usize>(w: &Grouped, from: usize, x: &[Tile], out: &mut [[f32; SIXTEEN]; FEW]) -> usize {
    let mut rows = [from; SIXTEEN];
    for (r, row) in rows.iter_mut().enumerate() {
        *row += r;
    }
    let ahead = if w.cols > AHEAD { AHEAD } else { SIXTEEN * w.cols };
    let x = &x[..T];
    let (mut y, mut scales, mut outliers) = ([_mm512_setzero_ps(); T], _mm512_setzero_ps(), [0; T]);
    let mut rest = [[0; SIXTEEN]; T];
    let (mut first, mut i) = (0, 0);
    while first < w.cols {
        let end = w.cols.min(first + w.period());
        let mut dots = [_mm512_setzero_si512(); T];
        let mut at = first;
        while at < end {
            let here = WIDE.min(end - at);
            let mut weights = [_mm512_setzero_si512(); SIXTEEN];
            for r in 0..SIXTEEN {
                let row = &w.row(rows[r])[at..at + here];
                _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(ahead).cast());
                // Unsigned: 128 is added. Past the end of a row activations are zero.
                weights[r] = _mm512_xor_si512(load_line(row), _mm512_set1_epi8(i8::MIN));
            }
            let columns = transpose_sixteen(weights);
            let mut quads = [&[0; SIXTEEN]; T];
            for ((quads, rest), x) in quads.iter_mut().zip(&mut rest).zip(x) {
                let from = &x.quads[at / QUAD..][..here.div_ceil(QUAD)];
                *quads = match from.first_chunk() {
                    Some(sixteen) => sixteen,
                    None => {
                        *rest = [0; SIXTEEN];
                        rest[..from.len()].copy_from_slice(from);
                        rest
                    }
                };
            }
            for j in 0..SIXTEEN {
                for t in 0..T {
                    dots[t] = _mm512_dpbusd_epi32(dots[t], columns[j], _mm512_set1_epi32(quads[t][j]));
                }
            }
            at += here;
        }
        if first % w.group == 0 {
            scales = from_array(&w.scales(rows, first / w.group).0);
        }
        add::<T>(w, &rows, x, i, end, scales, dots, &mut outliers, &mut y);
        (first, i) = (end, i + 1);
    }
    for t in 0..T {
        out[t] = to_array(y[t]);
    }
    T
}

/// Adds the sums of period `i`, inputs up to `end`, and its outliers from `outliers` on.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
#[allow(clippy::too_many_arguments)] // the state of a loop
fn add<const T: usize>(
    w: &Grouped,
    rows: &[usize; SIXTEEN],
    x: &[Tile],
    i: usize,
    end: usize,
    scales: __m512,
    dots: [__m512i; T],
    outliers: &mut [usize; T],
    y: &mut [__m512; T],
) {
    for t in 0..T {
        let x = &x[t];
        let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_set1_epi32(x.starts[i]), dots[t]));
        y[t] = _mm512_fmadd_ps(dot, _mm512_mul_ps(scales, _mm512_set1_ps(x.scales[i])), y[t]);
        while outliers[t] < x.outliers.len() && x.outliers[outliers[t]].input < end {
            let outlier = &x.outliers[outliers[t]];
            let mut weights = [0.0; SIXTEEN];
            for r in 0..SIXTEEN {
                weights[r] = w.weight(rows[r], outlier.input);
            }
            y[t] = _mm512_fmadd_ps(_mm512_set1_ps(outlier.value), from_array(&weights), y[t]);
            outliers[t] += 1;
        }
    }
}
