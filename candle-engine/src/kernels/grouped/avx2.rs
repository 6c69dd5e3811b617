//! `avx2,fma,f16c`: eight rows at once.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{DenseFormat, Grouped};
use crate::kernels::panel::{pairs, set_quants, sums_of_eight, transpose, Panel, Tile, OCTET, QUAD, UNIT};
use crate::kernels::prefetch::Stream;

/// Tokens up to which [`matmul`] is faster than a panel, by the bits of a weight.
pub fn few(bits: u32) -> usize {
    if bits == 8 {
        8
    } else {
        3
    }
}

/// `out(row, t, y)` for runs of the rows `range` of `w` and each token.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matmul<const BITS: u32>(
    w: &Grouped,
    range: Range<usize>,
    x: &[Tile],
    mut out: impl FnMut(usize, usize, &[f32]),
) {
    let row_bytes = w.bits.bytes(w.cols);
    let mut quants =
        Stream::new(&w.quants[range.start * row_bytes..range.end * row_bytes], OCTET * row_bytes);
    // Of a matrix of fewer rows each alone, eight times over.
    let (step, run) = if w.rows < OCTET { (0, 1) } else { (1, OCTET) };
    for from in range.clone().step_by(run) {
        // Near the end the last eight, some of them again.
        let first = if step == 0 { from } else { from.min(w.rows - OCTET) };
        for (t, x) in x.iter().enumerate() {
            let quants = if t == 0 { &mut quants } else { &mut Stream::default() };
            let y = direct::<BITS>(w, Octet { first, step }, x, quants);
            out(from, t, &y[from - first..][..run.min(range.end - from)]);
        }
    }
}

/// Eight rows, so far apart.
#[derive(Clone, Copy)]
struct Octet {
    first: usize,
    step: usize,
}

/// Eight rows by one token.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn direct<const BITS: u32>(w: &Grouped, rows: Octet, x: &Tile, stream: &mut Stream) -> [f32; OCTET] {
    let row_bytes = w.bits.bytes(w.cols);
    assert!(rows.first + (OCTET - 1) * rows.step < w.rows, "rows of the matrix");
    assert!(x.quads.len() * QUAD >= w.cols.next_multiple_of(UNIT), "a token");
    let (start, stride) = (w.quants[rows.first * row_bytes..].as_ptr(), rows.step * row_bytes);
    // The bytes of row `r` from this input on.
    let bytes = |r: usize, input: usize| start.wrapping_add(r * stride + BITS as usize * input / 8);
    // Activations from this input on.
    let quants = |input: usize| x.quads[input / QUAD..].as_ptr().cast();
    let ones = _mm256_set1_epi16(1);
    let mut y = _mm256_setzero_ps();
    let mut outliers = x.outliers.iter().peekable();
    let (mut scales, mut mins) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    for (i, first) in (0..w.cols).step_by(w.period()).enumerate() {
        let (mut input, end) = (first, w.cols.min(first + w.period()));
        let mut acc = [_mm256_setzero_si256(); OCTET];
        while BITS == 4 && input + 2 * UNIT <= end {
            stream.read(OCTET * UNIT);
            // SAFETY: so many activations, and so many quants of each row, are there; any alignment will do.
            unsafe {
                let [even, odd] = even_and_odd(quants(input));
                for (r, acc) in acc.iter_mut().enumerate() {
                    let both = _mm256_loadu_si256(bytes(r, input).cast());
                    let nibble = _mm256_set1_epi8(15);
                    let low = _mm256_maddubs_epi16(_mm256_and_si256(both, nibble), even);
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), nibble);
                    let sums = _mm256_add_epi16(low, _mm256_maddubs_epi16(high, odd));
                    *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(sums, ones));
                }
            }
            input += 2 * UNIT;
        }
        while input + UNIT <= end {
            stream.read(OCTET * BITS as usize * UNIT / 8);
            // SAFETY: as above.
            unsafe {
                let a = _mm256_loadu_si256(quants(input));
                for (r, acc) in acc.iter_mut().enumerate() {
                    let sums = pairs::<BITS>(self::quants::<BITS>(bytes(r, input)), a);
                    *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(sums, ones));
                }
            }
            input += UNIT;
        }
        if input < end {
            // SAFETY: activations go on to a whole unit; and as above.
            unsafe {
                let a = _mm256_loadu_si256(quants(input));
                for (r, acc) in acc.iter_mut().enumerate() {
                    let sums = pairs::<BITS>(padded::<BITS>(bytes(r, input), end - input), a);
                    *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(sums, ones));
                }
            }
        }
        if first % w.group == 0 {
            (scales, mins) = self::scales(w, rows, first / w.group);
        }
        // Quants of 8 bits have their sign here, whatever was said to the activations.
        let start = _mm256_set1_epi32(if BITS == 8 { 0 } else { x.starts[i] });
        let [low, high] = sums_of_eight(acc);
        let dot = _mm256_add_epi32(_mm256_add_epi32(low, high), start);
        y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scales, _mm256_set1_ps(x.scales[i])), y);
        if w.zeros.is_some() {
            y = _mm256_fmadd_ps(_mm256_set1_ps(x.sums[i]), mins, y);
        }
        while let Some(outlier) = outliers.next_if(|o| o.input < end) {
            let mut weights = [0.0; OCTET];
            for (r, weight) in weights.iter_mut().enumerate() {
                *weight = w.weight(rows.first + r * rows.step, outlier.input);
            }
            y = _mm256_fmadd_ps(_mm256_set1_ps(outlier.value), from_array(&weights), y);
        }
    }
    let mut out = [0.0; OCTET];
    // SAFETY: eight floats, and any alignment will do.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), y) };
    out
}

/// Of 64 bytes those at even places and those at odd ones.
///
/// # Safety
///
/// They can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn even_and_odd(bytes: *const __m256i) -> [__m256i; 2] {
    let apart = _mm256_setr_epi8(
        0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11,
        13, 15,
    );
    // SAFETY: the caller's promise; any alignment will do.
    let (a, b) = unsafe { (_mm256_loadu_si256(bytes), _mm256_loadu_si256(bytes.wrapping_add(1))) };
    let (a, b) = (_mm256_shuffle_epi8(a, apart), _mm256_shuffle_epi8(b, apart));
    [
        _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_unpacklo_epi64(a, b)),
        _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_unpackhi_epi64(a, b)),
    ]
}

/// [`Grouped::scale`] of eight rows.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn scales(w: &Grouped, rows: Octet, group: usize) -> (__m256, __m256) {
    let groups = w.cols / w.group;
    let (first, step) = (rows.first * groups + group, rows.step * groups);
    assert!(first + (OCTET - 1) * step < w.rows * groups, "scales of the matrix");
    // Without a detour by way of memory, which would wait for every store.
    macro_rules! of_rows {
        ($set:ident, $row:expr) => {
            $set($row(0), $row(1), $row(2), $row(3), $row(4), $row(5), $row(6), $row(7))
        };
    }
    let at = |r: usize| first + r * step;
    // SAFETY: there are as many scales as groups of all rows.
    let number = |r: usize| unsafe { w.scales.as_ptr().cast::<f32>().add(at(r)).read_unaligned() };
    // SAFETY: as above.
    let word = |r: usize| unsafe { w.scales.as_ptr().cast::<i16>().add(at(r)).read_unaligned() };
    let scales = match w.scale_format {
        DenseFormat::F32 => of_rows!(_mm256_setr_ps, number),
        DenseFormat::F16 => _mm256_cvtph_ps(of_rows!(_mm_setr_epi16, word)),
        DenseFormat::BF16 => {
            let bits = _mm256_cvtepu16_epi32(of_rows!(_mm_setr_epi16, word));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    };
    let mut mins = _mm256_setzero_ps();
    if let Some(zeros) = w.zeros {
        let zero = |r: usize| i32::from(zeros[at(r)]);
        let zeros = _mm256_cvtepi32_ps(of_rows!(_mm256_setr_epi32, zero));
        mins = _mm256_xor_ps(_mm256_mul_ps(scales, zeros), _mm256_set1_ps(-0.0));
    }
    (scales, mins)
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn from_array(v: &[f32; OCTET]) -> __m256 {
    // SAFETY: eight floats, and any alignment will do.
    unsafe { _mm256_loadu_ps(v.as_ptr()) }
}

/// Packs the quants of eight rows, `less` taken from each, into octet `h`.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn pack<const BITS: u32>(rows: [&[u8]; OCTET], less: i8, h: usize, panel: &mut Panel) {
    let (bytes, len) = (BITS as usize * UNIT / 8, rows[0].len());
    assert!(rows.iter().all(|row| row.len() == len), "rows of a matrix");
    let less = _mm256_set1_epi8(less);
    for unit in 0..len.div_ceil(bytes) {
        let at = unit * bytes;
        let mut v = [_mm256_setzero_si256(); OCTET];
        for r in 0..OCTET {
            let from = rows[r].as_ptr().wrapping_add(at);
            // SAFETY: whole units, or what is left, are there.
            let quants = unsafe {
                if at + bytes <= len {
                    quants::<BITS>(from)
                } else {
                    padded::<BITS>(from, (len - at) * 8 / BITS as usize)
                }
            };
            v[r] = _mm256_sub_epi8(quants, less);
        }
        set_quants(panel, h, unit, transpose(v));
    }
}

/// [`quants`] of which there are fewer, then zeros.
///
/// # Safety
///
/// They can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn padded<const BITS: u32>(bytes: *const u8, count: usize) -> __m256i {
    let mut padded = [0; UNIT];
    // SAFETY: the caller's promise; and the array holds a unit.
    unsafe {
        padded.as_mut_ptr().copy_from_nonoverlapping(bytes, (BITS as usize * count).div_ceil(8));
        quants::<BITS>(padded.as_ptr())
    }
}

/// 32 quants, a byte each.
///
/// # Safety
///
/// They can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn quants<const BITS: u32>(bytes: *const u8) -> __m256i {
    if BITS == 8 {
        // SAFETY: the caller's promise; any alignment will do.
        return unsafe { _mm256_loadu_si256(bytes.cast()) };
    }
    // SAFETY: as above.
    let pairs = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.cast()) });
    _mm256_and_si256(_mm256_or_si256(pairs, _mm256_slli_epi16::<4>(pairs)), _mm256_set1_epi8(15))
}
