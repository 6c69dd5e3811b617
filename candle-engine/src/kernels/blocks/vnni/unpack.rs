//! The quants and the scales of sixteen rows, one row a lane.

use std::arch::x86_64::*;

use super::{Block, Rows, GROUP, MOST_SCALES};
use crate::kernels::panel::{field_of_sixteen as field, join, sixteen_words, QUAD};
use crate::weights::Format;

/// A group's quants: four numbers of each of sixteen rows, and so on.
pub(super) type Quads = [__m512i; GROUP / QUAD];

/// The groups of a block that turn `turn` of [`quads`] unpacks: those that lie in the same bytes.
pub(super) const fn groups<B: Block>(turn: usize) -> [usize; 2] {
    match B::FORMAT {
        Format::Q6_K => [turn / 2 * 4 + turn % 2, turn / 2 * 4 + turn % 2 + 2],
        _ => [2 * turn, 2 * turn + 1],
    }
}

/// [`Block::quants`] of two groups of sixteen rows' block, those that [`groups`] names; where a block has one, the
/// second is anything. `high` has the bytes with high bits from one turn to the next; it is for these turns alone.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn quads<B: Block>(rows: Rows, turn: usize, high: &mut Quads) -> [Quads; 2] {
    let [first, second] = groups::<B>(turn);
    match B::FORMAT {
        Format::Q8_0 => {
            let v = eight_words(rows, 2);
            [v, v]
        }
        Format::Q4_0 => nibbles(four_words(rows, 2)),
        Format::Q4_1 => nibbles(four_words(rows, 4)),
        Format::Q5_0 => fifth_bits(nibbles(four_words(rows, 6)), words(rows, 2)),
        Format::Q5_1 => fifth_bits(nibbles(four_words(rows, 8)), words(rows, 4)),
        Format::Q4_K => {
            let v = eight_words(rows, 16 + 32 * turn);
            [bits(v, 0, 15), bits(v, 4, 15)]
        }
        Format::Q5_K => {
            let (v, high) = (eight_words(rows, 48 + 32 * turn), eight_words(rows, 16));
            [
                with::<4>(bits(v, 0, 15), bits(high, first, 1)),
                with::<4>(bits(v, 4, 15), bits(high, second, 1)),
            ]
        }
        Format::Q6_K => {
            let half = turn / 2;
            if turn.is_multiple_of(2) {
                *high = eight_words(rows, 128 + 32 * half);
            }
            let v = eight_words(rows, 64 * half + 32 * (turn % 2));
            [
                with::<4>(bits(v, 0, 15), bits(*high, 2 * (first % 4), 3)),
                with::<4>(bits(v, 4, 15), bits(*high, 2 * (second % 4), 3)),
            ]
        }
        Format::Q2_K => {
            let v = eight_words(rows, 16 + first / 4 * 32);
            [bits(v, 2 * (first % 4), 3), bits(v, 2 * (second % 4), 3)]
        }
        Format::Q3_K => {
            if turn == 0 {
                *high = eight_words(rows, 0);
            }
            let v = eight_words(rows, 32 + first / 4 * 32);
            [
                with::<2>(bits(v, 2 * (first % 4), 3), bits(*high, first, 1)),
                with::<2>(bits(v, 2 * (second % 4), 3), bits(*high, second, 1)),
            ]
        }
        _ => unreachable!(),
    }
}

/// The halves of a block's bytes: all low ones, then all high ones. Twice the same.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn nibbles([a, b, c, d]: [__m512i; 4]) -> [Quads; 2] {
    let ([a, b, c, d, ..], [e, f, g, h, ..]) =
        (bits([a, b, c, d, a, b, c, d], 0, 15), bits([a, b, c, d, a, b, c, d], 4, 15));
    let v = [a, b, c, d, e, f, g, h];
    [v, v]
}

/// `(byte >> shift) & mask` of every byte.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn bits(mut v: Quads, shift: usize, mask: i8) -> Quads {
    for v in &mut v {
        // The mask takes away what comes from the neighbour.
        let shifted = _mm512_srl_epi16(*v, _mm_cvtsi32_si128(shift as i32));
        *v = _mm512_and_si512(shifted, _mm512_set1_epi8(mask));
    }
    v
}

/// `low | high << SHIFT` of every byte.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn with<const SHIFT: u32>(mut low: Quads, high: Quads) -> Quads {
    for j in 0..low.len() {
        low[j] = _mm512_or_si512(low[j], _mm512_slli_epi16::<SHIFT>(high[j]));
    }
    low
}

/// Adds the 32 bits of each row, each as the bit of value 16 to a number of its own.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn fifth_bits([mut v, _]: [Quads; 2], bits: __m512i) -> [Quads; 2] {
    // A quad's four bits, in its row's lane in every byte, of which each looks at its own.
    let (own, quarter) = (_mm512_set1_epi32(0x0804_0201), _mm512_set1_epi32(0x0101_0101));
    for (j, v) in v.iter_mut().enumerate() {
        let four = field(bits, 4 * j, 15);
        let every = _mm512_mullo_epi32(four, quarter);
        let set = _mm512_test_epi8_mask(every, own);
        *v = _mm512_mask_add_epi8(*v, set, *v, _mm512_set1_epi8(16));
    }
    [v, v]
}

/// [`Block::scale`] of sixteen rows' block, one row a lane.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn scales<B: Block>(rows: Rows) -> (__m512, __m512) {
    let high = |both| half(_mm512_srli_epi32::<16>(both));
    let zero = _mm512_setzero_ps();
    match B::FORMAT {
        Format::Q4_1 | Format::Q5_1 => {
            let both = words(rows, 0);
            (half(both), high(both))
        }
        Format::Q2_K => {
            let both = words(rows, 80);
            (half(both), negative(high(both)))
        }
        // Its block ends with the half float, as the next one.
        Format::Q3_K => (high(words(rows, 106)), zero),
        Format::Q6_K => (high(words(rows, 206)), zero),
        Format::Q4_K | Format::Q5_K => {
            let both = words(rows, 0);
            (half(both), negative(high(both)))
        }
        _ => (half(words(rows, 0)), zero),
    }
}

/// [`Block::sub_scale`] of sixteen rows' block, one row a lane: the scales, and the mins by two periods, the first's in
/// the low 16 bits.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn sub_scales<B: Block>(rows: Rows) -> ([__m512i; MOST_SCALES], [__m512i; MOST_SCALES / 2]) {
    let zero = _mm512_setzero_si512();
    let (mut scales, mut mins) = ([zero; MOST_SCALES], [zero; MOST_SCALES]);
    match B::FORMAT {
        Format::Q2_K => {
            for (word, packed) in four_words(rows, 0).into_iter().enumerate() {
                for i in 0..4 {
                    scales[4 * word + i] = field(packed, 8 * i, 15);
                    mins[4 * word + i] = field(packed, 8 * i + 4, 15);
                }
            }
        }
        Format::Q3_K => {
            let packed = [words(rows, 96), words(rows, 100), words(rows, 104)];
            for i in 0..16 {
                let low = field(packed[i / 4 % 2], i % 4 * 8 + i / 8 * 4, 15);
                let high = field(packed[2], i % 4 * 8 + i / 4 * 2, 3);
                let both = _mm512_or_si512(low, _mm512_slli_epi32::<4>(high));
                scales[i] = _mm512_sub_epi32(both, _mm512_set1_epi32(32));
            }
        }
        Format::Q4_K | Format::Q5_K => {
            let [_, a, b, c] = four_words(rows, 0);
            for i in 0..4 {
                scales[i] = field(a, 8 * i, 63);
                mins[i] = field(b, 8 * i, 63);
                let high = |v| _mm512_slli_epi32::<4>(field(v, 8 * i + 6, 3));
                scales[i + 4] = _mm512_or_si512(field(c, 8 * i, 15), high(a));
                mins[i + 4] = _mm512_or_si512(field(c, 8 * i + 4, 15), high(b));
            }
        }
        Format::Q6_K => {
            for (word, packed) in four_words(rows, 192).into_iter().enumerate() {
                for i in 0..4 {
                    // With its sign: up to the top, and down again.
                    let top = _mm512_sll_epi32(packed, _mm_cvtsi32_si128(24 - 8 * i as i32));
                    scales[4 * word + i] = _mm512_srai_epi32::<24>(top);
                }
            }
        }
        _ => unreachable!(),
    }
    let mut pairs = [zero; MOST_SCALES / 2];
    for (i, pair) in pairs.iter_mut().enumerate() {
        *pair = _mm512_or_si512(mins[2 * i], _mm512_slli_epi32::<16>(mins[2 * i + 1]));
    }
    (scales, pairs)
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn negative(v: __m512) -> __m512 {
    _mm512_xor_ps(v, _mm512_set1_ps(-0.0))
}

/// The half floats in the low 16 bits of each lane.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) fn half(v: __m512i) -> __m512 {
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
        for q in 0..4 {
            // SAFETY: sixteen bytes of each row are there.
            let row = _mm512_broadcast_i32x4(unsafe { load16(rows.row(4 * q + i)) });
            *v = _mm512_mask_mov_epi32(*v, 15 << (4 * q), row);
        }
    }
    sixteen_words(v)
}

/// The eight times 32 bits from byte `at` on of sixteen rows.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn eight_words(rows: Rows, at: usize) -> Quads {
    let rows = rows.skip(at, 32);
    // SAFETY: 32 bytes of each row are there, and any alignment will do.
    let load = |r: usize| unsafe { _mm256_loadu_si256(rows.row(r).cast()) };
    let mut columns = [_mm512_setzero_si512(); 8];
    // Eights of rows, of which quarters 0 and 2 are words 0 to 3 of fours of rows, and 1 and 3 words 4 to 7.
    let mut eights = [[_mm512_setzero_si512(); 4]; 2];
    for (h, eight) in eights.iter_mut().enumerate() {
        let first = 8 * h;
        *eight = sixteen_words([
            join(load(first), load(first + 4)),
            join(load(first + 1), load(first + 5)),
            join(load(first + 2), load(first + 6)),
            join(load(first + 3), load(first + 7)),
        ]);
    }
    for i in 0..4 {
        columns[i] = _mm512_shuffle_i32x4::<0x88>(eights[0][i], eights[1][i]);
        columns[4 + i] = _mm512_shuffle_i32x4::<0xdd>(eights[0][i], eights[1][i]);
    }
    columns
}

/// # Safety
///
/// 16 bytes can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn load16(at: *const u8) -> __m128i {
    // SAFETY: the caller's promise; any alignment will do.
    unsafe { _mm_loadu_si128(at.cast()) }
}
