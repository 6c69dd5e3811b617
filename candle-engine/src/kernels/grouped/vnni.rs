//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: sixteen rows, 64 numbers at once.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{avx2, Grouped};
use crate::kernels::panel::{
    quarter_sums, transpose_quarters, transpose_sixteen, Panel, Tile, QUAD, SIXTEEN,
};

/// Numbers that are unpacked at once.
const WIDE: usize = 64;

/// Bytes from what is multiplied to what is fetched: with sixteen rows, a sixth of a first-level cache.
const AHEAD: usize = 512;

/// `out(row, t, y)` for runs of the rows `range` of `w` and each token.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn matmul<const BITS: u32>(
    w: &Grouped,
    range: Range<usize>,
    x: &[Tile],
    mut out: impl FnMut(usize, usize, &[f32]),
) {
    let whole = range.start + range.len() / SIXTEEN * SIXTEEN;
    for from in (range.start..whole).step_by(SIXTEEN) {
        for (t, x) in x.iter().enumerate() {
            out(from, t, &direct::<BITS>(w, from, x));
        }
    }
    if whole < range.end {
        avx2::matmul::<BITS>(w, whole..range.end, x, out);
    }
}

/// Sixteen rows from `from` on by one token.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn direct<const BITS: u32>(w: &Grouped, from: usize, x: &Tile) -> [f32; SIXTEEN] {
    let stride = w.bits.bytes(w.cols);
    let all = &w.quants[from * stride..][..SIXTEEN * stride];
    let rows = std::array::from_fn(|r| from + r);
    let mut y = _mm512_setzero_ps();
    let mut outliers = x.outliers.iter().peekable();
    let (mut scales, mut mins) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    for (i, first) in (0..w.cols).step_by(w.period()).enumerate() {
        let end = w.cols.min(first + w.period());
        let mut parts = [_mm512_setzero_si512(); 4];
        for (j, part) in parts.iter_mut().enumerate() {
            let mut acc = [_mm512_setzero_si512(); 4];
            for input in (first..end).step_by(WIDE) {
                let a = load_quads(&x.quads[input / QUAD..], end - input);
                let at = BITS as usize * input / 8;
                for (r, acc) in acc.iter_mut().enumerate() {
                    let start = all.as_ptr().wrapping_add((4 * j + r) * stride + at);
                    // In this row, or in that which comes after these sixteen.
                    let ahead = AHEAD + if at + AHEAD < stride { 0 } else { (SIXTEEN - 1) * stride };
                    _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(ahead).cast());
                    // SAFETY: from `at` on a row has `stride - at` bytes, and there are sixteen rows.
                    let w = unsafe { quants::<BITS>(start, stride - at) };
                    *acc = _mm512_dpbusd_epi32(*acc, w, a);
                }
            }
            *part = quarter_sums(acc);
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
            let row = &rows[r][unit * bytes..];
            // SAFETY: the rest of the row.
            v[r] = unsafe { quants::<BITS>(row.as_ptr(), row.len()) };
        }
        let first = unit * (WIDE / QUAD);
        for (j, column) in transpose_sixteen(v).into_iter().enumerate().take(quads - first) {
            // SAFETY: a line's 64 bytes, at any alignment.
            unsafe { _mm512_storeu_si512(panel.sixteen_mut(s, first + j).as_mut_ptr().cast(), column) };
        }
    }
}

/// 64 quants, a byte each, unsigned; past the end of the row anything.
///
/// # Safety
///
/// `left` bytes can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn quants<const BITS: u32>(at: *const u8, left: usize) -> __m512i {
    if BITS == 8 {
        // SAFETY: no byte beyond those left is read.
        let v = unsafe {
            if left >= WIDE {
                _mm512_loadu_si512(at.cast())
            } else {
                _mm512_maskz_loadu_epi8((1 << left) - 1, at.cast())
            }
        };
        _mm512_xor_si512(v, _mm512_set1_epi8(i8::MIN))
    } else {
        // SAFETY: as above.
        let v = unsafe {
            if left >= WIDE / 2 {
                _mm256_loadu_si256(at.cast())
            } else {
                _mm256_maskz_loadu_epi8((1 << left) - 1, at.cast())
            }
        };
        let pairs = _mm512_cvtepu8_epi16(v);
        _mm512_and_si512(_mm512_or_si512(pairs, _mm512_slli_epi16::<4>(pairs)), _mm512_set1_epi8(15))
    }
}
