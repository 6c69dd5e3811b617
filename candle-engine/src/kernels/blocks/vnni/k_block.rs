//! One token and blocks with sub-scales: row after row, as memory has them, since integers can be added up from anywhere in
//! a block.
//!
//! A register has 64 of a row's quants: 32 of one group and 32 of another, whose bits lie in the same bytes.

use std::arch::x86_64::*;
use std::ops::Range;

use super::unpack::{load16, scales};
use super::{number, Block, Rows, GROUP};
use crate::kernels::panel::{
    add_words, from_array, join, quarter_sums, sums_of_rows, transpose_quarters, Room, Tile, QUAD, SIXTEEN,
};
use crate::kernels::prefetch::{Ahead, LINE};
use crate::weights::Format;

/// Registers that the quants of a block are.
const PARTS: usize = 4;

/// Blocks of a row whose sums are kept together.
const FOUR: usize = 4;

/// Fours of a row's blocks whose sums wait for the other rows, in twos: of products a lane for each block, with parts in
/// all quarters; of mins a quarter for each block, with parts in all lanes.
const KEPT: usize = size_of::<Room>() / size_of::<[[__m512i; SIXTEEN]; 2]>();

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

/// Adds a token's activations to `lines` as they meet the parts of a block.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn lay_out<B: Block>(x: &Tile, lines: &mut Vec<__m512i>) {
    for quads in x.quads.as_chunks::<{ 256 / QUAD }>().0 {
        for part in 0..PARTS {
            let [first, second] = groups::<B>(part);
            lines.push(join(load_group(quads, first), load_group(quads, second)));
        }
    }
}

/// Sixteen rows by one token, whose activations are `lines`; the same float operations in the same order as the
/// specification.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn sixteen<B: Block>(rows: Rows, x: &Tile, lines: &[__m512i], kept: &mut Room) -> __m512 {
    let kept = kept.as_chunks_mut::<2>().0;
    let blocks = rows.len() / B::BYTES;
    assert!(lines.len() >= PARTS * blocks, "lines of a row");
    let ahead = Ahead::new((KEPT * FOUR * B::BYTES).min(rows.len()), rows.len());
    let mut outliers = x.outliers.iter().peekable();
    let mut y = _mm512_setzero_ps();
    for first in (0..blocks).step_by(KEPT * FOUR) {
        let end = blocks.min(first + KEPT * FOUR);
        let fours = (end - first).div_ceil(FOUR);
        for r in 0..SIXTEEN {
            for (four, kept) in kept[..fours].iter_mut().enumerate() {
                let from = first + FOUR * four;
                let count = FOUR.min(end - from);
                [kept[0][r], kept[1][r]] = if count == FOUR {
                    blocks_of::<B, FOUR>(rows, r, from..from + FOUR, x, lines, ahead)
                } else {
                    blocks_of::<B, 0>(rows, r, from..from + count, x, lines, ahead)
                };
            }
        }
        for (four, [dots, mins]) in kept[..fours].iter().enumerate() {
            let mut of_mins = [_mm512_setzero_si512(); 4];
            if B::HAS_MIN {
                for (of_mins, of_rows) in of_mins.iter_mut().zip(mins.as_chunks().0) {
                    *of_mins = quarter_sums(*of_rows);
                }
            }
            let from = first + FOUR * four;
            let (dots, mins) = (sums_of_rows(dots), transpose_quarters(of_mins));
            for (i, block) in (from..end.min(from + FOUR)).enumerate() {
                let rows = rows.skip(block * B::BYTES, B::BYTES);
                let (scale, min) = scales::<B>(rows);
                let x_scale = _mm512_set1_ps(x.scales[block]);
                y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[i]), _mm512_mul_ps(scale, x_scale), y);
                if B::HAS_MIN {
                    y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(mins[i]), _mm512_mul_ps(min, x_scale), y);
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
        }
    }
    y
}

/// The sums of up to four blocks of a row, of products and of mins, as they are kept; `COUNT` is four or 0 for fewer.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn blocks_of<B: Block, const COUNT: usize>(
    rows: Rows,
    r: usize,
    blocks: Range<usize>,
    x: &Tile,
    lines: &[__m512i],
    ahead: Ahead,
) -> [__m512i; 2] {
    let count = if COUNT > 0 { COUNT } else { blocks.len() };
    let in_block = B::LEN / B::PERIOD;
    let mut tables = [_mm512_setzero_si512(); PARTS];
    for (table, periods) in tables.iter_mut().zip(&Tables::<B>::PERIODS) {
        // SAFETY: 64 bytes.
        *table = unsafe { _mm512_loadu_si512(periods.as_ptr().cast()) };
    }
    let of_blocks = rows.skip(blocks.start * B::BYTES, count * B::BYTES);
    ahead.read(of_blocks.row(r), (FOUR * B::BYTES).div_ceil(LINE));
    let pairs = if B::HAS_MIN { &x.pairs[blocks.start * (in_block / 2)..] } else { &[] };
    let (sub_scales, mins) = SubScales::unpack::<B>(of_blocks, r, count, pairs);
    let mut sums = [_mm512_setzero_si512(); FOUR];
    for (i, sum) in sums.iter_mut().enumerate().take(count) {
        let block = blocks.start + i;
        let row = of_blocks.skip(i * B::BYTES, B::BYTES);
        let of_row = sub_scales.of_block::<B>(i);
        if B::OFFSET != 0 {
            let starts = x.starts[block * in_block..].first_chunk::<16>().expect("periods");
            // SAFETY: sixteen periods, those of the formats with an offset.
            let starts = unsafe { _mm512_loadu_si512(starts.as_ptr().cast()) };
            *sum = _mm512_mullo_epi32(_mm512_cvtepi16_epi32(of_row), starts);
        }
        let x: &[_; PARTS] = lines[block * PARTS..].first_chunk().expect("lines of a block");
        let of_row = _mm512_castsi256_si512(of_row);
        // Written out: in a loop quants would be loaded for each part.
        *sum = add_part::<B, 0>(*sum, row, r, x, tables[0], of_row);
        *sum = add_part::<B, 1>(*sum, row, r, x, tables[1], of_row);
        *sum = add_part::<B, 2>(*sum, row, r, x, tables[2], of_row);
        *sum = add_part::<B, 3>(*sum, row, r, x, tables[3], of_row);
    }
    [quarter_sums(sums), mins]
}

/// Adds the products of a part of row `r`'s block, times their sub-scales, to `sum`.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn add_part<B: Block, const PART: usize>(
    sum: __m512i,
    rows: Rows,
    r: usize,
    x: &[__m512i; PARTS],
    table: __m512i,
    sub_scales: __m512i,
) -> __m512i {
    let products = _mm512_maddubs_epi16(quants::<B, PART>(rows, r), x[PART]);
    add_words(sum, products, _mm512_permutexvar_epi16(table, sub_scales))
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

/// Of each of four blocks its 8 or 16 sub-scales.
#[repr(align(64))]
struct SubScales([i16; 16 * FOUR]);

impl SubScales {
    /// Those of row `r`'s first `count` blocks; and their sub-mins times the sums `pairs`: quarter `i` has parts of block
    /// `i`'s sum.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn unpack<B: Block>(rows: Rows, r: usize, count: usize, pairs: &[i32]) -> (Self, __m512i) {
        let mut all = Self([0; 16 * FOUR]);
        let mut of_blocks = [_mm_setzero_si128(); FOUR];
        if matches!(B::FORMAT, Format::Q4_K | Format::Q5_K) {
            for (i, head) in of_blocks.iter_mut().enumerate().take(count) {
                // SAFETY: a block is longer than sixteen bytes.
                *head = unsafe { load16(rows.skip(i * B::BYTES, B::BYTES).row(r)) };
            }
            let (scales, sub_mins) = eight_sub_scales(quarters(of_blocks));
            // SAFETY: eight words of each of the blocks; four of their sums are read.
            unsafe {
                _mm512_store_si512(all.0.as_mut_ptr().cast(), scales);
                let pairs = &pairs[..4 * count];
                let pairs = _mm512_maskz_loadu_epi32(u16::MAX >> (16 - 4 * count), pairs.as_ptr());
                return (all, _mm512_madd_epi16(sub_mins, pairs));
            }
        }
        for (i, (to, mins)) in
            all.0.as_chunks_mut::<16>().0.iter_mut().zip(&mut of_blocks).enumerate().take(count)
        {
            // SAFETY: a block of the row is there.
            let block =
                unsafe { std::slice::from_raw_parts(rows.skip(i * B::BYTES, B::BYTES).row(r), B::BYTES) };
            let (scales, sub_mins) = sixteen_sub_scales::<B>(block);
            // SAFETY: sixteen words.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), scales) };
            if B::HAS_MIN {
                let pairs = pairs[8 * i..].first_chunk::<8>().expect("pairs");
                // SAFETY: sixteen words.
                let pairs = unsafe { _mm256_loadu_si256(pairs.as_ptr().cast()) };
                let sums = _mm256_madd_epi16(sub_mins, pairs);
                *mins = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            }
        }
        (all, quarters(of_blocks))
    }

    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn of_block<B: Block>(&self, i: usize) -> __m256i {
        // SAFETY: eight or sixteen words.
        unsafe {
            if B::LEN / B::PERIOD == 8 {
                let words: &[_; 8] = &self.0.as_chunks().0[i];
                _mm256_castsi128_si256(_mm_loadu_si128(words.as_ptr().cast()))
            } else {
                let words: &[_; 16] = &self.0.as_chunks().0[i];
                _mm256_loadu_si256(words.as_ptr().cast())
            }
        }
    }
}

/// Four quarters of a register.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn quarters(v: [__m128i; 4]) -> __m512i {
    let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(v[0]), v[1]);
    join(low, _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(v[2]), v[3]))
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
