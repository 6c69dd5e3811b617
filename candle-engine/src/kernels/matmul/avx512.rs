//! AVX-512: sixteen lanes, thirty-two registers.

use std::arch::x86_64::*;
use std::ops::Range;

use super::many::{Laid, PANEL};
use super::tiles::Tiles;
use super::{Act, DenseFormat, Rows, Stored, CHUNK};
use crate::kernels::aligned::Aligned;
use crate::kernels::prefetch::{prefetch_far, AHEAD, LINE};

type Vector = __m512;

/// Vectors that `add_sums` takes.
const GROUP: usize = 8;

tiles!("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c", lanes = 16, rows = [8, 8]);
many!("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c", lanes = 16, tokens = [5, 6]);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn zero() -> Vector {
    _mm512_setzero_ps()
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn load(from: &[f32; 16]) -> Vector {
    // SAFETY: sixteen floats, at any address.
    unsafe { _mm512_loadu_ps(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn store(v: Vector, to: &mut [f32; 16]) {
    // SAFETY: sixteen floats, at any address.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn load_stored<F: Stored>(from: &[F::Raw; 16]) -> Vector {
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
fn fma(a: Vector, b: Vector, c: Vector) -> Vector {
    _mm512_fmadd_ps(a, b, c)
}

/// Adds each vector's sum to its total: halves, then quarters, and so on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn add_sums([a, b, c, d, e, f, g, h]: [Vector; GROUP], to: &mut [f32; GROUP]) {
    let even = quarters(halves(a, c), halves(e, g));
    let odd = quarters(halves(b, d), halves(f, h));
    let low = _mm512_shuffle_ps::<0b01_00_01_00>(even, odd);
    let high = _mm512_shuffle_ps::<0b11_10_11_10>(even, odd);
    let pairs = _mm512_add_ps(low, high);
    let both = _mm512_add_ps(pairs, _mm512_permute_ps::<0b10_11_00_01>(pairs));
    // Every second lane is a sum, and they are in order.
    let sums = _mm256_castsi256_ps(_mm512_cvtepi64_epi32(_mm512_castps_si512(both)));
    let to = to.as_mut_ptr();
    // SAFETY: eight floats, at any address.
    unsafe { _mm256_storeu_ps(to, _mm256_add_ps(_mm256_loadu_ps(to), sums)) };
}

/// The sums of the halves of two vectors, side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn halves(a: Vector, b: Vector) -> Vector {
    let low = _mm512_insertf32x8::<1>(a, _mm512_castps512_ps256(b));
    let high = _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b);
    _mm512_add_ps(low, high)
}

/// The same of the halves of each half.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn quarters(a: Vector, b: Vector) -> Vector {
    let low = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
    let high = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
    _mm512_add_ps(low, high)
}
