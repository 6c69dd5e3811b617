//! What intrinsics do not do alone, for the registers of x86-64.

use std::arch::x86_64::*;

use super::{max_of_each, sum_of_each, Avx512};

/// Folds a register by halves; and eight at once, in the same order each.
macro_rules! fold {
    ($name_256:ident, $name_512:ident, $each:ident, $each_512:ident, $ps:ident, $ps_256:ident, $ps_512:ident) => {
        /// # Safety
        ///
        /// The CPU has AVX2.
        #[inline(always)]
        pub(super) unsafe fn $name_256(v: __m256) -> f32 {
            // SAFETY: the caller has the features.
            unsafe {
                let v = $ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
                let v = $ps(v, _mm_movehl_ps(v, v));
                _mm_cvtss_f32($ps(v, _mm_movehdup_ps(v)))
            }
        }

        /// # Safety
        ///
        /// The CPU has AVX-512DQ.
        #[inline(always)]
        pub(super) unsafe fn $name_512(v: __m512) -> f32 {
            // SAFETY: the caller has the features.
            unsafe { $name_256($ps_256(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v))) }
        }

        /// Of each.
        #[inline(always)]
        pub(super) fn $each_512<const R: usize>(arith: Avx512, v: [__m512; R]) -> [f32; R] {
            if R != 8 {
                return $each(arith, v);
            }
            let mut out = [0.0; R];
            // SAFETY: `arith` proves the features, and `out` has eight numbers.
            unsafe {
                // Side by side: halves of two, then quarters of four, then halves of quarters of all.
                let mut two = [_mm512_setzero_ps(); 4];
                for i in 0..4 {
                    let (a, b) = (v[2 * i], v[2 * i + 1]);
                    two[i] = $ps_512(
                        _mm512_shuffle_f32x4::<0b01_00_01_00>(a, b),
                        _mm512_shuffle_f32x4::<0b11_10_11_10>(a, b),
                    );
                }
                let mut four = [_mm512_setzero_ps(); 2];
                for i in 0..2 {
                    let (a, b) = (two[2 * i], two[2 * i + 1]);
                    four[i] = $ps_512(
                        _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b),
                        _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b),
                    );
                }
                let [a, b] = four;
                let all = $ps_512(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let all = $ps_512(all, _mm512_permute_ps::<0b01_00_11_10>(all));
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
                let all = _mm512_castps512_ps256(_mm512_permutexvar_ps(order, all));
                _mm256_storeu_ps(out.as_mut_ptr(), all);
            }
            out
        }
    };
}

fold!(sum_of_256, sum_of_512, sum_of_each, sums_of_512, _mm_add_ps, _mm256_add_ps, _mm512_add_ps);
fold!(max_of_256, max_of_512, max_of_each, maxima_of_512, _mm_max_ps, _mm256_max_ps, _mm512_max_ps);

/// `a / b` by an estimate of `1 / b` and one Newton step: a third of the instruction's time.
///
/// # Safety
///
/// The CPU has AVX-512F.
#[inline(always)]
pub(super) unsafe fn div_512(a: __m512, b: __m512) -> __m512 {
    // SAFETY: the caller has the features.
    unsafe {
        let one_over_b = _mm512_rcp14_ps(b);
        let quotient = _mm512_mul_ps(a, one_over_b);
        _mm512_fmadd_ps(_mm512_fnmadd_ps(quotient, b, a), one_over_b, quotient)
    }
}

/// `√a` by an estimate of `1 / √a` and one Newton step; what is no normal number is estimated as if it were the
/// smallest.
///
/// # Safety
///
/// The CPU has AVX-512F.
#[inline(always)]
pub(super) unsafe fn sqrt_512(a: __m512) -> __m512 {
    // SAFETY: the caller has the features.
    unsafe {
        let one_over_root = _mm512_rsqrt14_ps(_mm512_max_ps(a, _mm512_set1_ps(f32::MIN_POSITIVE)));
        let root = _mm512_mul_ps(a, one_over_root);
        let error = _mm512_fnmadd_ps(root, one_over_root, _mm512_set1_ps(1.0));
        _mm512_fmadd_ps(_mm512_mul_ps(root, _mm512_set1_ps(0.5)), error, root)
    }
}

/// See [`super::Arith::gate_v`].
///
/// # Safety
///
/// The CPU has AVX.
#[inline(always)]
pub(super) unsafe fn gate_256(a: __m256, by: __m256) -> __m256 {
    // SAFETY: the caller has the features.
    unsafe { _mm256_and_ps(a, _mm256_cmp_ps::<_CMP_GT_OQ>(by, _mm256_setzero_ps())) }
}

/// See [`super::Arith::gate_v`].
///
/// # Safety
///
/// The CPU has AVX-512F.
#[inline(always)]
pub(super) unsafe fn gate_512(a: __m512, by: __m512) -> __m512 {
    // SAFETY: the caller has the features.
    unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(by, _mm512_setzero_ps()), a) }
}

/// See [`super::Arith::transpose_8x8`].
///
/// # Safety
///
/// The CPU has AVX.
#[inline(always)]
pub(super) unsafe fn transpose_8x8(x: &[f32], x_row: usize, to: &mut [f32], to_row: usize) {
    assert!(7 * x_row + 8 <= x.len() && 7 * to_row + 8 <= to.len(), "eight rows of eight");
    // SAFETY: the last row ends within each slice; the caller has the features.
    unsafe {
        // Halves of rows r and r + 4 side by side, so that what follows stays within halves.
        let side = |r: usize, col: usize| {
            let low = _mm256_castps128_ps256(_mm_loadu_ps(x.as_ptr().add(r * x_row + col)));
            _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(x.as_ptr().add((r + 4) * x_row + col)))
        };
        for col in [0, 4] {
            let (a, b, c, d) = (side(0, col), side(1, col), side(2, col), side(3, col));
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            let columns = [
                _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low),
                _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low),
                _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
                _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                _mm256_storeu_ps(to.as_mut_ptr().add((col + i) * to_row), column);
            }
        }
    }
}
