//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: sixteen rows, a line of 64 bytes at once.

use std::arch::x86_64::*;

use super::{DenseFormat, Grouped};
use crate::kernels::panel::{sixteen_words, transpose_sixteen, Panel, QUAD, SIXTEEN};
use crate::kernels::prefetch::Stream;

/// Numbers that are unpacked at once for a panel, and bytes that are multiplied at once.
pub(super) const WIDE: usize = 64;

/// Groups whose scales are read at once.
pub(super) const SCALES: usize = 8;

/// [`Grouped::scale`] of sixteen rows from `from` on and of groups from `group` on, as far as there are any.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn sixteen_scales(
    w: &Grouped,
    from: usize,
    group: usize,
    scales: &mut [__m512; SCALES],
    mins: &mut [__m512; SCALES],
) {
    let groups = w.cols / w.group;
    let left = SCALES.min(groups - group);
    let at = from * groups + group;
    if groups == 1 && w.zeros.is_none() {
        scales[0] = sixteen_numbers(&w.scales[at * w.scale_format.size()..], w.scale_format);
        return;
    }
    match w.scale_format {
        DenseFormat::F32 => {
            for half in 0..left.div_ceil(4) {
                let columns = columns(&w.scales[4 * (at + 4 * half)..], 4 * groups, 4 * (left - 4 * half));
                for (i, column) in columns.into_iter().enumerate() {
                    scales[4 * half + i] = _mm512_castsi512_ps(column);
                }
            }
        }
        DenseFormat::F16 => {
            for (i, two) in columns(&w.scales[2 * at..], 2 * groups, 2 * left).into_iter().enumerate() {
                scales[2 * i] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(two));
                scales[2 * i + 1] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(two)));
            }
        }
        DenseFormat::BF16 => {
            let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            for (i, two) in columns(&w.scales[2 * at..], 2 * groups, 2 * left).into_iter().enumerate() {
                scales[2 * i] = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(two));
                scales[2 * i + 1] = _mm512_castsi512_ps(_mm512_and_si512(two, high));
            }
        }
    }
    let Some(zeros) = w.zeros else { return };
    for (word, four) in columns(&zeros[at..], groups, left).into_iter().enumerate().take(SCALES / 4) {
        for i in 0..4 {
            let zero = _mm512_srl_epi32(four, _mm_cvtsi32_si128(8 * i as i32));
            let zero = _mm512_cvtepi32_ps(_mm512_and_si512(zero, _mm512_set1_epi32(255)));
            let min = _mm512_mul_ps(scales[4 * word + i], zero);
            mins[4 * word + i] = _mm512_xor_ps(min, _mm512_set1_ps(-0.0));
        }
    }
}

/// The first sixteen numbers.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn sixteen_numbers(bytes: &[u8], format: DenseFormat) -> __m512 {
    let bytes = &bytes[..SIXTEEN * format.size()];
    // SAFETY: so many bytes are there; any alignment will do.
    unsafe {
        match format {
            DenseFormat::F32 => _mm512_loadu_ps(bytes.as_ptr().cast()),
            DenseFormat::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().cast())),
            DenseFormat::BF16 => {
                let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(bytes.as_ptr().cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
            }
        }
    }
}

/// Of sixteen rows `stride` bytes apart the first 16 bytes, or `len` and zeros, as columns of 32 bits.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn columns(bytes: &[u8], stride: usize, len: usize) -> [__m512i; 4] {
    let len = len.min(16);
    let bytes = &bytes[..(SIXTEEN - 1) * stride + len];
    let mask = ((1u32 << len) - 1) as u16;
    let mut v = [_mm512_setzero_si512(); 4];
    for (i, v) in v.iter_mut().enumerate() {
        for q in 0..4 {
            let row = bytes.as_ptr().wrapping_add((4 * q + i) * stride);
            // SAFETY: `len` bytes of each row are there, and no other is read.
            let row = _mm512_broadcast_i32x4(unsafe { _mm_maskz_loadu_epi8(mask, row.cast()) });
            *v = _mm512_mask_mov_epi32(*v, 15 << (4 * q), row);
        }
    }
    sixteen_words(v)
}

/// 64 activations, or as many as there are and zeros.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn load_quads(quads: &[i32]) -> __m512i {
    const ALL: usize = WIDE / QUAD;
    // SAFETY: no quad beyond the slice is read, and any alignment will do.
    unsafe {
        match quads.len() {
            ALL.. => _mm512_loadu_si512(quads.as_ptr().cast()),
            len => _mm512_maskz_loadu_epi32((1 << len) - 1, quads.as_ptr()),
        }
    }
}

/// 64 bytes, or as many as there are and zeros.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn load_line(bytes: &[u8]) -> __m512i {
    // SAFETY: no byte beyond the slice is read, and any alignment will do.
    unsafe {
        if bytes.len() >= WIDE {
            _mm512_loadu_si512(bytes.as_ptr().cast())
        } else {
            _mm512_maskz_loadu_epi8((1 << bytes.len()) - 1, bytes.as_ptr().cast())
        }
    }
}

/// Packs the quants of sixteen rows, `less` taken from each, into sixteen `s`; `next` are the rows to come.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn pack<const BITS: u32>(rows: [&[u8]; SIXTEEN], next: &[u8], less: i8, s: usize, panel: &mut Panel) {
    let bytes = BITS as usize * WIDE / 8;
    let mut next = Stream::later(next);
    let quads = panel.quads();
    let less = _mm512_set1_epi8(less);
    for unit in 0..rows[0].len().div_ceil(bytes) {
        next.read(SIXTEEN * bytes);
        let mut v = [_mm512_setzero_si512(); SIXTEEN];
        for r in 0..SIXTEEN {
            let row = &rows[r][unit * bytes..];
            // SAFETY: the rest of the row.
            v[r] = unsafe { quants::<BITS>(row.as_ptr(), row.len()) };
        }
        let first = unit * (WIDE / QUAD);
        for (j, column) in transpose_sixteen(v).into_iter().enumerate().take(quads - first) {
            let to = panel.sixteen_mut(s, first + j).as_mut_ptr();
            // SAFETY: a line's 64 bytes, at any alignment.
            unsafe { _mm512_storeu_si512(to.cast(), _mm512_sub_epi8(column, less)) };
        }
    }
}

/// 64 quants, a byte each; past the end of the row anything.
///
/// # Safety
///
/// `left` bytes can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn quants<const BITS: u32>(at: *const u8, left: usize) -> __m512i {
    if BITS == 8 {
        // SAFETY: no byte beyond those left is read.
        unsafe {
            if left >= WIDE {
                _mm512_loadu_si512(at.cast())
            } else {
                _mm512_maskz_loadu_epi8((1 << left) - 1, at.cast())
            }
        }
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
