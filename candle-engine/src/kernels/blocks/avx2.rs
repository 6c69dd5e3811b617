//! `avx2,fma,f16c`: eight rows at once for a few tokens, panels of sixteen rows for many.
//!
//! Hot loops are plain loops: a closure here has these features too, and so cannot be inlined into the
//! adaptor or `map` that calls it, which has not.

use std::arch::x86_64::*;
use std::ops::Range;

use super::activations::{self, Activations, Row, SUMMED};
use super::formats::{Block, GROUP};
use crate::weights::Format;

/// Tokens from which a panel pays: a full register tile of them.
const PANEL_TOKENS: usize = TOKENS;
/// Bytes that a prefetch brings.
const CACHE_LINE: usize = 64;
/// Rows of a register.
const LANES: usize = 8;
/// Rows of a panel: two registers.
const ROWS: usize = 2 * LANES;
/// Tokens of a register tile: with two registers of rows, eight accumulators.
const TOKENS: usize = 4;
/// Numbers of a row that lie together in a panel: what one 32-bit lane multiplies and adds.
const QUAD: usize = 4;

/// See [`activations::quantize`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn quantize(x: &[f32], quants: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    activations::quantize(x, quants, scales, sums);
}

/// `out(row, t, y)` for runs of the rows `range` of `w` and each token.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matmul<B: Block>(
    w: &[u8],
    row_bytes: usize,
    range: Range<usize>,
    x: &Activations,
    panel: &mut Panel,
    mut out: impl FnMut(usize, usize, &[f32]),
) {
    for from in range.clone().step_by(ROWS) {
        // Past the last row the last is computed again, and thrown away.
        let mut octets = [[&[][..]; LANES]; ROWS / LANES];
        for (i, row) in octets.as_flattened_mut().iter_mut().enumerate() {
            *row = &w[(from + i).min(range.end - 1) * row_bytes..][..row_bytes];
        }
        let kept = ROWS.min(range.end - from);
        if x.len() < PANEL_TOKENS {
            for (h, octet) in octets.into_iter().enumerate().take(kept.div_ceil(LANES)) {
                // Rows of a small model are too short for the hardware to see where the next ones begin. They
                // may be another task's: that will want them at about this time.
                let next = w.get((from + (h + 1) * LANES) * row_bytes..).unwrap_or_default();
                for t in 0..x.len() {
                    let next = if t == 0 { next } else { &[] };
                    let y = to_array(direct::<B>(octet, x.row(t), next));
                    out(from + h * LANES, t, &y[..LANES.min(kept - h * LANES)]);
                }
            }
            continue;
        }
        for (h, octet) in octets.into_iter().enumerate() {
            panel.pack::<B>(h, octet);
        }
        let mut t = 0;
        while t < x.len() {
            let tokens = TOKENS.min(x.len() - t);
            let mut y = [[[0.0; LANES]; ROWS / LANES]; TOKENS];
            if tokens == TOKENS {
                panel.multiply::<B, TOKENS>(x, t, &mut y);
            } else {
                for i in 0..tokens {
                    panel.multiply::<B, 1>(x, t + i, (&mut y[i..][..1]).try_into().expect("one"));
                }
            }
            for (i, y) in y.iter().enumerate().take(tokens) {
                out(from, t + i, &y.as_flattened()[..kept]);
            }
            t += tokens;
        }
    }
}

/// Eight rows by one token; `next` are the weights to come.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn direct<B: Block>(w: [&[u8]; LANES], x: Row, next: &[u8]) -> __m256 {
    let mut y = _mm256_setzero_ps();
    let (mut scales, mut mins) = ([_mm256_setzero_ps(); MOST_SCALES], [_mm256_setzero_ps(); MOST_SCALES]);
    for b in 0..w[0].len() / B::BYTES {
        for line in (0..LANES * B::BYTES).step_by(CACHE_LINE) {
            // Not dereferenced, so it may point past the end.
            let address = next.as_ptr().wrapping_add(b * LANES * B::BYTES + line);
            _mm_prefetch::<_MM_HINT_T0>(address.cast());
        }
        let blocks = blocks::<B>(w, b);
        unpack_scales::<B>(blocks, &mut scales, &mut mins);
        for g in 0..B::LEN / GROUP {
            let at = b * (B::LEN / GROUP) + g;
            let a = load_i8(&x.quants[at * GROUP..]);
            let mut dots = [_mm256_setzero_si256(); LANES];
            for r in 0..LANES {
                dots[r] = products::<B>(quants::<B>(blocks[r], g), a);
            }
            let [first, second] = sums(dots);
            let x_scale = _mm256_set1_ps(x.scales[at]);
            let sums = &x.sums[at * (GROUP / SUMMED)..][..GROUP / SUMMED];
            if B::SCALED == GROUP {
                let dot = _mm256_add_epi32(first, second);
                y = add::<B>(y, dot, sums[0] + sums[1], scales[g], mins[g], x_scale);
            } else {
                y = add::<B>(y, first, sums[0], scales[2 * g], mins[2 * g], x_scale);
                y = add::<B>(y, second, sums[1], scales[2 * g + 1], mins[2 * g + 1], x_scale);
            }
        }
    }
    y
}

/// Block `b` of eight rows.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn blocks<'a, B: Block>(w: [&'a [u8]; LANES], b: usize) -> [&'a [u8]; LANES] {
    let mut blocks = [&[][..]; LANES];
    assert!(b < w[0].len() / B::BYTES);
    for r in 0..LANES {
        debug_assert_eq!(w[r].len(), w[0].len());
        // SAFETY: block `b` of the first row is in it, and the rows are of one length: `matmul` cuts them.
        blocks[r] = unsafe { w[r].get_unchecked(b * B::BYTES..(b + 1) * B::BYTES) };
    }
    blocks
}

/// A group's part of eight results; the same operations in the same order as the specification.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add<B: Block>(y: __m256, dot: __m256i, sum: i32, scale: __m256, min: __m256, x_scale: __m256) -> __m256 {
    let dot = if B::OFFSET == 0 { dot } else { _mm256_sub_epi32(dot, _mm256_set1_epi32(B::OFFSET * sum)) };
    let y = _mm256_add_ps(y, _mm256_mul_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scale, x_scale)));
    if B::HAS_MIN {
        _mm256_add_ps(y, _mm256_mul_ps(_mm256_set1_ps(sum as f32), _mm256_mul_ps(min, x_scale)))
    } else {
        y
    }
}

/// Products of 32 quants and activations, added in fours.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn products<B: Block>(w: __m256i, a: __m256i) -> __m256i {
    _mm256_madd_epi16(pairs::<B>(w, a), _mm256_set1_epi16(1))
}

/// Products of 32 quants and activations, added in twos.
///
/// No sum saturates: activations lie in −127..=127, so that two products with quants of 8 bits with a sign
/// make at most 2 · 128 · 127 = 32 512, and those of fewer bits without a sign less.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn pairs<B: Block>(w: __m256i, a: __m256i) -> __m256i {
    if B::BITS == 8 {
        _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(a, w))
    } else {
        _mm256_maddubs_epi16(w, a)
    }
}

/// Adds up the lanes of eight vectors: those of their low halves, and those of their high halves.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn sums(v: [__m256i; 8]) -> [__m256i; 2] {
    let four = |i: usize| {
        _mm256_hadd_epi32(_mm256_hadd_epi32(v[i], v[i + 1]), _mm256_hadd_epi32(v[i + 2], v[i + 3]))
    };
    let (a, b) = (four(0), four(4));
    [_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)]
}

/// [`Block::quants`] in a register.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn quants<B: Block>(block: &[u8], g: usize) -> __m256i {
    match B::FORMAT {
        Format::Q8_0 => load32(&block[2..]),
        Format::Q4_0 => nibbles(&block[2..]),
        Format::Q4_1 => nibbles(&block[4..]),
        Format::Q5_0 => _mm256_or_si256(nibbles(&block[6..]), fifth_bits(&block[2..])),
        Format::Q5_1 => _mm256_or_si256(nibbles(&block[8..]), fifth_bits(&block[4..])),
        Format::Q2_K => bits(&block[16 + g / 4 * 32..], g % 4 * 2, 3),
        Format::Q3_K => {
            let high = _mm256_slli_epi16::<2>(bits(block, g, 1));
            _mm256_or_si256(bits(&block[32 + g / 4 * 32..], g % 4 * 2, 3), high)
        }
        Format::Q4_K => bits(&block[16 + g / 2 * 32..], g % 2 * 4, 15),
        Format::Q5_K => {
            let high = _mm256_slli_epi16::<4>(bits(&block[16..], g, 1));
            _mm256_or_si256(bits(&block[48 + g / 2 * 32..], g % 2 * 4, 15), high)
        }
        Format::Q6_K => {
            let (half, quarter) = (g / 4, g % 4);
            let high = _mm256_slli_epi16::<4>(bits(&block[128 + half * 32..], quarter * 2, 3));
            let low = bits(&block[half * 64 + quarter % 2 * 32..], quarter / 2 * 4, 15);
            _mm256_or_si256(low, high)
        }
        _ => unreachable!(),
    }
}

/// The four-bit halves of 16 bytes: all the low ones, then all the high ones.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn nibbles(bytes: &[u8]) -> __m256i {
    let low = load16(bytes);
    let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), _mm_srli_epi16::<4>(low));
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// `(byte >> shift) & mask` of 32 bytes; the mask takes away what comes from the neighbour.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn bits(bytes: &[u8], shift: usize, mask: i8) -> __m256i {
    let shifted = _mm256_srl_epi16(load32(bytes), _mm_cvtsi32_si128(shift as i32));
    _mm256_and_si256(shifted, _mm256_set1_epi8(mask))
}

/// 32 bits, each as the bit of value 16 in a byte of its own.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn fifth_bits(bytes: &[u8]) -> __m256i {
    let all = _mm256_set1_epi32(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    // Each byte eight times over: in lane 0 the first two, in lane 1 the others.
    let source = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let one = _mm256_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(all, source), one), one);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

/// Scales and mins in a block of 256.
const MOST_SCALES: usize = 16;

/// [`Block::scale`] of eight rows' blocks, one row a lane.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn unpack_scales<B: Block>(
    blocks: [&[u8]; LANES],
    scales: &mut [__m256; MOST_SCALES],
    mins: &mut [__m256; MOST_SCALES],
) {
    match B::FORMAT {
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => scales[0] = halves(blocks, 0),
        Format::Q4_1 | Format::Q5_1 => (scales[0], mins[0]) = (halves(blocks, 0), halves(blocks, 2)),
        Format::Q2_K => {
            let (d, dmin) = (halves(blocks, 80), negative(halves(blocks, 82)));
            for word in 0..4 {
                let packed = words(blocks, 4 * word);
                for i in 0..4 {
                    scales[4 * word + i] = scaled(d, field(packed, 8 * i, 15));
                    mins[4 * word + i] = scaled(dmin, field(packed, 8 * i + 4, 15));
                }
            }
        }
        Format::Q3_K => {
            let d = halves(blocks, 108);
            let packed = [words(blocks, 96), words(blocks, 100), words(blocks, 104)];
            for i in 0..16 {
                let low = field(packed[i / 4 % 2], i % 4 * 8 + i / 8 * 4, 15);
                let high = field(packed[2], i % 4 * 8 + i / 4 * 2, 3);
                let both = _mm256_or_si256(low, _mm256_slli_epi32::<4>(high));
                scales[i] = scaled(d, _mm256_sub_epi32(both, _mm256_set1_epi32(32)));
            }
        }
        Format::Q4_K | Format::Q5_K => {
            let (d, dmin) = (halves(blocks, 0), negative(halves(blocks, 2)));
            let (a, b, c) = (words(blocks, 4), words(blocks, 8), words(blocks, 12));
            for i in 0..4 {
                scales[i] = scaled(d, field(a, 8 * i, 63));
                mins[i] = scaled(dmin, field(b, 8 * i, 63));
                let high = |v| _mm256_slli_epi32::<4>(field(v, 8 * i + 6, 3));
                scales[i + 4] = scaled(d, _mm256_or_si256(field(c, 8 * i, 15), high(a)));
                mins[i + 4] = scaled(dmin, _mm256_or_si256(field(c, 8 * i + 4, 15), high(b)));
            }
        }
        Format::Q6_K => {
            let d = halves(blocks, 208);
            for word in 0..4 {
                let packed = words(blocks, 192 + 4 * word);
                for i in 0..4 {
                    // With its sign: up to the top, and down again.
                    let top = _mm256_sll_epi32(packed, _mm_cvtsi32_si128(24 - 8 * i as i32));
                    scales[4 * word + i] = scaled(d, _mm256_srai_epi32::<24>(top));
                }
            }
        }
        _ => unreachable!(),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn negative(v: __m256) -> __m256 {
    _mm256_xor_ps(v, _mm256_set1_ps(-0.0))
}

/// `(v >> shift) & mask`
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn field(v: __m256i, shift: usize, mask: i32) -> __m256i {
    _mm256_and_si256(_mm256_srl_epi32(v, _mm_cvtsi32_si128(shift as i32)), _mm256_set1_epi32(mask))
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn scaled(d: __m256, by: __m256i) -> __m256 {
    _mm256_mul_ps(d, _mm256_cvtepi32_ps(by))
}

/// The half floats at byte `at` of eight blocks.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn halves(blocks: [&[u8]; LANES], at: usize) -> __m256 {
    let mut bits = [0; LANES];
    for r in 0..LANES {
        bits[r] = i16::from_le_bytes([blocks[r][at], blocks[r][at + 1]]);
    }
    let [a, b, c, d, e, f, g, h] = bits;
    _mm256_cvtph_ps(_mm_setr_epi16(a, b, c, d, e, f, g, h))
}

/// The 32 bits at byte `at` of eight blocks.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn words(blocks: [&[u8]; LANES], at: usize) -> __m256i {
    let mut bits = [0; LANES];
    for r in 0..LANES {
        let block = blocks[r];
        bits[r] = i32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    }
    let [a, b, c, d, e, f, g, h] = bits;
    _mm256_setr_epi32(a, b, c, d, e, f, g, h)
}

/// Sixteen rows, unpacked and interleaved so that a register's lanes are rows.
#[derive(Default)]
pub struct Panel {
    /// `[k / QUAD]`
    quants: Vec<Line>,
    /// `[k / SCALED][ROWS]`
    scales: Vec<[[f32; LANES]; ROWS / LANES]>,
    mins: Vec<[[f32; LANES]; ROWS / LANES]>,
}

/// Four quants of each row.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Line([[u8; LANES * QUAD]; ROWS / LANES]);

impl Panel {
    /// Packs eight rows into half `h`.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn pack<B: Block>(&mut self, h: usize, w: [&[u8]; LANES]) {
        let k = w[0].len() / B::BYTES * B::LEN;
        self.quants.resize(k / QUAD, Line::default());
        self.scales.resize(k / B::SCALED, Default::default());
        self.mins.resize(k / B::SCALED, Default::default());
        let (mut scales, mut mins) = ([_mm256_setzero_ps(); MOST_SCALES], [_mm256_setzero_ps(); MOST_SCALES]);
        for b in 0..k / B::LEN {
            let blocks = blocks::<B>(w, b);
            unpack_scales::<B>(blocks, &mut scales, &mut mins);
            for i in 0..B::LEN / B::SCALED {
                self.scales[b * (B::LEN / B::SCALED) + i][h] = to_array(scales[i]);
                self.mins[b * (B::LEN / B::SCALED) + i][h] = to_array(mins[i]);
            }
            for g in 0..B::LEN / GROUP {
                let mut rows = [_mm256_setzero_si256(); LANES];
                for r in 0..LANES {
                    rows[r] = quants::<B>(blocks[r], g);
                }
                let quads = transpose(rows);
                let lines = &mut self.quants[(b * B::LEN + g * GROUP) / QUAD..][..GROUP / QUAD];
                for j in 0..GROUP / QUAD {
                    lines[j].0[h] = to_bytes(quads[j]);
                }
            }
        }
    }

    /// Sixteen rows by `T` tokens from `t` on.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn multiply<B: Block, const T: usize>(
        &self,
        x: &Activations,
        t: usize,
        out: &mut [[[f32; LANES]; ROWS / LANES]; T],
    ) {
        let mut rows = [x.row(t); T];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = x.row(t + i);
        }
        let x = rows;
        let mut y = [[_mm256_setzero_ps(); 2]; T];
        for i in 0..self.scales.len() {
            let mut quants = [&[][..]; T];
            for t in 0..T {
                quants[t] = &x[t].quants[i * B::SCALED..][..B::SCALED];
            }
            let lines = &self.quants[i * (B::SCALED / QUAD)..][..B::SCALED / QUAD];
            let dots = multiply_scaled::<B, T>(lines, quants);
            let (scale, min) = (&self.scales[i], &self.mins[i]);
            for t in 0..T {
                let x_scale = _mm256_set1_ps(x[t].scales[i * B::SCALED / GROUP]);
                let sum = x[t].sums[i * (B::SCALED / SUMMED)..][..B::SCALED / SUMMED].iter().sum();
                for h in 0..2 {
                    y[t][h] = add::<B>(y[t][h], dots[t][h], sum, load(&scale[h]), load(&min[h]), x_scale);
                }
            }
        }
        for t in 0..T {
            for h in 0..2 {
                out[t][h] = to_array(y[t][h]);
            }
        }
    }
}

/// Rows of eight 32-bit parts to columns.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn transpose(v: [__m256i; 8]) -> [__m256i; 8] {
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

/// The integer part of [`Panel::multiply`]: the numbers under one scale.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn multiply_scaled<B: Block, const T: usize>(lines: &[Line], x: [&[i8]; T]) -> [[__m256i; 2]; T] {
    // Pairs of products that fit 16 bits when added up: 2 · (2^BITS − 1) · 127 each.
    let steps = match B::BITS {
        8 => 1,
        6 => 2,
        5 => 4,
        _ => 8,
    }
    .min(B::SCALED / QUAD);
    let mut dots = [[_mm256_setzero_si256(); 2]; T];
    for s in (0..B::SCALED / QUAD).step_by(steps) {
        let mut sums = [[_mm256_setzero_si256(); 2]; T];
        for j in s..s + steps {
            let w = [load32(&lines[j].0[0]), load32(&lines[j].0[1])];
            for t in 0..T {
                let a = broadcast(&x[t][j * QUAD..]);
                for h in 0..2 {
                    sums[t][h] = _mm256_add_epi16(sums[t][h], pairs::<B>(w[h], a));
                }
            }
        }
        for t in 0..T {
            for h in 0..2 {
                let sums = _mm256_madd_epi16(sums[t][h], _mm256_set1_epi16(1));
                dots[t][h] = _mm256_add_epi32(dots[t][h], sums);
            }
        }
    }
    dots
}

/// Four activations in every lane.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn broadcast(x: &[i8]) -> __m256i {
    _mm256_set1_epi32(i32::from_le_bytes([x[0] as u8, x[1] as u8, x[2] as u8, x[3] as u8]))
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load(x: &[f32; 8]) -> __m256 {
    // SAFETY: eight floats, and any alignment will do.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load16(bytes: &[u8]) -> __m128i {
    let bytes = &bytes[..16];
    // SAFETY: 16 bytes, and any alignment will do.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load32(bytes: &[u8]) -> __m256i {
    let bytes = &bytes[..32];
    // SAFETY: 32 bytes, and any alignment will do.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn load_i8(x: &[i8]) -> __m256i {
    let x = &x[..32];
    // SAFETY: 32 bytes, and any alignment will do.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn to_array(v: __m256) -> [f32; 8] {
    let mut out = [0.0; 8];
    // SAFETY: eight floats, and any alignment will do.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), v) };
    out
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn to_bytes(v: __m256i) -> [u8; 32] {
    let mut out = [0; 32];
    // SAFETY: 32 bytes, and any alignment will do.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) };
    out
}
