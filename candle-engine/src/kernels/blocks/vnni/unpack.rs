//! The quants of a row, 64 at once, and the scales of sixteen rows.

use std::arch::x86_64::*;

use super::{Block, Rows, Step, GROUP, MOST_SCALES};
use crate::kernels::panel::{join, sixteen_words};
use crate::weights::Format;

/// [`Block::quants`] of two groups from `2·u` on, unsigned; unless `WHOLE`, of one, and anything.
///
/// # Safety
///
/// A step, or unless `WHOLE` a block, can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn unit<B: Block, const WHOLE: bool>(step: *const u8, u: usize) -> __m512i {
    // SAFETY: all that is read lies in the block, or in the second of two, by the layouts in `formats.rs`.
    unsafe {
        let step = if B::LEN == GROUP { step.add(2 * u * B::BYTES) } else { step };
        match B::FORMAT {
            Format::Q8_0 => {
                let first = load32(step.add(2));
                let quants = if WHOLE { join(first, load32(step.add(B::BYTES + 2))) } else { alone(first) };
                _mm512_xor_si512(quants, _mm512_set1_epi8(i8::MIN))
            }
            Format::Q4_0 => nibbles::<B, WHOLE>(step.add(2)),
            Format::Q4_1 => nibbles::<B, WHOLE>(step.add(4)),
            Format::Q5_0 => fifth_bits::<B, WHOLE>(nibbles::<B, WHOLE>(step.add(6)), step.add(2)),
            Format::Q5_1 => fifth_bits::<B, WHOLE>(nibbles::<B, WHOLE>(step.add(8)), step.add(4)),
            Format::Q2_K => bits(step.add(16 + u / 2 * 32), 4 * (u % 2), 4 * (u % 2) + 2, 3),
            Format::Q3_K => {
                let high = _mm512_slli_epi16::<2>(bits(step, 2 * u, 2 * u + 1, 1));
                _mm512_or_si512(bits(step.add(32 + u / 2 * 32), 4 * (u % 2), 4 * (u % 2) + 2, 3), high)
            }
            Format::Q4_K => bits(step.add(16 + u * 32), 0, 4, 15),
            Format::Q5_K => {
                let high = _mm512_slli_epi16::<4>(bits(step.add(16), 2 * u, 2 * u + 1, 1));
                _mm512_or_si512(bits(step.add(48 + u * 32), 0, 4, 15), high)
            }
            Format::Q6_K => {
                let (half, quarter) = (u / 2, u % 2 * 2);
                let low = _mm512_loadu_si512(step.add(half * 64).cast());
                let low = _mm512_srl_epi16(low, _mm_cvtsi32_si128(2 * quarter as i32));
                let low = _mm512_and_si512(low, _mm512_set1_epi8(15));
                let high = bits(step.add(128 + half * 32), 2 * quarter, 2 * quarter + 2, 3);
                _mm512_or_si512(low, _mm512_slli_epi16::<4>(high))
            }
            _ => unreachable!(),
        }
    }
}

/// The four-bit halves of 16 bytes of a block, and of those in the next.
///
/// # Safety
///
/// They can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn nibbles<B: Block, const WHOLE: bool>(at: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    let (first, second) = unsafe { (load16(at), load16(if WHOLE { at.add(B::BYTES) } else { at })) };
    // Each twice, the low halves from the one, the high halves from the other.
    let both = join(_mm256_broadcastsi128_si256(first), _mm256_broadcastsi128_si256(second));
    let shift = _mm512_set_epi64(C4, C4, 0, 0, C4, C4, 0, 0);
    _mm512_and_si512(_mm512_srlv_epi16(both, shift), _mm512_set1_epi8(15))
}

/// A shift by four in each 16 bits.
const C4: i64 = 0x0004_0004_0004_0004;

/// 32 bits of a block and those of the next, each added as the bit of value 16 to a byte of its own.
///
/// # Safety
///
/// They can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn fifth_bits<B: Block, const WHOLE: bool>(low: __m512i, at: *const u8) -> __m512i {
    // SAFETY: the caller's promise.
    let word = |at: *const u8| u64::from(u32::from_le(unsafe { at.cast::<u32>().read_unaligned() }));
    let bits = word(at) | if WHOLE { word(at.wrapping_add(B::BYTES)) << 32 } else { 0 };
    _mm512_mask_add_epi8(low, bits, low, _mm512_set1_epi8(16))
}

/// `(byte >> shift) & mask` of 32 bytes, by the one shift and then by the other; the mask takes away what comes
/// from the neighbour.
///
/// # Safety
///
/// They can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn bits(at: *const u8, first: usize, second: usize, mask: i8) -> __m512i {
    // SAFETY: the caller's promise.
    let both = _mm512_broadcast_i64x4(unsafe { load32(at) });
    let shift = join(_mm256_set1_epi16(first as i16), _mm256_set1_epi16(second as i16));
    _mm512_and_si512(_mm512_srlv_epi16(both, shift), _mm512_set1_epi8(mask))
}

/// [`Block::scale`] of sixteen rows' step, one row a lane.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn unpack_scales<B: Block, const WHOLE: bool>(
    rows: Rows,
    scales: &mut [__m512; MOST_SCALES],
    mins: &mut [__m512; MOST_SCALES],
) {
    let blocks = if WHOLE { Step::<B>::BLOCKS } else { 1 };
    match B::FORMAT {
        Format::Q4_0 | Format::Q5_0 if WHOLE => {
            for (i, two) in halves::<B>(rows).into_iter().enumerate() {
                (scales[2 * i], scales[2 * i + 1]) = (half(two), half(_mm512_srli_epi32::<16>(two)));
            }
        }
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => {
            for (b, scale) in scales[..blocks].iter_mut().enumerate() {
                *scale = half(words(rows, b * B::BYTES));
            }
        }
        Format::Q4_1 | Format::Q5_1 => {
            for b in 0..blocks {
                let both = words(rows, b * B::BYTES);
                (scales[b], mins[b]) = (half(both), half(_mm512_srli_epi32::<16>(both)));
            }
        }
        Format::Q2_K => {
            let both = words(rows, 80);
            let (d, dmin) = (half(both), negative(half(_mm512_srli_epi32::<16>(both))));
            for (word, packed) in four_words(rows, 0).into_iter().enumerate() {
                for i in 0..4 {
                    scales[4 * word + i] = scaled(d, field(packed, 8 * i, 15));
                    mins[4 * word + i] = scaled(dmin, field(packed, 8 * i + 4, 15));
                }
            }
        }
        Format::Q3_K => {
            // The block ends with the half float.
            let d = half(_mm512_srli_epi32::<16>(words(rows, 106)));
            let packed = [words(rows, 96), words(rows, 100), words(rows, 104)];
            for i in 0..16 {
                let low = field(packed[i / 4 % 2], i % 4 * 8 + i / 8 * 4, 15);
                let high = field(packed[2], i % 4 * 8 + i / 4 * 2, 3);
                let both = _mm512_or_si512(low, _mm512_slli_epi32::<4>(high));
                scales[i] = scaled(d, _mm512_sub_epi32(both, _mm512_set1_epi32(32)));
            }
        }
        Format::Q4_K | Format::Q5_K => {
            let [both, a, b, c] = four_words(rows, 0);
            let (d, dmin) = (half(both), negative(half(_mm512_srli_epi32::<16>(both))));
            for i in 0..4 {
                scales[i] = scaled(d, field(a, 8 * i, 63));
                mins[i] = scaled(dmin, field(b, 8 * i, 63));
                let high = |v| _mm512_slli_epi32::<4>(field(v, 8 * i + 6, 3));
                scales[i + 4] = scaled(d, _mm512_or_si512(field(c, 8 * i, 15), high(a)));
                mins[i + 4] = scaled(dmin, _mm512_or_si512(field(c, 8 * i + 4, 15), high(b)));
            }
        }
        Format::Q6_K => {
            let d = half(_mm512_srli_epi32::<16>(words(rows, 206)));
            for (word, packed) in four_words(rows, 192).into_iter().enumerate() {
                for i in 0..4 {
                    // With its sign: up to the top, and down again.
                    let top = _mm512_sll_epi32(packed, _mm_cvtsi32_si128(24 - 8 * i as i32));
                    scales[4 * word + i] = scaled(d, _mm512_srai_epi32::<24>(top));
                }
            }
        }
        _ => unreachable!(),
    }
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn negative(v: __m512) -> __m512 {
    _mm512_xor_ps(v, _mm512_set1_ps(-0.0))
}

/// `(v >> shift) & mask`
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn field(v: __m512i, shift: usize, mask: i32) -> __m512i {
    _mm512_and_si512(_mm512_srl_epi32(v, _mm_cvtsi32_si128(shift as i32)), _mm512_set1_epi32(mask))
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn scaled(d: __m512, by: __m512i) -> __m512 {
    _mm512_mul_ps(d, _mm512_cvtepi32_ps(by))
}

/// The half floats in the low 16 bits of each lane.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn half(v: __m512i) -> __m512 {
    _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v))
}

/// The 32 bits at byte `at` of sixteen rows.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn words(rows: Rows, at: usize) -> __m512i {
    let rows = rows.skip(at, 4);
    // SAFETY: four bytes of each row are there.
    let word = |r: usize| unsafe { rows.row(r).cast::<i32>().read_unaligned() };
    let mut quarters = [_mm_setzero_si128(); 4];
    for (q, quarter) in quarters.iter_mut().enumerate() {
        *quarter = _mm_setr_epi32(word(4 * q), word(4 * q + 1), word(4 * q + 2), word(4 * q + 3));
    }
    let halves = [
        _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(quarters[0]), quarters[1]),
        _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(quarters[2]), quarters[3]),
    ];
    join(halves[0], halves[1])
}

/// The four times 32 bits from byte `at` on of sixteen rows.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn four_words(rows: Rows, at: usize) -> [__m512i; 4] {
    let rows = rows.skip(at, 16);
    let mut v = [_mm512_setzero_si512(); 4];
    for (i, v) in v.iter_mut().enumerate() {
        let mut four = [_mm_setzero_si128(); 4];
        for (q, row) in four.iter_mut().enumerate() {
            // SAFETY: sixteen bytes of each row are there.
            *row = unsafe { load16(rows.row(4 * q + i)) };
        }
        *v = quarters(four);
    }
    sixteen_words(v)
}

/// The half floats with which a step's eight blocks begin, in twos, of sixteen rows.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn halves<B: Block>(rows: Rows) -> [__m512i; 4] {
    let rows = rows.skip(0, Step::<B>::BYTES);
    let mut v = [_mm512_setzero_si512(); 4];
    for (i, v) in v.iter_mut().enumerate() {
        let mut four = [_mm_setzero_si128(); 4];
        for (q, row) in four.iter_mut().enumerate() {
            // SAFETY: a step of each row is there.
            *row = unsafe { row_halves::<B>(rows.row(4 * q + i)) };
        }
        *v = quarters(four);
    }
    sixteen_words(v)
}

/// The half floats with which the eight blocks of a row's step begin.
///
/// # Safety
///
/// The step can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn row_halves<B: Block>(step: *const u8) -> __m128i {
    assert!(B::BYTES < 32 && 2 * B::BYTES >= 32, "two blocks begin in a pair's first 32 bytes");
    // Which 16 bits: of the pairs 0 and 1, in one register, then of 2 and 3, in another.
    let next = (B::BYTES / 2) as i64;
    let index = next << 16 | 16 << 32 | (16 + next) << 48;
    let index = _mm512_zextsi128_si512(_mm_set_epi64x(index + 0x0020_0020_0020_0020, index));
    // SAFETY: the four pairs are in the step, and are no shorter than what is read of them.
    let [a, b, c, d] = unsafe { [0, 2, 4, 6].map(|block| load32(step.add(block * B::BYTES))) };
    _mm512_castsi512_si128(_mm512_permutex2var_epi16(join(a, b), index, join(c, d)))
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn quarters(v: [__m128i; 4]) -> __m512i {
    let half = |a, b| _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    join(half(v[0], v[1]), half(v[2], v[3]))
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn alone(low: __m256i) -> __m512i {
    _mm512_zextsi256_si512(low)
}

/// # Safety
///
/// 16 bytes can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn load16(at: *const u8) -> __m128i {
    // SAFETY: the caller's promise; any alignment will do.
    unsafe { _mm_loadu_si128(at.cast()) }
}

/// # Safety
///
/// 32 bytes can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn load32(at: *const u8) -> __m256i {
    // SAFETY: the caller's promise; any alignment will do.
    unsafe { _mm256_loadu_si256(at.cast()) }
}
