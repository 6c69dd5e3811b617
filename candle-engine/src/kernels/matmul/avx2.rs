//! AVX2 with FMA and F16C: eight lanes, sixteen registers.

use std::arch::x86_64::*;
use std::ops::Range;

use super::many::{Laid, PANEL};
use super::tiles::Tiles;
use super::{Act, DenseFormat, Rows, Stored, CHUNK};
use crate::kernels::aligned::Aligned;
use crate::kernels::prefetch::{prefetch_far, AHEAD, LINE};

type Vector = __m256;

/// Vectors that `add_sums` takes.
const GROUP: usize = 4;

tiles!("avx2,fma,f16c", lanes = 8, rows = [8, 4]);
many!("avx2,fma,f16c", lanes = 8, tokens = [2, 3]);

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn zero() -> Vector {
    _mm256_setzero_ps()
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(from: &[f32; 8]) -> Vector {
    // SAFETY: eight floats, at any address.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store(v: Vector, to: &mut [f32; 8]) {
    // SAFETY: eight floats, at any address.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), v) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_stored<F: Stored>(from: &[F::Raw; 8]) -> Vector {
    let from = from.as_ptr();
    match F::FORMAT {
        // SAFETY: an element of this format has four bytes, so there are 32.
        DenseFormat::F32 => unsafe { _mm256_loadu_ps(from.cast()) },
        DenseFormat::F16 => {
            // SAFETY: an element of this format has two bytes, so there are 16.
            _mm256_cvtph_ps(unsafe { _mm_loadu_si128(from.cast()) })
        }
        DenseFormat::BF16 => {
            // SAFETY: an element of this format has two bytes, so there are 16.
            let bits = _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(from.cast()) });
            _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16))
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fma(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm256_fmadd_ps(a, b, c)
}

/// Adds each vector's sum to its total: halves, then quarters, then pairs.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_sums(v: [Vector; GROUP], to: &mut [f32; GROUP]) {
    let [a, b, c, d] = v.map(|v| _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1)));
    let ab = _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a));
    let cd = _mm_add_ps(_mm_movelh_ps(c, d), _mm_movehl_ps(d, c));
    let even = _mm_shuffle_ps(ab, cd, 0b10_00_10_00);
    let odd = _mm_shuffle_ps(ab, cd, 0b11_01_11_01);
    let to = to.as_mut_ptr();
    // SAFETY: four floats, at any address.
    unsafe { _mm_storeu_ps(to, _mm_add_ps(_mm_loadu_ps(to), _mm_add_ps(even, odd))) };
}
