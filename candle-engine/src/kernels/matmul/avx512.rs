//! AVX-512: sixteen lanes, thirty-two registers.

use std::arch::x86_64::*;
use std::ops::Range;

use super::avx2::quarter_sums;
use super::{aligned, Act, DenseFormat, Rows, Stored, Widened, CHUNK, PACK_TOKENS};

tiles!("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c", lanes = 16, rows = [8, 8, 8, 6]);
panels!("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c", lanes = 16, rows = 6);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn zero() -> __m512 {
    _mm512_setzero_ps()
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn load(from: &[f32; 16]) -> __m512 {
    // SAFETY: sixteen floats, at any address.
    unsafe { _mm512_loadu_ps(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn store(v: __m512, to: &mut [f32; 16]) {
    // SAFETY: sixteen floats, at any address.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn load_stored<F: Stored>(from: &[F::Raw; 16]) -> __m512 {
    let from = from.as_ptr();
    match F::FORMAT {
        // SAFETY: an element of this format has four bytes, so there are 64.
        DenseFormat::F32 => unsafe { _mm512_loadu_ps(from.cast()) },
        DenseFormat::F16 => {
            // SAFETY: an element of this format has two bytes, so there are 32.
            _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.cast()) })
        }
        DenseFormat::BF16 => {
            // SAFETY: an element of this format has two bytes, so there are 32.
            let bits = _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(from.cast()) });
            _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
    _mm512_fmadd_ps(a, b, c)
}

/// Each vector's sum of lanes: halves, then quarters, and so on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn sums(v: [__m512; 4]) -> [f32; 4] {
    quarter_sums(v.map(|v| {
        let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
        _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1))
    }))
}
