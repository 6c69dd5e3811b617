//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: sixteen rows, 64 numbers at once.

use std::arch::x86_64::*;
use std::ops::Range;

use super::Grouped;
use crate::kernels::panel::{
    quarter_sums, transpose_quarters, transpose_sixteen, Panel, Tile, QUAD, SIXTEEN,
};

/// Numbers that are unpacked at once.
const WIDE: usize = 64;

/// `out(row, t, y)` for runs of the rows `range` of `w` and each token.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn matmul<const BITS: u32>(
    w: &Grouped,
    range: Range<usize>,
    x: &[Tile],
    mut out: impl FnMut(usize, usize, &[f32]),
) {
    for from in range.clone().step_by(SIXTEEN) {
        // Past the last row the last again.
        let rows = std::array::from_fn(|r| (from + r).min(range.end - 1));
        for (t, x) in x.iter().enumerate() {
            out(from, t, &direct::<BITS>(w, rows, x)[..SIXTEEN.min(range.end - from)]);
        }
    }
}

/// Sixteen rows by one token.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn direct<const BITS: u32>(w: &Grouped, rows: [usize; SIXTEEN], x: &Tile) -> [f32; SIXTEEN] {
    let bytes = BITS as usize * WIDE / 8;
    let quants_of: [&[u8]; SIXTEEN] = std::array::from_fn(|r| w.row(rows[r]));
    let next = w.rows_from(rows[SIXTEEN - 1] + 1);
    let mut y = _mm512_setzero_ps();
    let mut outliers = x.outliers.iter().peekable();
    let (mut scales, mut mins) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    for (i, first) in (0..w.cols).step_by(w.period()).enumerate() {
        let end = w.cols.min(first + w.period());
        let mut parts = [_mm512_setzero_si512(); 4];
        for j in 0..4 {
            let mut acc = [_mm512_setzero_si512(); 4];
            for input in (first..end).step_by(WIDE) {
                let a = load_quads(&x.quads[input / QUAD..], end - input);
                for r in 0..4 {
                    let at = BITS as usize * input / 8;
                    prefetch(next, SIXTEEN * at + (4 * j + r) * bytes);
                    let w = quants::<BITS>(&quants_of[4 * j + r][at..]);
                    acc[r] = _mm512_dpbusd_epi32(acc[r], w, a);
                }
            }
            parts[j] = quarter_sums(acc);
        }
        if first % w.group == 0 {
            let both = w.scales(rows, first / w.group);
            (scales, mins) = (from_array(&both.0), from_array(&both.1));
        }
        let [a, b, c, d] = transpose_quarters(parts);
        let dot = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
        let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_set1_epi32(x.starts[i]), dot));
        y = _mm512_fmadd_ps(dot, _mm512_mul_ps(scales, _mm512_set1_ps(x.scales[i])), y);
        if w.zeros.is_some() {
            y = _mm512_fmadd_ps(_mm512_set1_ps(x.sums[i]), mins, y);
        }
        while let Some(outlier) = outliers.next_if(|o| o.input < end) {
            let weights = from_array(&rows.map(|row| w.weight(row, outlier.input)));
            y = _mm512_fmadd_ps(_mm512_set1_ps(outlier.value), weights, y);
        }
    }
    let mut out = [0.0; SIXTEEN];
    // SAFETY: sixteen floats, and any alignment will do.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), y) };
    out
}

/// Brings a line nearer; it may lie past the end.
#[inline(always)]
fn prefetch(bytes: &[u8], at: usize) {
    // SAFETY: SSE is part of the baseline, and nothing is dereferenced.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(at).cast()) };
}

/// 64 activations, or `left` and zeros.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn load_quads(quads: &[i32], left: usize) -> __m512i {
    if left >= WIDE {
        let quads = &quads[..WIDE / QUAD];
        // SAFETY: 64 bytes, and any alignment will do.
        return unsafe { _mm512_loadu_si512(quads.as_ptr().cast()) };
    }
    let quads = &quads[..left.div_ceil(QUAD)];
    // SAFETY: no quad beyond the slice is read.
    unsafe { _mm512_maskz_loadu_epi32((1 << quads.len()) - 1, quads.as_ptr()) }
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn from_array(v: &[f32; SIXTEEN]) -> __m512 {
    // SAFETY: sixteen floats, and any alignment will do.
    unsafe { _mm512_loadu_ps(v.as_ptr()) }
}

/// Packs the quants of sixteen rows into sixteen `s`, those of 8 bits with their sign flipped; `next` are the
/// rows to come.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn pack<const BITS: u32>(rows: [&[u8]; SIXTEEN], next: &[u8], s: usize, panel: &mut Panel) {
    let bytes = BITS as usize * WIDE / 8;
    let quads = panel.quads();
    for unit in 0..rows[0].len().div_ceil(bytes) {
        let mut v = [_mm512_setzero_si512(); SIXTEEN];
        for r in 0..SIXTEEN {
            prefetch(next, (unit * SIXTEEN + r) * bytes);
            v[r] = quants::<BITS>(&rows[r][unit * bytes..]);
        }
        let first = unit * (WIDE / QUAD);
        for (j, column) in transpose_sixteen(v).into_iter().enumerate().take(quads - first) {
            // SAFETY: a line's 64 bytes, at any alignment.
            unsafe { _mm512_storeu_si512(panel.sixteen_mut(s, first + j).as_mut_ptr().cast(), column) };
        }
    }
}

/// 64 quants, a byte each, unsigned; past the end of the row anything.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn quants<const BITS: u32>(bytes: &[u8]) -> __m512i {
    if BITS == 8 {
        let there = if bytes.len() >= WIDE { u64::MAX } else { (1 << bytes.len()) - 1 };
        // SAFETY: no byte beyond the slice is read.
        let v = unsafe { _mm512_maskz_loadu_epi8(there, bytes.as_ptr().cast()) };
        _mm512_xor_si512(v, _mm512_set1_epi8(i8::MIN))
    } else {
        let there = if bytes.len() >= WIDE / 2 { u32::MAX } else { (1 << bytes.len()) - 1 };
        // SAFETY: no byte beyond the slice is read.
        let v = unsafe { _mm256_maskz_loadu_epi8(there, bytes.as_ptr().cast()) };
        let pairs = _mm512_cvtepu8_epi16(v);
        _mm512_and_si512(_mm512_or_si512(pairs, _mm512_slli_epi16::<4>(pairs)), _mm512_set1_epi8(15))
    }
}
