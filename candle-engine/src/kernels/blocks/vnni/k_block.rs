//! One token and blocks with sub-scales: row by row as they lie, since integers can be added up from anywhere in a block.
//!
//! A register has 64 of a row's quants: 32 of one group and 32 of another, whose bits lie in the same bytes.

use std::arch::x86_64::*;

use super::unpack::{half, load16};
use super::{number, Block, Rows, GROUP};
use crate::kernels::panel::{from_array, join, quarter_sums, sums_of_quarters, Tile, QUAD, SIXTEEN};
use crate::kernels::prefetch::Stream;
use crate::weights::Format;

/// Registers that the quants of a block are.
const PARTS: usize = 4;

/// Rows that are multiplied together.
const FOUR: usize = 4;

/// The two groups of a part.
const fn groups<B: Block>(part: usize) -> [usize; 2] {
    match B::FORMAT {
        // Of each 32 bytes the first halves of bytes, then the second.
        Format::Q4_K | Format::Q5_K => [part / 2 * 4 + part % 2, part / 2 * 4 + part % 2 + 2],
        // Of each 64 bytes.
        Format::Q6_K => [2 * part, 2 * part + 1],
        // Of each 32 bytes the first quarters of bytes, and so on.
        _ => [part, part + 4],
    }
}

/// The periods of a part's quants, a word for each two of them.
const fn periods<B: Block>(part: usize) -> [i16; 32] {
    let (groups, per_group) = (groups::<B>(part), GROUP / B::PERIOD);
    let mut periods = [0; 32];
    let mut i = 0;
    while i < 32 {
        periods[i] = (groups[i / 16] * per_group + i % 16 * per_group / 16) as i16;
        i += 1;
    }
    periods
}

/// How far a part's high bits, which lie in 32 bytes for each group, are to be rotated to the left to come to lie above
/// the low ones: those of its first group, and of its second.
const fn rotations<B: Block>(part: usize) -> [i32; 2] {
    let [first, second] = groups::<B>(part);
    let (bits, low) = match B::FORMAT {
        Format::Q5_K => ([first, second], 4),
        Format::Q6_K => ([2 * (first % 4), 2 * (second % 4)], 4),
        _ => ([first, second], 2),
    };
    [(32 + low - bits[0] as i32) % 32, (32 + low - bits[1] as i32) % 32]
}

/// The tables of a format.
struct Tables<B>(std::marker::PhantomData<B>);

impl<B: Block> Tables<B> {
    const PERIODS: [[i16; 32]; PARTS] = [periods::<B>(0), periods::<B>(1), periods::<B>(2), periods::<B>(3)];
    const ROTATIONS: [[i32; 2]; PARTS] =
        [rotations::<B>(0), rotations::<B>(1), rotations::<B>(2), rotations::<B>(3)];
}

/// Sixteen rows by one token; the same float operations in the same order as the specification.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn sixteen<B: Block>(rows: Rows, x: &Tile, stream: &mut Stream) -> __m512 {
    let in_block = B::LEN / B::PERIOD;
    let mut tables = [_mm512_setzero_si512(); PARTS];
    for (table, periods) in tables.iter_mut().zip(&Tables::<B>::PERIODS) {
        // SAFETY: 64 bytes.
        *table = unsafe { _mm512_loadu_si512(periods.as_ptr().cast()) };
    }
    let mut outliers = x.outliers.iter().peekable();
    // Of a block, and written anew for each.
    let mut sub_scales = SubScales([0; 16 * SIXTEEN]);
    let (mut dots, mut mins) = ([_mm512_setzero_si512(); FOUR], [_mm512_setzero_si512(); FOUR]);
    let mut y = _mm512_setzero_ps();
    for block in 0..rows.len() / B::BYTES {
        let rows = rows.skip(block * B::BYTES, B::BYTES);
        let quads: &[i32; 256 / QUAD] = x.quads[block * (B::LEN / QUAD)..].first_chunk().expect("a block");
        let starts = &x.starts[block * in_block..][..in_block];
        let pairs = if B::HAS_MIN { &x.pairs[block * (in_block / 2)..][..in_block / 2] } else { &[] };
        let (scale, min) = sub_scales.unpack::<B>(rows, pairs, &mut mins);
        for (q, dots) in dots.iter_mut().enumerate() {
            stream.read(FOUR * B::BYTES);
            let mut sums = [_mm512_setzero_si512(); FOUR];
            let mut scales = [_mm512_setzero_si512(); FOUR];
            for r in 0..FOUR {
                let of_row = sub_scales.of_row::<B>(FOUR * q + r);
                scales[r] = _mm512_castsi256_si512(of_row);
                if B::OFFSET != 0 {
                    // SAFETY: sixteen periods, those of the formats with an offset.
                    let starts = unsafe {
                        _mm512_loadu_si512(starts.first_chunk::<16>().expect("periods").as_ptr().cast())
                    };
                    sums[r] = _mm512_mullo_epi32(_mm512_cvtepi16_epi32(of_row), starts);
                }
            }
            // Written out: in a loop quants would be loaded for each part.
            add_part::<B, 0>(rows, FOUR * q, quads, tables[0], &scales, &mut sums);
            add_part::<B, 1>(rows, FOUR * q, quads, tables[1], &scales, &mut sums);
            add_part::<B, 2>(rows, FOUR * q, quads, tables[2], &scales, &mut sums);
            add_part::<B, 3>(rows, FOUR * q, quads, tables[3], &scales, &mut sums);
            *dots = quarter_sums(sums);
        }
        let x_scale = _mm512_set1_ps(x.scales[block]);
        let dots = _mm512_cvtepi32_ps(sums_of_quarters(dots));
        y = _mm512_fmadd_ps(dots, _mm512_mul_ps(scale, x_scale), y);
        if B::HAS_MIN {
            // Row 4·q + r is where row 4·r + q should be.
            let dots = transpose_fours(quarter_sums(mins));
            y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_mul_ps(min, x_scale), y);
        }
        while let Some(outlier) = outliers.next_if(|o| o.input < (block + 1) * B::LEN) {
            let mut weights = [0.0; SIXTEEN];
            for (r, weight) in weights.iter_mut().enumerate() {
                // SAFETY: a block of each row is there.
                let block = unsafe { std::slice::from_raw_parts(rows.row(r), B::BYTES) };
                *weight = number::<B>(block, outlier.input % B::LEN);
            }
            y = _mm512_fmadd_ps(_mm512_set1_ps(outlier.value), from_array(&weights), y);
        }
    }
    y
}

/// Adds the products of a part of four rows from `first` on, times their sub-scales, to `sums`.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn add_part<B: Block, const PART: usize>(
    rows: Rows,
    first: usize,
    quads: &[i32; 256 / QUAD],
    table: __m512i,
    sub_scales: &[__m512i; FOUR],
    sums: &mut [__m512i; FOUR],
) {
    let [low, high] = const { groups::<B>(PART) };
    let activations = join(load_group(quads, low), load_group(quads, high));
    for r in 0..FOUR {
        let products = _mm512_maddubs_epi16(quants::<B, PART>(rows, first + r), activations);
        sums[r] = add_words(sums[r], products, _mm512_permutexvar_epi16(table, sub_scales[r]));
    }
}

/// Adds products of words, in twos, to `sum`. The compiler would make two instructions of the one.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn add_words(mut sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
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

/// The activations of a group.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn load_group(quads: &[i32; 256 / QUAD], group: usize) -> __m256i {
    let quads = &quads[group * (GROUP / QUAD)..][..GROUP / QUAD];
    // SAFETY: 32 bytes, and any alignment will do.
    unsafe { _mm256_loadu_si256(quads.as_ptr().cast()) }
}

/// Part `PART` of row `r`'s block.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn quants<B: Block, const PART: usize>(rows: Rows, r: usize) -> __m512i {
    // Where the low bits lie, how far up in their bytes, and how many; where the high bits lie, and their mask.
    let (low, shift, bits, high) = match B::FORMAT {
        Format::Q4_K => (16 + 64 * (PART / 2), 4 * (PART % 2), 15, None),
        Format::Q5_K => (48 + 64 * (PART / 2), 4 * (PART % 2), 15, Some((16, 0x10))),
        Format::Q6_K => (64 * (PART / 2), 4 * (PART % 2), 15, Some((128 + 32 * (PART / 2), 0x30))),
        Format::Q2_K => (16, 2 * PART, 3, None),
        Format::Q3_K => (32, 2 * PART, 3, Some((0, 4))),
        _ => unreachable!("blocks without sub-scales"),
    };
    // SAFETY: 64 bytes of the row's block, at any alignment.
    let bytes = unsafe { _mm512_loadu_si512(rows.skip(low, 64).row(r).cast()) };
    // The mask takes away what comes from the neighbour.
    let shifted = if shift == 0 { bytes } else { _mm512_srl_epi16(bytes, _mm_cvtsi32_si128(shift as i32)) };
    let quants = _mm512_and_si512(shifted, _mm512_set1_epi8(bits));
    let Some((at, mask)) = high else { return quants };
    // SAFETY: 32 bytes of the row's block, at any alignment.
    let bytes = unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(rows.skip(at, 32).row(r).cast())) };
    let [first, second] = Tables::<B>::ROTATIONS[PART];
    let rotated = _mm512_rolv_epi32(bytes, join(_mm256_set1_epi32(first), _mm256_set1_epi32(second)));
    // quants | rotated & mask
    _mm512_ternarylogic_epi32::<0xf8>(quants, rotated, _mm512_set1_epi8(mask))
}

/// Of each of sixteen rows its block's 8 or 16 sub-scales.
#[repr(align(64))]
struct SubScales([i16; 16 * SIXTEEN]);

impl SubScales {
    /// Returns scales and mins of blocks, and multiplies their sub-mins by the sums `pairs`: quarter `r` of `mins[q]` are
    /// parts of row `4 · q + r`'s sum.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn unpack<B: Block>(
        &mut self,
        rows: Rows,
        pairs: &[i32],
        mins: &mut [__m512i; FOUR],
    ) -> (__m512, __m512) {
        if !matches!(B::FORMAT, Format::Q4_K | Format::Q5_K) {
            for (r, to) in self.0.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                // SAFETY: a block of each row is there.
                let block = unsafe { std::slice::from_raw_parts(rows.row(r), B::BYTES) };
                let (scales, sub_mins) = sixteen_sub_scales::<B>(block);
                // SAFETY: sixteen words.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), scales) };
                if B::HAS_MIN {
                    // SAFETY: sixteen words.
                    let pairs = unsafe {
                        _mm256_loadu_si256(pairs.first_chunk::<8>().expect("pairs").as_ptr().cast())
                    };
                    let sums = _mm256_madd_epi16(sub_mins, pairs);
                    let sums =
                        _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
                    let to = &mut mins[r / FOUR];
                    *to = _mm512_mask_mov_epi32(*to, 15 << (4 * (r % FOUR)), _mm512_broadcast_i32x4(sums));
                }
            }
            return super::scales::<B>(rows);
        }
        // SAFETY: eight words.
        let pairs = unsafe { load16(pairs.first_chunk::<4>().expect("pairs").as_ptr().cast()) };
        let mut heads = [_mm512_setzero_si512(); FOUR];
        for (q, head) in heads.iter_mut().enumerate() {
            for r in 0..FOUR {
                // SAFETY: a block is longer than sixteen bytes.
                let row = _mm512_broadcast_i32x4(unsafe { load16(rows.row(FOUR * q + r)) });
                *head = _mm512_mask_mov_epi32(*head, 15 << (4 * r), row);
            }
            let (scales, sub_mins) = eight_sub_scales(*head);
            mins[q] = _mm512_madd_epi16(sub_mins, _mm512_broadcast_i32x4(pairs));
            let to: &mut [_; FOUR * 8] = &mut self.0.as_chunks_mut().0[q];
            // SAFETY: eight words of each row.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), scales) };
        }
        // The first words of each row.
        let two = [_mm512_unpacklo_epi32(heads[0], heads[1]), _mm512_unpacklo_epi32(heads[2], heads[3])];
        let both = transpose_fours(_mm512_unpacklo_epi64(two[0], two[1]));
        let min = half(_mm512_srli_epi32::<16>(both));
        (half(both), _mm512_xor_ps(min, _mm512_set1_ps(-0.0)))
    }

    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn of_row<B: Block>(&self, r: usize) -> __m256i {
        // SAFETY: eight or sixteen words.
        unsafe {
            if B::LEN / B::PERIOD == 8 {
                let words: &[_; 8] = &self.0.as_chunks().0[r];
                _mm256_castsi128_si256(_mm_loadu_si128(words.as_ptr().cast()))
            } else {
                let words: &[_; 16] = &self.0.as_chunks().0[r];
                _mm256_loadu_si256(words.as_ptr().cast())
            }
        }
    }
}

/// Number `4 · i + j` to where number `4 · j + i` was.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn transpose_fours(v: __m512i) -> __m512i {
    let from = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_permutexvar_epi32(from, v)
}

/// The sub-scales and sub-mins, as words, of four blocks of Q4_K or Q5_K, which begin with a quarter of `heads` each.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn eight_sub_scales(heads: __m512i) -> (__m512i, __m512i) {
    const NONE: i8 = -1;
    let bytes = |at: [i8; 8]| {
        let [a, b, c, d, e, f, g, h] = at;
        let words = _mm_setr_epi8(a, NONE, b, NONE, c, NONE, d, NONE, e, NONE, f, NONE, g, NONE, h, NONE);
        _mm512_shuffle_epi8(heads, _mm512_broadcast_i32x4(words))
    };
    let low = _mm512_broadcast_i32x4(_mm_setr_epi16(63, 63, 63, 63, 15, 15, 15, 15));
    let up = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 0, 0, 0, 4, 4, 4, 4));
    // The upper two bits of a first byte, as bits 4 and 5.
    let join = |low, first| {
        let high = _mm512_srli_epi16::<2>(first);
        _mm512_ternarylogic_epi32::<0xf8>(low, high, _mm512_set1_epi16(0x30))
    };
    let scales = _mm512_and_si512(bytes([4, 5, 6, 7, 12, 13, 14, 15]), low);
    let mins = _mm512_and_si512(_mm512_srlv_epi16(bytes([8, 9, 10, 11, 12, 13, 14, 15]), up), low);
    let firsts = |at: i8| bytes([NONE, NONE, NONE, NONE, at, at + 1, at + 2, at + 3]);
    (join(scales, firsts(4)), join(mins, firsts(8)))
}

/// [`Block::sub_scale`] of a block with sixteen.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn sixteen_sub_scales<B: Block>(block: &[u8]) -> (__m256i, __m256i) {
    // SAFETY: sixteen bytes from there on.
    let at = |at: usize| unsafe { load16(block[at..].first_chunk::<16>().expect("sixteen bytes").as_ptr()) };
    let zero = _mm256_setzero_si256();
    match B::FORMAT {
        Format::Q6_K => (_mm256_cvtepi8_epi16(at(192)), zero),
        Format::Q2_K => {
            let both = _mm256_cvtepu8_epi16(at(0));
            (_mm256_and_si256(both, _mm256_set1_epi16(15)), _mm256_srli_epi16::<4>(both))
        }
        _ => {
            let mut scales = [0; 16];
            for (i, scale) in scales.iter_mut().enumerate() {
                *scale = B::sub_scale(block, i).0 as i16;
            }
            // SAFETY: sixteen words.
            (unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) }, zero)
        }
    }
}
