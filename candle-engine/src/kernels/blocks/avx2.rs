//! `avx2,fma,f16c`: eight rows at once.
//!
//! Hot loops are plain loops: a closure here has these features too, and so cannot be inlined into the
//! adaptor or `map` that calls it, which has not.

use std::arch::x86_64::*;
use std::ops::Range;

use super::formats::{has_sub_scales, number, Block, GROUP};
use super::rows::Rows;
use crate::kernels::panel::{
    field_of_eight as field, pairs, set_quants, sums_of_eight, transpose, Panel, Tile, QUAD,
};
use crate::kernels::prefetch::Stream;
use crate::weights::Format;

/// Rows of a register.
const LANES: usize = 8;

/// Tokens up to which [`matmul`] is faster than a panel, by the bits of a quant.
pub fn few(bits: u32) -> usize {
    if bits == 8 {
        6
    } else {
        4
    }
}

/// `out(row, t, y)` for runs of the rows `range` of `w` and each token.
#[target_feature(enable = "avx2,fma,f16c")]
pub fn matmul<B: Block>(
    w: &[u8],
    row_bytes: usize,
    range: Range<usize>,
    x: &[Tile],
    mut out: impl FnMut(usize, usize, &[f32]),
) {
    let mut stream = Stream::new(&w[range.start * row_bytes..range.end * row_bytes], LANES * row_bytes);
    let mut last = Vec::new();
    for from in range.clone().step_by(LANES) {
        let rows = rows(w, row_bytes, from, range.end, &mut last);
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
    let mut last = Vec::new();
    let rows = rows(w, row_bytes, from, w.len() / row_bytes, &mut last);
    let less = _mm256_set1_epi8(less);
    let mut sub = SubScales::none();
    for b in 0..row_bytes / B::BYTES {
        let blocks = rows.skip(b * B::BYTES, B::BYTES);
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
            for (r, row) in rows.iter_mut().enumerate() {
                // SAFETY: the blocks are there.
                *row = unsafe { _mm256_sub_epi8(quants::<B>(blocks.row(r), g), less) };
            }
            set_quants(panel, h, b * (B::LEN / GROUP) + g, transpose(rows));
        }
    }
}

/// Eight rows from `from` on; past the last before `end` the last again, by way of a copy.
#[inline(always)]
fn rows<'a>(w: &'a [u8], row_bytes: usize, from: usize, end: usize, copy: &'a mut Vec<u8>) -> Rows<'a> {
    if from + LANES <= end {
        return Rows::new::<LANES>(w, row_bytes, from);
    }
    copy.clear();
    for r in from..from + LANES {
        copy.extend_from_slice(&w[r.min(end - 1) * row_bytes..][..row_bytes]);
    }
    Rows::new::<LANES>(copy, row_bytes, 0)
}

/// Eight rows by one token.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn direct<B: Block>(w: Rows, x: &Tile, stream: &mut Stream) -> __m256 {
    let mut y = _mm256_setzero_ps();
    let mut outliers = x.outliers.iter().peekable();
    let mut sub = SubScales::none();
    for b in 0..w.len() / B::BYTES {
        stream.read(LANES * B::BYTES);
        let blocks = w.skip(b * B::BYTES, B::BYTES);
        let periods = B::LEN / B::PERIOD;
        if has_sub_scales::<B>() {
            sub.unpack::<B>(blocks);
        }
        let mut dot = _mm256_setzero_si256();
        for g in 0..B::LEN / GROUP {
            let at = b * (B::LEN / GROUP) + g;
            let a = load_quads(&x.quads[at * (GROUP / QUAD)..]);
            let mut dots = [_mm256_setzero_si256(); LANES];
            for (r, dot) in dots.iter_mut().enumerate() {
                // SAFETY: the blocks are there.
                *dot = unsafe { products::<B>(quants::<B>(blocks.row(r), g), a) };
            }
            let [first, second] = sums_of_eight(dots);
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
            for (r, weight) in weights.iter_mut().enumerate() {
                // SAFETY: the block is there.
                let block = unsafe { std::slice::from_raw_parts(blocks.row(r), B::BYTES) };
                *weight = number::<B>(block, outlier.input % B::LEN);
            }
            // SAFETY: eight floats, and any alignment will do.
            let weights = unsafe { _mm256_loadu_ps(weights.as_ptr()) };
            y = _mm256_fmadd_ps(_mm256_set1_ps(outlier.value), weights, y);
        }
    }
    y
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

/// [`Block::quants`] in a register.
///
/// # Safety
///
/// A block can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn quants<B: Block>(block: *const u8, g: usize) -> __m256i {
    let at = |at: usize| block.wrapping_add(at);
    // SAFETY: what is read lies within a block.
    unsafe {
        match B::FORMAT {
            Format::Q8_0 => load32(at(2)),
            Format::Q4_0 => nibbles(at(2)),
            Format::Q4_1 => nibbles(at(4)),
            Format::Q5_0 => _mm256_or_si256(nibbles(at(6)), fifth_bits(at(2))),
            Format::Q5_1 => _mm256_or_si256(nibbles(at(8)), fifth_bits(at(4))),
            Format::Q2_K => bits(at(16 + g / 4 * 32), g % 4 * 2, 3),
            Format::Q3_K => {
                let high = _mm256_slli_epi16::<2>(bits(at(0), g, 1));
                _mm256_or_si256(bits(at(32 + g / 4 * 32), g % 4 * 2, 3), high)
            }
            Format::Q4_K => bits(at(16 + g / 2 * 32), g % 2 * 4, 15),
            Format::Q5_K => {
                let high = _mm256_slli_epi16::<4>(bits(at(16), g, 1));
                _mm256_or_si256(bits(at(48 + g / 2 * 32), g % 2 * 4, 15), high)
            }
            Format::Q6_K => {
                let (half, quarter) = (g / 4, g % 4);
                let high = _mm256_slli_epi16::<4>(bits(at(128 + half * 32), quarter * 2, 3));
                let low = bits(at(half * 64 + quarter % 2 * 32), quarter / 2 * 4, 15);
                _mm256_or_si256(low, high)
            }
            _ => unreachable!(),
        }
    }
}

/// The four-bit halves of 16 bytes: all the low ones, then all the high ones.
///
/// # Safety
///
/// They can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn nibbles(bytes: *const u8) -> __m256i {
    // SAFETY: the caller's promise; any alignment will do.
    let low = unsafe { _mm_loadu_si128(bytes.cast()) };
    let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(low), _mm_srli_epi16::<4>(low));
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// `(byte >> shift) & mask` of 32 bytes; the mask takes away what comes from the neighbour.
///
/// # Safety
///
/// They can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn bits(bytes: *const u8, shift: usize, mask: i8) -> __m256i {
    // SAFETY: the caller's promise.
    let shifted = _mm256_srl_epi16(unsafe { load32(bytes) }, _mm_cvtsi32_si128(shift as i32));
    _mm256_and_si256(shifted, _mm256_set1_epi8(mask))
}

/// 32 bits, each as the bit of value 16 in a byte of its own.
///
/// # Safety
///
/// Their four bytes can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn fifth_bits(bytes: *const u8) -> __m256i {
    // SAFETY: the caller's promise.
    let all = _mm256_set1_epi32(unsafe { bytes.cast::<i32>().read_unaligned() });
    // Each byte eight times over: in lane 0 the first two, in lane 1 the others.
    let source = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let one = _mm256_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(all, source), one), one);
    _mm256_and_si256(set, _mm256_set1_epi8(16))
}

/// [`Block::scale`] of eight rows' blocks, one row a lane.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn scales<B: Block>(blocks: Rows) -> (__m256, __m256) {
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
    fn unpack<B: Block>(&mut self, blocks: Rows) {
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
fn halves(blocks: Rows, at: usize) -> __m256 {
    let blocks = blocks.skip(at, 2);
    // SAFETY: two bytes of each row are there.
    let half = |r: usize| i32::from(unsafe { blocks.row(r).cast::<i16>().read_unaligned() });
    let mut bits = _mm_cvtsi32_si128(half(0));
    bits = _mm_insert_epi16::<1>(bits, half(1));
    bits = _mm_insert_epi16::<2>(bits, half(2));
    bits = _mm_insert_epi16::<3>(bits, half(3));
    bits = _mm_insert_epi16::<4>(bits, half(4));
    bits = _mm_insert_epi16::<5>(bits, half(5));
    bits = _mm_insert_epi16::<6>(bits, half(6));
    _mm256_cvtph_ps(_mm_insert_epi16::<7>(bits, half(7)))
}

/// The 32 bits at byte `at` of eight blocks.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn words(blocks: Rows, at: usize) -> __m256i {
    let blocks = blocks.skip(at, 4);
    // SAFETY: four bytes of each row are there.
    let word = |r: usize| unsafe { blocks.row(r).cast::<i32>().read_unaligned() };
    _mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7))
}

/// # Safety
///
/// 32 bytes can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn load32(bytes: *const u8) -> __m256i {
    // SAFETY: the caller's promise; any alignment will do.
    unsafe { _mm256_loadu_si256(bytes.cast()) }
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
