//! `avx2,fma,f16c`: eight rows at once for a few tokens, panels of sixteen rows for many.
//!
//! Hot loops are plain loops: a closure here has these features too, and so cannot be inlined into the
//! adaptor or `map` that calls it, which has not.

use std::arch::x86_64::*;

use super::activations::{self, Activations, Row, SUMMED};
use super::formats::{Block, GROUP};
use crate::weights::Format;

/// Tokens from which a panel pays: packing one costs about as much as this many tokens without.
const PANEL_TOKENS: usize = 6;
/// Rows of a panel: two registers of eight.
const ROWS: usize = 16;
/// Tokens of a register tile: with two registers of rows, eight accumulators.
const TOKENS: usize = 4;
/// Numbers of a row that lie together in a panel: what one 32-bit lane multiplies and adds.
const QUAD: usize = 4;

/// See [`activations::quantize`].
#[target_feature(enable = "avx2,fma,f16c")]
pub fn quantize(x: &[f32], quants: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    activations::quantize(x, quants, scales, sums);
}

/// `out(row, t, y)` for runs of rows of `w` and each token.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matmul<B: Block>(
    w: &[u8],
    row_bytes: usize,
    x: &Activations,
    panel: &mut Panel,
    mut out: impl FnMut(usize, usize, &[f32]),
) {
    let rows = w.len() / row_bytes;
    // Past the last row the last is computed again, and thrown away.
    let row = |r: usize| &w[r.min(rows - 1) * row_bytes..][..row_bytes];
    if x.len() < PANEL_TOKENS {
        for from in (0..rows).step_by(8) {
            let w = std::array::from_fn(|i| row(from + i));
            for t in 0..x.len() {
                let y = to_array(direct::<B>(w, x.row(t)));
                out(from, t, &y[..8.min(rows - from)]);
            }
        }
        return;
    }
    for from in (0..rows).step_by(ROWS) {
        panel.pack::<B>(std::array::from_fn(|i| row(from + i)));
        let kept = ROWS.min(rows - from);
        let mut put = |t: usize, y: [__m256; 2]| out(from, t, &y.map(|y| to_array(y)).as_flattened()[..kept]);
        let mut t = 0;
        while t + TOKENS <= x.len() {
            let y = panel.multiply::<B, TOKENS>(std::array::from_fn(|i| x.row(t + i)));
            y.into_iter().enumerate().for_each(|(i, y)| put(t + i, y));
            t += TOKENS;
        }
        for t in t..x.len() {
            let [y] = panel.multiply::<B, 1>([x.row(t)]);
            put(t, y);
        }
    }
}

/// Eight rows by one token.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn direct<B: Block>(w: [&[u8]; 8], x: Row) -> __m256 {
    let mut y = _mm256_setzero_ps();
    let mut scales = [[0.0; 8]; 16];
    let mut mins = [[0.0; 8]; 16];
    for b in 0..w[0].len() / B::BYTES {
        let mut blocks = [&[][..]; 8];
        for r in 0..8 {
            blocks[r] = &w[r][b * B::BYTES..][..B::BYTES];
        }
        if B::LEN > GROUP {
            for (r, block) in blocks.iter().enumerate() {
                for i in 0..B::LEN / B::SCALED {
                    (scales[i][r], mins[i][r]) = B::scale(block, i);
                }
            }
        } else {
            scales[0] = to_array(halves(blocks, 0));
            if B::HAS_MIN {
                mins[0] = to_array(halves(blocks, 2));
            }
        }
        for g in 0..B::LEN / GROUP {
            let at = b * (B::LEN / GROUP) + g;
            let a = load_i8(&x.quants[at * GROUP..]);
            let mut dots = [_mm256_setzero_si256(); 8];
            for r in 0..8 {
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

/// A group's part of eight results; the same operations in the same order as the specification.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add<B: Block>(
    y: __m256,
    dot: __m256i,
    sum: i32,
    scale: [f32; 8],
    min: [f32; 8],
    x_scale: __m256,
) -> __m256 {
    let dot = if B::OFFSET == 0 { dot } else { _mm256_sub_epi32(dot, _mm256_set1_epi32(B::OFFSET * sum)) };
    let y = _mm256_add_ps(y, _mm256_mul_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(load(&scale), x_scale)));
    if B::HAS_MIN {
        _mm256_add_ps(y, _mm256_mul_ps(_mm256_set1_ps(sum as f32), _mm256_mul_ps(load(&min), x_scale)))
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
        _ => load32(&B::quants(block, g)),
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

/// The half floats at byte `at` of eight blocks.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn halves(blocks: [&[u8]; 8], at: usize) -> __m256 {
    let mut bits = [0; 8];
    for r in 0..8 {
        bits[r] = i16::from_le_bytes([blocks[r][at], blocks[r][at + 1]]);
    }
    let [a, b, c, d, e, f, g, h] = bits;
    _mm256_cvtph_ps(_mm_setr_epi16(a, b, c, d, e, f, g, h))
}

/// Sixteen rows, unpacked and interleaved so that a register's lanes are rows.
#[derive(Default)]
pub struct Panel {
    /// `[k / QUAD][ROWS][QUAD]`
    quants: Vec<Line>,
    /// `[k / SCALED][ROWS]`
    scales: Vec<[f32; ROWS]>,
    mins: Vec<[f32; ROWS]>,
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([[u8; QUAD]; ROWS]);

impl Panel {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn pack<B: Block>(&mut self, w: [&[u8]; ROWS]) {
        let k = w[0].len() / B::BYTES * B::LEN;
        self.quants.resize(k / QUAD, Line([[0; QUAD]; ROWS]));
        self.scales.resize(k / B::SCALED, [0.0; ROWS]);
        self.mins.resize(k / B::SCALED, [0.0; ROWS]);
        for (r, w) in w.into_iter().enumerate() {
            let lines = self.quants.chunks_exact_mut(B::LEN / QUAD);
            let scales = self.scales.chunks_exact_mut(B::LEN / B::SCALED);
            let mins = self.mins.chunks_exact_mut(B::LEN / B::SCALED);
            for (((block, lines), scales), mins) in w.chunks_exact(B::BYTES).zip(lines).zip(scales).zip(mins)
            {
                for (g, to) in lines.chunks_exact_mut(GROUP / QUAD).enumerate() {
                    let q = to_bytes(quants::<B>(block, g));
                    for (to, q) in to.iter_mut().zip(q.as_chunks::<QUAD>().0) {
                        to.0[r] = *q;
                    }
                }
                for (i, (scale, min)) in scales.iter_mut().zip(mins).enumerate() {
                    (scale[r], min[r]) = B::scale(block, i);
                }
            }
        }
    }

    /// Sixteen rows by `T` tokens.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn multiply<B: Block, const T: usize>(&self, x: [Row; T]) -> [[__m256; 2]; T] {
        let mut y = [[_mm256_setzero_ps(); 2]; T];
        let lines = self.quants.chunks_exact(B::SCALED / QUAD);
        for (i, ((lines, scale), min)) in lines.zip(&self.scales).zip(&self.mins).enumerate() {
            let mut quants = [&[][..]; T];
            for t in 0..T {
                quants[t] = &x[t].quants[i * B::SCALED..][..B::SCALED];
            }
            let dots = multiply_scaled::<B, T>(lines, quants);
            for t in 0..T {
                let x_scale = _mm256_set1_ps(x[t].scales[i * B::SCALED / GROUP]);
                let sum = x[t].sums[i * (B::SCALED / SUMMED)..][..B::SCALED / SUMMED].iter().sum();
                let (scale, min) = (scale.as_chunks().0, min.as_chunks().0);
                for h in 0..2 {
                    y[t][h] = add::<B>(y[t][h], dots[t][h], sum, scale[h], min[h], x_scale);
                }
            }
        }
        y
    }
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
            let (low, high) = lines[j].0.as_flattened().split_at(32);
            let w = [load32(low), load32(high)];
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
