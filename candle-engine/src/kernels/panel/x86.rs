//! What the levels of x86-64 share.

use std::arch::x86_64::*;
use std::cell::RefCell;

use super::SIXTEEN;

/// Adds products of words, in twos, to `sum`. The compiler would make two instructions of the one.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub fn add_words(mut sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: arithmetic of registers.
    unsafe {
        std::arch::asm!(
            "vpdpwssd {sum}, {a}, {b}",
            sum = inout(zmm_reg) sum, a = in(zmm_reg) a, b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

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

/// Adds up the lanes of eight vectors: those of their low halves, and those of their high halves.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub fn sums_of_eight(v: [__m256i; 8]) -> [__m256i; 2] {
    let four = |i: usize| {
        _mm256_hadd_epi32(_mm256_hadd_epi32(v[i], v[i + 1]), _mm256_hadd_epi32(v[i + 2], v[i + 3]))
    };
    let (a, b) = (four(0), four(4));
    [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)]
}

/// Rows of sixteen 32-bit parts to columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub fn transpose_sixteen(v: [__m512i; 16]) -> [__m512i; 16] {
    // Twos of rows, then fours, within each quarter of the columns; then the quarters.
    let mut two = [_mm512_setzero_si512(); 16];
    for i in 0..8 {
        two[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        two[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    let mut columns = [_mm512_setzero_si512(); 16];
    for j in 0..4 {
        // Column j of each quarter, of four rows each.
        let mut four = [_mm512_setzero_si512(); 4];
        for i in 0..4 {
            let (a, b) = (two[4 * i + j / 2], two[4 * i + 2 + j / 2]);
            four[i] = if j % 2 == 0 { _mm512_unpacklo_epi64(a, b) } else { _mm512_unpackhi_epi64(a, b) };
        }
        let quarters = transpose_quarters(four);
        for i in 0..4 {
            columns[4 * i + j] = quarters[i];
        }
    }
    columns
}

/// Rows of four 128-bit parts to columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub fn transpose_quarters(v: [__m512i; 4]) -> [__m512i; 4] {
    let low = [_mm512_shuffle_i32x4::<0x44>(v[0], v[1]), _mm512_shuffle_i32x4::<0x44>(v[2], v[3])];
    let high = [_mm512_shuffle_i32x4::<0xee>(v[0], v[1]), _mm512_shuffle_i32x4::<0xee>(v[2], v[3])];
    [
        _mm512_shuffle_i32x4::<0x88>(low[0], low[1]),
        _mm512_shuffle_i32x4::<0xdd>(low[0], low[1]),
        _mm512_shuffle_i32x4::<0x88>(high[0], high[1]),
        _mm512_shuffle_i32x4::<0xdd>(high[0], high[1]),
    ]
}

/// Adds up each quarter of four vectors: quarter `q` of the result has those of `v[0]`, `v[1]`, `v[2]`, `v[3]`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub fn quarter_sums(v: [__m512i; 4]) -> __m512i {
    let a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    let b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
}

/// Rows of four 32-bit parts to columns; row `4·q + i` is quarter `q` of `v[i]`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub fn sixteen_words(v: [__m512i; 4]) -> [__m512i; 4] {
    let low = [_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpacklo_epi32(v[2], v[3])];
    let high = [_mm512_unpackhi_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[2], v[3])];
    [
        _mm512_unpacklo_epi64(low[0], low[1]),
        _mm512_unpackhi_epi64(low[0], low[1]),
        _mm512_unpacklo_epi64(high[0], high[1]),
        _mm512_unpackhi_epi64(high[0], high[1]),
    ]
}

/// Two halves of a register.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub fn join(low: __m256i, high: __m256i) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// The numbers of a register.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub fn to_array(v: __m512) -> [f32; SIXTEEN] {
    let mut out = [0.0; SIXTEEN];
    // SAFETY: sixteen floats, and any alignment will do.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) };
    out
}

/// The integers of a register.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub fn to_integers(v: __m512i) -> [i32; SIXTEEN] {
    let mut out = [0; SIXTEEN];
    // SAFETY: sixteen integers, and any alignment will do.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) };
    out
}

/// A register of numbers.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub fn from_array(v: &[f32; SIXTEEN]) -> __m512 {
    // SAFETY: sixteen floats, and any alignment will do.
    unsafe { _mm512_loadu_ps(v.as_ptr()) }
}

/// Adds four vectors up by their quarters: quarter `q` of the result is the sum of the quarters of `v[q]`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub fn sums_of_quarters(v: [__m512i; 4]) -> __m512i {
    let two = |a, b| {
        let (first, second) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
        _mm512_add_epi32(first, second)
    };
    let (low, high) = (two(v[0], v[1]), two(v[2], v[3]));
    let (first, second) = (_mm512_shuffle_i32x4::<0x88>(low, high), _mm512_shuffle_i32x4::<0xdd>(low, high));
    _mm512_add_epi32(first, second)
}

/// Of sixteen rows four sums each, a lane for each sum with parts in all quarters: the sums, one row a lane.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub fn sums_of_rows(v: &[__m512i; SIXTEEN]) -> [__m512i; 4] {
    let mut of_rows = [_mm512_setzero_si512(); 4];
    for (i, of_rows) in of_rows.iter_mut().enumerate() {
        *of_rows = sums_of_quarters([v[i], v[4 + i], v[8 + i], v[12 + i]]);
    }
    sixteen_words(of_rows)
}

/// Registers of each of sixteen rows that wait until those of the last row are there: 16 KB.
pub type Room = [[__m512i; SIXTEEN]; 16];

thread_local! {
    /// Kept from call to call: to clear it takes as long as a small matrix.
    static ROOM: RefCell<Option<Box<Room>>> = const { RefCell::new(None) };
}

/// Calls `f` with room, of which nothing is known.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn with_room(f: impl FnOnce(&mut Room)) {
    ROOM.with_borrow_mut(|room| {
        f(room.get_or_insert_with(|| Box::new([[_mm512_setzero_si512(); SIXTEEN]; 16])))
    });
}

/// `(v >> shift) & mask` of each lane.
#[target_feature(enable = "avx512f")]
#[inline]
pub fn field_of_sixteen(v: __m512i, shift: usize, mask: i32) -> __m512i {
    _mm512_and_si512(_mm512_srl_epi32(v, _mm_cvtsi32_si128(shift as i32)), _mm512_set1_epi32(mask))
}

/// [`field_of_sixteen`] of eight.
#[target_feature(enable = "avx2")]
#[inline]
pub fn field_of_eight(v: __m256i, shift: usize, mask: i32) -> __m256i {
    _mm256_and_si256(_mm256_srl_epi32(v, _mm_cvtsi32_si128(shift as i32)), _mm256_set1_epi32(mask))
}
