//! `avx2,fma,f16c`: eight rows at once.
//!
//! Hot loops are plain loops: a closure here has these features too, and so cannot be inlined into the
//! adaptor or `map` that calls it, which has not.

use std::arch::x86_64::*;
use std::ops::Range;

use super::formats::{has_sub_scales, number, Block, GROUP};
use crate::kernels::panel::{field_of_eight as field, pairs, transpose, Panel, Tile, QUAD};
use crate::kernels::prefetch::Stream;
use crate::weights::Format;

/// Rows of a register.
const LANES: usize = 8;

/// `out(row, t, y)` for runs of the rows `range` of `w` and each token.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matmul<B: Block>(
    w: &[u8],
    row_bytes: usize,
    range: Range<usize>,
    x: &[Tile],
    mut out: impl FnMut(usize, usize, &[f32]),
) {
    let mut stream = Stream::new(&w[range.start * row_bytes..range.end * row_bytes]);
    for from in range.clone().step_by(LANES) {
        let rows = rows(w, row_bytes, from, range.end);
        for (t, x) in x.iter().enumerate() {
            let stream = if t == 0 { &mut stream } else { &mut Stream::default() };
            let y = to_array(direct::<B>(rows, x, stream));
            out(from, t, &y[..LANES.min(range.end - from)]);
        }
    }
}

/// Packs eight rows, `less` taken from each quant, into octet `h` of the panel; past the last row the last again.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn pack<B: Block>(w: &[u8], row_bytes: usize, from: usize, less: i8, h: usize, panel: &mut Panel) {
    let rows = rows(w, row_bytes, from, w.len() / row_bytes);
    let less = _mm256_set1_epi8(less);
    let mut sub = SubScales::none();
    for b in 0..row_bytes / B::BYTES {
        let blocks = blocks::<B>(rows, b);
        let (scales, mins) = self::scales::<B>(blocks);
        panel.set_scales(h, b, to_array(scales), to_array(mins));
        if has_sub_scales::<B>() {
            let periods = B::LEN / B::PERIOD;
            sub.unpack::<B>(blocks);
            for i in 0..periods {
                panel.set_sub_scales(h, b * periods + i, to_integers(sub.scales[i]));
            }
            for i in 0..if B::HAS_MIN { periods / 2 } else { 0 } {
                panel.set_sub_mins(h, b * (periods / 2) + i, to_integers(sub.pair_of_mins(i)));
            }
        }
        for g in 0..B::LEN / GROUP {
            let mut rows = [_mm256_setzero_si256(); LANES];
            for r in 0..LANES {
                rows[r] = _mm256_sub_epi8(quants::<B>(blocks[r], g), less);
            }
            let columns = transpose(rows);
            let mut quads = [[0; 32]; 8];
            for j in 0..8 {
                quads[j] = to_bytes(columns[j]);
            }
            panel.set_quants(h, b * (B::LEN / GROUP) + g, &quads);
        }
    }
}

#[inline(always)]
fn rows(w: &[u8], row_bytes: usize, from: usize, end: usize) -> [&[u8]; LANES] {
    std::array::from_fn(|r| &w[(from + r).min(end - 1) * row_bytes..][..row_bytes])
}

/// Eight rows by one token.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn direct<B: Block>(w: [&[u8]; LANES], x: &Tile, stream: &mut Stream) -> __m256 {
    let mut y = _mm256_setzero_ps();
    let mut outliers = x.outliers.iter().peekable();
    let mut sub = SubScales::none();
    for b in 0..w[0].len() / B::BYTES {
        stream.read(LANES * B::BYTES);
        let blocks = blocks::<B>(w, b);
        let periods = B::LEN / B::PERIOD;
        if has_sub_scales::<B>() {
            sub.unpack::<B>(blocks);
        }
        let mut dot = _mm256_setzero_si256();
        for g in 0..B::LEN / GROUP {
            let at = b * (B::LEN / GROUP) + g;
            let a = load_quads(&x.quads[at * (GROUP / QUAD)..]);
            let mut dots = [_mm256_setzero_si256(); LANES];
            for r in 0..LANES {
                dots[r] = products::<B>(quants::<B>(blocks[r], g), a);
            }
            let [first, second] = sums(dots);
            if B::PERIOD == GROUP {
                dot = add::<B>(dot, _mm256_add_epi32(first, second), x.starts[at], sub.scales[g]);
            } else {
                dot = add::<B>(dot, first, x.starts[2 * at], sub.scales[2 * g]);
                dot = add::<B>(dot, second, x.starts[2 * at + 1], sub.scales[2 * g + 1]);
            }
        }
        // The same operations in the same order as the specification.
        let (scale, min) = scales::<B>(blocks);
        let x_scale = _mm256_set1_ps(x.scales[b]);
        y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scale, x_scale), y);
        if B::HAS_MIN && has_sub_scales::<B>() {
            let mut dot = _mm256_setzero_si256();
            for i in 0..periods / 2 {
                let sums = _mm256_set1_epi32(x.pairs[b * (periods / 2) + i]);
                dot = _mm256_add_epi32(dot, _mm256_madd_epi16(sub.pair_of_mins(i), sums));
            }
            y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(min, x_scale), y);
        } else if B::HAS_MIN {
            y = _mm256_fmadd_ps(_mm256_set1_ps(x.sums[b]), min, y);
        }
        while let Some(outlier) = outliers.next_if(|o| o.input < (b + 1) * B::LEN) {
            let mut weights = [0.0; LANES];
            for r in 0..LANES {
                weights[r] = number::<B>(blocks[r], outlier.input % B::LEN);
            }
            // SAFETY: eight floats, and any alignment will do.
            let weights = unsafe { _mm256_loadu_ps(weights.as_ptr()) };
            y = _mm256_fmadd_ps(_mm256_set1_ps(outlier.value), weights, y);
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

/// Adds a period's sum to those of its block.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn add<B: Block>(sum: __m256i, dot: __m256i, start: i32, sub_scale: __m256i) -> __m256i {
    let dot = if B::OFFSET == 0 { dot } else { _mm256_add_epi32(dot, _mm256_set1_epi32(start)) };
    let dot = if has_sub_scales::<B>() { _mm256_mullo_epi32(dot, sub_scale) } else { dot };
    _mm256_add_epi32(sum, dot)
}

/// Products of 32 quants and activations, added in fours.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn products<B: Block>(w: __m256i, a: __m256i) -> __m256i {
    let pairs = if B::BITS == 8 { pairs::<8>(w, a) } else { pairs::<6>(w, a) };
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
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

/// [`Block::scale`] of eight rows' blocks, one row a lane.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn scales<B: Block>(blocks: [&[u8]; LANES]) -> (__m256, __m256) {
    let zero = _mm256_setzero_ps();
    match B::FORMAT {
        Format::Q4_1 | Format::Q5_1 => (halves(blocks, 0), halves(blocks, 2)),
        Format::Q2_K => (halves(blocks, 80), negative(halves(blocks, 82))),
        Format::Q3_K => (halves(blocks, 108), zero),
        Format::Q4_K | Format::Q5_K => (halves(blocks, 0), negative(halves(blocks, 2))),
        Format::Q6_K => (halves(blocks, 208), zero),
        _ => (halves(blocks, 0), zero),
    }
}

/// Sub-scales in a block of 256.
const MOST_SCALES: usize = 16;

/// [`Block::sub_scale`] of eight rows' blocks, one row a lane.
struct SubScales {
    scales: [__m256i; MOST_SCALES],
    mins: [__m256i; MOST_SCALES],
}

impl SubScales {
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn none() -> Self {
        let zeros = [_mm256_setzero_si256(); MOST_SCALES];
        Self { scales: zeros, mins: zeros }
    }

    /// Those of periods `2 · i` and the next, the first's in the low 16 bits.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn pair_of_mins(&self, i: usize) -> __m256i {
        _mm256_or_si256(self.mins[2 * i], _mm256_slli_epi32::<16>(self.mins[2 * i + 1]))
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn unpack<B: Block>(&mut self, blocks: [&[u8]; LANES]) {
        let Self { scales, mins } = self;
        match B::FORMAT {
            Format::Q2_K => {
                for word in 0..4 {
                    let packed = words(blocks, 4 * word);
                    for i in 0..4 {
                        scales[4 * word + i] = field(packed, 8 * i, 15);
                        mins[4 * word + i] = field(packed, 8 * i + 4, 15);
                    }
                }
            }
            Format::Q3_K => {
                let packed = [words(blocks, 96), words(blocks, 100), words(blocks, 104)];
                for i in 0..16 {
                    let low = field(packed[i / 4 % 2], i % 4 * 8 + i / 8 * 4, 15);
                    let high = field(packed[2], i % 4 * 8 + i / 4 * 2, 3);
                    let both = _mm256_or_si256(low, _mm256_slli_epi32::<4>(high));
                    scales[i] = _mm256_sub_epi32(both, _mm256_set1_epi32(32));
                }
            }
            Format::Q4_K | Format::Q5_K => {
                let (a, b, c) = (words(blocks, 4), words(blocks, 8), words(blocks, 12));
                for i in 0..4 {
                    scales[i] = field(a, 8 * i, 63);
                    mins[i] = field(b, 8 * i, 63);
                    let high = |v| _mm256_slli_epi32::<4>(field(v, 8 * i + 6, 3));
                    scales[i + 4] = _mm256_or_si256(field(c, 8 * i, 15), high(a));
                    mins[i + 4] = _mm256_or_si256(field(c, 8 * i + 4, 15), high(b));
                }
            }
            Format::Q6_K => {
                for word in 0..4 {
                    let packed = words(blocks, 192 + 4 * word);
                    for i in 0..4 {
                        // With its sign: up to the top, and down again.
                        let top = _mm256_sll_epi32(packed, _mm_cvtsi32_si128(24 - 8 * i as i32));
                        scales[4 * word + i] = _mm256_srai_epi32::<24>(top);
                    }
                }
            }
            _ => unreachable!(),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn negative(v: __m256) -> __m256 {
    _mm256_xor_ps(v, _mm256_set1_ps(-0.0))
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
fn load_quads(x: &[i32]) -> __m256i {
    let x = &x[..GROUP / QUAD];
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
fn to_integers(v: __m256i) -> [i32; 8] {
    let mut out = [0; 8];
    // SAFETY: eight integers, and any alignment will do.
    unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) };
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
