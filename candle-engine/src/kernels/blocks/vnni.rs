//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: sixteen rows, 64 numbers at once.

use std::arch::x86_64::*;
use std::ops::Range;

use super::formats::{Block, GROUP};
use crate::kernels::panel::{
    quarter_sums, transpose_quarters, transpose_sixteen, Panel, Tile, QUAD, SIXTEEN,
};
use crate::weights::Format;

/// Numbers that are unpacked at once: two groups.
const WIDE: usize = 2 * GROUP;
/// Bytes that a prefetch brings.
const CACHE_LINE: usize = 64;
/// Scales and mins in a block of 256.
const MOST_SCALES: usize = 16;
/// `out(row, t, y)` for runs of the rows `range` of `w` and each token.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn matmul<B: Block>(
    w: &[u8],
    row_bytes: usize,
    range: Range<usize>,
    x: &[Tile],
    mut out: impl FnMut(usize, usize, &[f32]),
) {
    for from in range.clone().step_by(SIXTEEN) {
        let kept = SIXTEEN.min(range.end - from);
        let rows = rows(w, row_bytes, from, range.end);
        // Where the next rows begin. They may be another task's: that will want them at about this time.
        let next = w.get((from + SIXTEEN) * row_bytes..).unwrap_or_default();
        for (t, x) in x.iter().enumerate() {
            let next = if t == 0 { next } else { &[] };
            out(from, t, &direct::<B>(rows, x, next)[..kept]);
        }
    }
}

/// Packs sixteen rows into sixteen `s` of the panel; past the last row the last again.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn pack<B: Block>(w: &[u8], row_bytes: usize, from: usize, s: usize, panel: &mut Panel) {
    let rows = rows(w, row_bytes, from, w.len() / row_bytes);
    let zero = _mm512_setzero_ps();
    let (mut scales, mut mins) = ([zero; MOST_SCALES], [zero; MOST_SCALES]);
    let next = w.get((from + SIXTEEN) * row_bytes..).unwrap_or_default();
    let steps = row_bytes.div_ceil(Step::<B>::BYTES);
    for step in 0..steps {
        prefetch(next, step * SIXTEEN * Step::<B>::BYTES, SIXTEEN * Step::<B>::BYTES);
        let groups = Step::<B>::groups(row_bytes, step);
        unpack_scales::<B>(rows, step, groups, &mut scales, &mut mins);
        for i in 0..groups * GROUP / B::SCALED {
            let at = step * (Step::<B>::LEN / B::SCALED) + i;
            panel.set_sixteen_scales(s, at, to_array(scales[i]), to_array(mins[i]));
        }
        for u in 0..groups.div_ceil(2) {
            let mut units = [_mm512_setzero_si512(); SIXTEEN];
            for r in 0..SIXTEEN {
                units[r] = unit::<B>(&rows[r][step * Step::<B>::BYTES..], u, groups);
            }
            let columns = transpose_sixteen(units);
            let first = step * (Step::<B>::LEN / 4) + u * (WIDE / 4);
            for (j, column) in columns.into_iter().enumerate().take((groups - 2 * u) * (GROUP / 4)) {
                // SAFETY: a line's 64 bytes, at any alignment.
                unsafe { _mm512_storeu_si512(panel.sixteen_mut(s, first + j).as_mut_ptr().cast(), column) };
            }
        }
    }
}

/// What is unpacked between two looks at the scales: a block of 256, or two of 32.
struct Step<B>(std::marker::PhantomData<B>);

impl<B: Block> Step<B> {
    const BLOCKS: usize = if B::LEN < WIDE { WIDE / B::LEN } else { 1 };
    const LEN: usize = B::LEN * Self::BLOCKS;
    const BYTES: usize = B::BYTES * Self::BLOCKS;

    /// Groups in a row's step; in the last there may be one block instead of two.
    #[inline(always)]
    fn groups(row_bytes: usize, step: usize) -> usize {
        (row_bytes - step * Self::BYTES).min(Self::BYTES) / B::BYTES * (B::LEN / GROUP)
    }
}

#[inline(always)]
fn rows(w: &[u8], row_bytes: usize, from: usize, end: usize) -> [&[u8]; SIXTEEN] {
    std::array::from_fn(|r| &w[(from + r).min(end - 1) * row_bytes..][..row_bytes])
}

/// Sixteen rows by one token; `next` are the weights to come.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn direct<B: Block>(rows: [&[u8]; SIXTEEN], x: &Tile, next: &[u8]) -> [f32; SIXTEEN] {
    let zero = _mm512_setzero_ps();
    let mut y = zero;
    let (mut scales, mut mins) = ([zero; MOST_SCALES], [zero; MOST_SCALES]);
    let row_bytes = rows[0].len();
    for step in 0..row_bytes.div_ceil(Step::<B>::BYTES) {
        prefetch(next, step * SIXTEEN * Step::<B>::BYTES, SIXTEEN * Step::<B>::BYTES);
        let groups = Step::<B>::groups(row_bytes, step);
        unpack_scales::<B>(rows, step, groups, &mut scales, &mut mins);
        for u in 0..groups.div_ceil(2) {
            let group = step * (Step::<B>::LEN / GROUP) + 2 * u;
            let pair = 2 * u + 1 < groups;
            let a = load_pair(&x.quads[group * (GROUP / QUAD)..], pair);
            let mut parts = [_mm512_setzero_si512(); 4];
            for j in 0..4 {
                let mut dots = [_mm512_setzero_si512(); 4];
                for r in 0..4 {
                    let w = unit::<B>(&rows[4 * j + r][step * Step::<B>::BYTES..], u, groups);
                    dots[r] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, a);
                }
                parts[j] = quarter_sums(dots);
            }
            let dots = transpose_quarters(parts);
            for g in 0..if pair { 2 } else { 1 } {
                let at = (2 * u + g) * (GROUP / B::SCALED);
                let period = (group + g) * (GROUP / B::SCALED);
                let [first, second] = [dots[2 * g], dots[2 * g + 1]];
                if B::SCALED == GROUP {
                    let dot = _mm512_add_epi32(first, second);
                    y = add::<B>(y, dot, x, period, scales[at], mins[at]);
                } else {
                    y = add::<B>(y, first, x, period, scales[at], mins[at]);
                    y = add::<B>(y, second, x, period + 1, scales[at + 1], mins[at + 1]);
                }
            }
        }
    }
    to_array(y)
}

/// Brings so many bytes from `at` on nearer; they may lie past the end.
#[inline(always)]
fn prefetch(bytes: &[u8], at: usize, len: usize) {
    for line in (at..at + len).step_by(CACHE_LINE) {
        // SAFETY: SSE is part of the baseline, and nothing is dereferenced.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(line).cast()) };
    }
}

/// Period `i`'s part of sixteen results; the same operations in the same order as the specification.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn add<B: Block>(y: __m512, dot: __m512i, x: &Tile, i: usize, scale: __m512, min: __m512) -> __m512 {
    let dot = _mm512_add_epi32(dot, _mm512_set1_epi32(x.starts[i]));
    let scale = _mm512_mul_ps(scale, _mm512_set1_ps(x.scales[i]));
    let y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, y);
    if B::HAS_MIN {
        _mm512_fmadd_ps(_mm512_set1_ps(x.sums[i]), min, y)
    } else {
        y
    }
}

/// [`Block::quants`] of two groups from `2·u` on, unsigned; zeros for the second if there are fewer groups.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn unit<B: Block>(step: &[u8], u: usize, groups: usize) -> __m512i {
    let pair = 2 * u + 1 < groups;
    match B::FORMAT {
        Format::Q8_0 => {
            let quants =
                if pair { join(load32(&step[2..]), load32(&step[36..])) } else { alone(load32(&step[2..])) };
            _mm512_xor_si512(quants, _mm512_set1_epi8(i8::MIN))
        }
        Format::Q4_0 => nibbles::<B>(step, 2, pair),
        Format::Q4_1 => nibbles::<B>(step, 4, pair),
        Format::Q5_0 => fifth_bits(nibbles::<B>(step, 6, pair), word_pair::<B>(step, 2, pair)),
        Format::Q5_1 => fifth_bits(nibbles::<B>(step, 8, pair), word_pair::<B>(step, 4, pair)),
        Format::Q2_K => bits(&step[16 + u / 2 * 32..], 4 * (u % 2), 4 * (u % 2) + 2, 3),
        Format::Q3_K => {
            let high = _mm512_slli_epi16::<2>(bits(step, 2 * u, 2 * u + 1, 1));
            _mm512_or_si512(bits(&step[32 + u / 2 * 32..], 4 * (u % 2), 4 * (u % 2) + 2, 3), high)
        }
        Format::Q4_K => bits(&step[16 + u * 32..], 0, 4, 15),
        Format::Q5_K => {
            let high = _mm512_slli_epi16::<4>(bits(&step[16..], 2 * u, 2 * u + 1, 1));
            _mm512_or_si512(bits(&step[48 + u * 32..], 0, 4, 15), high)
        }
        Format::Q6_K => {
            let (half, quarter) = (u / 2, u % 2 * 2);
            let low = load64(&step[half * 64..]);
            let low = _mm512_and_si512(
                _mm512_srl_epi16(low, _mm_cvtsi32_si128(2 * quarter as i32)),
                _mm512_set1_epi8(15),
            );
            let high = bits(&step[128 + half * 32..], 2 * quarter, 2 * quarter + 2, 3);
            _mm512_or_si512(low, _mm512_slli_epi16::<4>(high))
        }
        _ => unreachable!(),
    }
}

/// The four-bit halves of the 16 bytes at `at` in a block, and of those in the next.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn nibbles<B: Block>(step: &[u8], at: usize, pair: bool) -> __m512i {
    let first = load16(&step[at..]);
    let second = if pair { load16(&step[B::BYTES + at..]) } else { _mm_setzero_si128() };
    // Each twice, the low halves from the one, the high halves from the other.
    let both = join(_mm256_broadcastsi128_si256(first), _mm256_broadcastsi128_si256(second));
    let shift = _mm512_set_epi64(C4, C4, 0, 0, C4, C4, 0, 0);
    _mm512_and_si512(_mm512_srlv_epi16(both, shift), _mm512_set1_epi8(15))
}

/// A shift by four in each 16 bits.
const C4: i64 = 0x0004_0004_0004_0004;

/// The 32 bits at `at` in a block, and those in the next.
#[inline(always)]
fn word_pair<B: Block>(step: &[u8], at: usize, pair: bool) -> u64 {
    let word =
        |at: usize| u64::from(u32::from_le_bytes([step[at], step[at + 1], step[at + 2], step[at + 3]]));
    word(at) | if pair { word(B::BYTES + at) << 32 } else { 0 }
}

/// 64 bits, each added as the bit of value 16 to a byte of its own.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn fifth_bits(low: __m512i, bits: u64) -> __m512i {
    _mm512_mask_add_epi8(low, bits, low, _mm512_set1_epi8(16))
}

/// `(byte >> shift) & mask` of 32 bytes, by the one shift and then by the other; the mask takes away what comes
/// from the neighbour.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn bits(bytes: &[u8], first: usize, second: usize, mask: i8) -> __m512i {
    let both = _mm512_broadcast_i64x4(load32(bytes));
    let shift = join(_mm256_set1_epi16(first as i16), _mm256_set1_epi16(second as i16));
    _mm512_and_si512(_mm512_srlv_epi16(both, shift), _mm512_set1_epi8(mask))
}

/// [`Block::scale`] of sixteen rows' step, one row a lane.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn unpack_scales<B: Block>(
    rows: [&[u8]; SIXTEEN],
    step: usize,
    groups: usize,
    scales: &mut [__m512; MOST_SCALES],
    mins: &mut [__m512; MOST_SCALES],
) {
    let at = step * Step::<B>::BYTES;
    match B::FORMAT {
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => {
            for (b, scale) in scales[..groups].iter_mut().enumerate() {
                *scale = half(words(rows, at + b * B::BYTES));
            }
        }
        Format::Q4_1 | Format::Q5_1 => {
            for b in 0..groups {
                let both = words(rows, at + b * B::BYTES);
                (scales[b], mins[b]) = (half(both), half(_mm512_srli_epi32::<16>(both)));
            }
        }
        Format::Q2_K => {
            let both = words(rows, at + 80);
            let (d, dmin) = (half(both), negative(half(_mm512_srli_epi32::<16>(both))));
            for word in 0..4 {
                let packed = words(rows, at + 4 * word);
                for i in 0..4 {
                    scales[4 * word + i] = scaled(d, field(packed, 8 * i, 15));
                    mins[4 * word + i] = scaled(dmin, field(packed, 8 * i + 4, 15));
                }
            }
        }
        Format::Q3_K => {
            // The block ends with the half float.
            let d = half(_mm512_srli_epi32::<16>(words(rows, at + 106)));
            let packed = [words(rows, at + 96), words(rows, at + 100), words(rows, at + 104)];
            for i in 0..16 {
                let low = field(packed[i / 4 % 2], i % 4 * 8 + i / 8 * 4, 15);
                let high = field(packed[2], i % 4 * 8 + i / 4 * 2, 3);
                let both = _mm512_or_si512(low, _mm512_slli_epi32::<4>(high));
                scales[i] = scaled(d, _mm512_sub_epi32(both, _mm512_set1_epi32(32)));
            }
        }
        Format::Q4_K | Format::Q5_K => {
            let both = words(rows, at);
            let (d, dmin) = (half(both), negative(half(_mm512_srli_epi32::<16>(both))));
            let (a, b, c) = (words(rows, at + 4), words(rows, at + 8), words(rows, at + 12));
            for i in 0..4 {
                scales[i] = scaled(d, field(a, 8 * i, 63));
                mins[i] = scaled(dmin, field(b, 8 * i, 63));
                let high = |v| _mm512_slli_epi32::<4>(field(v, 8 * i + 6, 3));
                scales[i + 4] = scaled(d, _mm512_or_si512(field(c, 8 * i, 15), high(a)));
                mins[i + 4] = scaled(dmin, _mm512_or_si512(field(c, 8 * i + 4, 15), high(b)));
            }
        }
        Format::Q6_K => {
            let d = half(_mm512_srli_epi32::<16>(words(rows, at + 206)));
            for word in 0..4 {
                let packed = words(rows, at + 192 + 4 * word);
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
fn words(rows: [&[u8]; SIXTEEN], at: usize) -> __m512i {
    assert!(at + 4 <= rows[0].len());
    let mut quarters = [_mm_setzero_si128(); 4];
    for q in 0..4 {
        let mut bits = [0; 4];
        for r in 0..4 {
            // SAFETY: four bytes of the first row are there, and the rows are of one length: `rows` cuts them.
            bits[r] = unsafe { rows[4 * q + r].as_ptr().add(at).cast::<i32>().read_unaligned() };
        }
        quarters[q] = _mm_setr_epi32(bits[0], bits[1], bits[2], bits[3]);
    }
    let halves = [
        _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(quarters[0]), quarters[1]),
        _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(quarters[2]), quarters[3]),
    ];
    join(halves[0], halves[1])
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn join(low: __m256i, high: __m256i) -> __m512i {
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn alone(low: __m256i) -> __m512i {
    _mm512_zextsi256_si512(low)
}

/// 64 activations; if there is no pair, 32 and zeros.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn load_pair(x: &[i32], pair: bool) -> __m512i {
    let x = &x[..if pair { WIDE } else { GROUP } / QUAD];
    // SAFETY: so many bytes are there, and any alignment will do.
    unsafe {
        if pair {
            _mm512_loadu_si512(x.as_ptr().cast())
        } else {
            alone(_mm256_loadu_si256(x.as_ptr().cast()))
        }
    }
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn load16(bytes: &[u8]) -> __m128i {
    let bytes = &bytes[..16];
    // SAFETY: 16 bytes, and any alignment will do.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn load32(bytes: &[u8]) -> __m256i {
    let bytes = &bytes[..32];
    // SAFETY: 32 bytes, and any alignment will do.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn load64(bytes: &[u8]) -> __m512i {
    let bytes = &bytes[..64];
    // SAFETY: 64 bytes, and any alignment will do.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn to_array(v: __m512) -> [f32; SIXTEEN] {
    let mut out = [0.0; SIXTEEN];
    // SAFETY: sixteen floats, and any alignment will do.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) };
    out
}
