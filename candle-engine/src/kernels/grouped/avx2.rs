//! `avx2,fma,f16c`: eight rows at once.

use std::arch::x86_64::*;
use std::ops::Range;

use super::Grouped;
use crate::kernels::panel::{pairs, transpose, Panel, Tile, OCTET, QUAD, UNIT};
use crate::kernels::prefetch::Stream;

/// `out(row, t, y)` for runs of the rows `range` of `w` and each token.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matmul<const BITS: u32>(
    w: &Grouped,
    range: Range<usize>,
    x: &[Tile],
    mut out: impl FnMut(usize, usize, &[f32]),
) {
    let row_bytes = w.bits.bytes(w.cols);
    let mut quants = Stream::new(&w.quants[range.start * row_bytes..range.end * row_bytes]);
    for from in range.clone().step_by(OCTET) {
        // Past the last row the last again.
        let rows = std::array::from_fn(|r| (from + r).min(range.end - 1));
        for (t, x) in x.iter().enumerate() {
            let quants = if t == 0 { &mut quants } else { &mut Stream::default() };
            out(from, t, &direct::<BITS>(w, rows, x, quants)[..OCTET.min(range.end - from)]);
        }
    }
}

/// Eight rows by one token.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn direct<const BITS: u32>(w: &Grouped, rows: [usize; OCTET], x: &Tile, quants: &mut Stream) -> [f32; OCTET] {
    let quants_of: [&[u8]; OCTET] = std::array::from_fn(|r| w.row(rows[r]));
    let mut y = _mm256_setzero_ps();
    let mut outliers = x.outliers.iter().peekable();
    let (mut scales, mut mins) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    for (i, first) in (0..w.cols).step_by(w.period()).enumerate() {
        let end = w.cols.min(first + w.period());
        let mut acc = [_mm256_setzero_si256(); OCTET];
        for input in (first..end).step_by(UNIT) {
            let quads = &x.quads[input / QUAD..][..UNIT / QUAD];
            let at = BITS as usize * input / 8;
            quants.read(OCTET * BITS as usize * UNIT / 8);
            // SAFETY: 32 bytes, and any alignment will do.
            let a = unsafe { _mm256_loadu_si256(quads.as_ptr().cast()) };
            for r in 0..OCTET {
                let w = padded::<BITS>(&quants_of[r][at..]);
                let sums = _mm256_madd_epi16(pairs::<BITS>(w, a), _mm256_set1_epi16(1));
                acc[r] = _mm256_add_epi32(acc[r], sums);
            }
        }
        if first % w.group == 0 {
            let both = w.scales(rows, first / w.group);
            (scales, mins) = (from_array(&both.0), from_array(&both.1));
        }
        let columns = transpose(acc);
        // Quants of 8 bits have their sign here, whatever was said to the activations.
        let mut dot = _mm256_set1_epi32(if BITS == 8 { 0 } else { x.starts[i] });
        for column in columns {
            dot = _mm256_add_epi32(dot, column);
        }
        y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scales, _mm256_set1_ps(x.scales[i])), y);
        if w.zeros.is_some() {
            y = _mm256_fmadd_ps(_mm256_set1_ps(x.sums[i]), mins, y);
        }
        while let Some(outlier) = outliers.next_if(|o| o.input < end) {
            let weights = from_array(&rows.map(|row| w.weight(row, outlier.input)));
            y = _mm256_fmadd_ps(_mm256_set1_ps(outlier.value), weights, y);
        }
    }
    let mut out = [0.0; OCTET];
    // SAFETY: eight floats, and any alignment will do.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), y) };
    out
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn from_array(v: &[f32; OCTET]) -> __m256 {
    // SAFETY: eight floats, and any alignment will do.
    unsafe { _mm256_loadu_ps(v.as_ptr()) }
}

/// [`quants`], past the end of the row zeros.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn padded<const BITS: u32>(bytes: &[u8]) -> __m256i {
    let whole = BITS as usize * UNIT / 8;
    if bytes.len() >= whole {
        return quants::<BITS>(bytes);
    }
    let mut padded = [0; UNIT];
    padded[..bytes.len()].copy_from_slice(bytes);
    quants::<BITS>(&padded)
}

/// Packs the quants of eight rows, `less` taken from each, into octet `h`.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn pack<const BITS: u32>(rows: [&[u8]; OCTET], less: i8, h: usize, panel: &mut Panel) {
    let bytes = BITS as usize * UNIT / 8;
    let less = _mm256_set1_epi8(less);
    for unit in 0..rows[0].len().div_ceil(bytes) {
        let mut v = [_mm256_setzero_si256(); OCTET];
        for r in 0..OCTET {
            v[r] = _mm256_sub_epi8(padded::<BITS>(&rows[r][unit * bytes..]), less);
        }
        let columns = transpose(v);
        let mut quads = [[0; 32]; 8];
        for j in 0..8 {
            // SAFETY: 32 bytes, and any alignment will do.
            unsafe { _mm256_storeu_si256(quads[j].as_mut_ptr().cast(), columns[j]) };
        }
        panel.set_quants(h, unit, &quads);
    }
}

/// 32 quants, a byte each.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn quants<const BITS: u32>(bytes: &[u8]) -> __m256i {
    if BITS == 8 {
        let bytes = &bytes[..32];
        // SAFETY: 32 bytes, and any alignment will do.
        return unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
    }
    let bytes = &bytes[..16];
    // SAFETY: 16 bytes, and any alignment will do.
    let pairs = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) });
    _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi16::<4>(pairs)), _mm256_set1_epi8(15))
}
