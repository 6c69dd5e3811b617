//! What the levels of x86-64 share.

use std::arch::x86_64::*;

/// Rows of eight 32-bit parts to columns.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub fn transpose(v: [__m256i; 8]) -> [__m256i; 8] {
    // Twos of rows, then fours, within each half of the columns; then the halves.
    let mut two = [_mm256_setzero_si256(); 8];
    for i in 0..4 {
        two[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        two[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    let mut four = [_mm256_setzero_si256(); 8];
    for i in 0..2 {
        for j in 0..2 {
            four[4 * i + 2 * j] = _mm256_unpacklo_epi64(two[4 * i + j], two[4 * i + 2 + j]);
            four[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(two[4 * i + j], two[4 * i + 2 + j]);
        }
    }
    let mut columns = [_mm256_setzero_si256(); 8];
    for i in 0..4 {
        columns[i] = _mm256_permute2x128_si256::<0x20>(four[i], four[4 + i]);
        columns[4 + i] = _mm256_permute2x128_si256::<0x31>(four[i], four[4 + i]);
    }
    columns
}
