//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: sixteen rows, 64 numbers at once.

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use super::avx2;
use super::formats::{Block, GROUP};
use crate::kernels::panel::{
    quarter_sums, transpose_quarters, transpose_sixteen, Panel, Tile, OCTET, QUAD, SIXTEEN,
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
    let whole = range.start + range.len() / SIXTEEN * SIXTEEN;
    for from in (range.start..whole).step_by(SIXTEEN) {
        let rows = Rows::new(w, row_bytes, from);
        // Where the next rows begin. They may be another task's: that will want them at about this time.
        let next = w.get((from + SIXTEEN) * row_bytes..).unwrap_or_default();
        for (t, x) in x.iter().enumerate() {
            let next = if t == 0 { next } else { &[] };
            out(from, t, &direct::<B>(rows, x, next));
        }
    }
    if whole < range.end {
        avx2::matmul::<B>(w, row_bytes, whole..range.end, x, out);
    }
}

/// Packs sixteen rows into sixteen `s` of the panel; past the last row the last again.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn pack<B: Block>(w: &[u8], row_bytes: usize, from: usize, s: usize, panel: &mut Panel) {
    if (from + SIXTEEN) * row_bytes > w.len() {
        for h in 0..2 {
            avx2::pack::<B>(w, row_bytes, from + h * OCTET, false, 2 * s + h, panel);
        }
        return;
    }
    let rows = Rows::new(w, row_bytes, from);
    let next = w.get((from + SIXTEEN) * row_bytes..).unwrap_or_default();
    let steps = row_bytes / Step::<B>::BYTES;
    for step in 0..steps {
        prefetch(next, step * SIXTEEN * Step::<B>::BYTES, SIXTEEN * Step::<B>::BYTES);
        pack_step::<B, true>(rows, step, s, panel);
    }
    if steps * Step::<B>::BYTES < row_bytes {
        pack_step::<B, false>(rows, steps, s, panel);
    }
}

/// Packs one step of sixteen rows.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn pack_step<B: Block, const WHOLE: bool>(rows: Rows, step: usize, s: usize, panel: &mut Panel) {
    let zero = _mm512_setzero_ps();
    let (mut scales, mut mins) = ([zero; MOST_SCALES], [zero; MOST_SCALES]);
    let len = if WHOLE { Step::<B>::LEN } else { B::LEN };
    let rows = rows.skip(step * Step::<B>::BYTES, if WHOLE { Step::<B>::BYTES } else { B::BYTES });
    unpack_scales::<B, WHOLE>(rows, &mut scales, &mut mins);
    for i in 0..len / B::SCALED {
        let at = step * (Step::<B>::LEN / B::SCALED) + i;
        panel.set_sixteen_scales(s, at, to_array(scales[i]), to_array(mins[i]));
    }
    for u in 0..len.div_ceil(WIDE) {
        let mut units = [_mm512_setzero_si512(); SIXTEEN];
        for (r, to) in units.iter_mut().enumerate() {
            // SAFETY: a row's step is there.
            *to = unsafe { unit::<B, WHOLE>(rows.row(r), u) };
        }
        let first = (step * Step::<B>::LEN + u * WIDE) / QUAD;
        for (j, column) in transpose_sixteen(units).into_iter().enumerate().take(len.min(WIDE) / QUAD) {
            // SAFETY: a line's 64 bytes, at any alignment.
            unsafe { _mm512_storeu_si512(panel.sixteen_mut(s, first + j).as_mut_ptr().cast(), column) };
        }
    }
}

/// What is unpacked between two looks at the scales: a block of 256, or two of 32, of which a row's last step may
/// have but one.
struct Step<B>(PhantomData<B>);

impl<B: Block> Step<B> {
    const BLOCKS: usize = if B::LEN < WIDE { WIDE / B::LEN } else { 1 };
    const LEN: usize = B::LEN * Self::BLOCKS;
    const BYTES: usize = B::BYTES * Self::BLOCKS;
}

/// The same bytes of each of sixteen rows: a pointer and a distance, so that all addresses fit in registers.
#[derive(Clone, Copy)]
struct Rows<'a> {
    start: *const u8,
    stride: usize,
    len: usize,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Rows<'a> {
    /// Sixteen whole rows from `from` on.
    #[inline(always)]
    fn new(w: &'a [u8], row_bytes: usize, from: usize) -> Self {
        let bytes = &w[from * row_bytes..][..SIXTEEN * row_bytes];
        Self { start: bytes.as_ptr(), stride: row_bytes, len: row_bytes, bytes: PhantomData }
    }

    /// Of each row the `len` bytes from `at` on.
    #[inline(always)]
    fn skip(self, at: usize, len: usize) -> Self {
        assert!(at <= self.len && len <= self.len - at, "within the row");
        Self { start: self.start.wrapping_add(at), len, ..self }
    }

    /// Row `r`'s `len` bytes, `r < 16`.
    #[inline(always)]
    fn row(self, r: usize) -> *const u8 {
        self.start.wrapping_add(r * self.stride)
    }
}

/// Sixteen rows by one token; `next` are the weights to come.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn direct<B: Block>(rows: Rows, x: &Tile, next: &[u8]) -> [f32; SIXTEEN] {
    let mut y = _mm512_setzero_ps();
    let steps = rows.len / Step::<B>::BYTES;
    for step in 0..steps {
        prefetch(next, step * SIXTEEN * Step::<B>::BYTES, SIXTEEN * Step::<B>::BYTES);
        y = direct_step::<B, true>(rows, step, x, y);
    }
    if steps * Step::<B>::BYTES < rows.len {
        y = direct_step::<B, false>(rows, steps, x, y);
    }
    to_array(y)
}

/// A step's part of sixteen results.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn direct_step<B: Block, const WHOLE: bool>(rows: Rows, step: usize, x: &Tile, mut y: __m512) -> __m512 {
    let zero = _mm512_setzero_ps();
    let (mut scales, mut mins) = ([zero; MOST_SCALES], [zero; MOST_SCALES]);
    let len = if WHOLE { Step::<B>::LEN } else { B::LEN };
    let rows = rows.skip(step * Step::<B>::BYTES, if WHOLE { Step::<B>::BYTES } else { B::BYTES });
    unpack_scales::<B, WHOLE>(rows, &mut scales, &mut mins);
    for u in 0..len.div_ceil(WIDE) {
        let group = step * (Step::<B>::LEN / GROUP) + 2 * u;
        let a = load_pair(&x.quads[group * (GROUP / QUAD)..], WHOLE);
        let mut parts = [_mm512_setzero_si512(); 4];
        for (j, part) in parts.iter_mut().enumerate() {
            let mut dots = [_mm512_setzero_si512(); 4];
            for (r, dot) in dots.iter_mut().enumerate() {
                // SAFETY: a row's step is there.
                let w = unsafe { unit::<B, WHOLE>(rows.row(4 * j + r), u) };
                *dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, a);
            }
            *part = quarter_sums(dots);
        }
        let dots = transpose_quarters(parts);
        for g in 0..if WHOLE { 2 } else { 1 } {
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
    y
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

/// [`Block::quants`] of two groups from `2·u` on, unsigned; unless `WHOLE`, of one, and anything.
///
/// # Safety
///
/// A step, or unless `WHOLE` a block, can be read.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn unit<B: Block, const WHOLE: bool>(step: *const u8, u: usize) -> __m512i {
    // SAFETY: all that is read lies in the block, or in the second of two, by the layouts in `formats.rs`.
    unsafe {
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
fn unpack_scales<B: Block, const WHOLE: bool>(
    rows: Rows,
    scales: &mut [__m512; MOST_SCALES],
    mins: &mut [__m512; MOST_SCALES],
) {
    let blocks = if WHOLE { Step::<B>::BLOCKS } else { 1 };
    match B::FORMAT {
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
            for word in 0..4 {
                let packed = words(rows, 4 * word);
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
            let both = words(rows, 0);
            let (d, dmin) = (half(both), negative(half(_mm512_srli_epi32::<16>(both))));
            let (a, b, c) = (words(rows, 4), words(rows, 8), words(rows, 12));
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
            for word in 0..4 {
                let packed = words(rows, 192 + 4 * word);
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

#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn to_array(v: __m512) -> [f32; SIXTEEN] {
    let mut out = [0.0; SIXTEEN];
    // SAFETY: sixteen floats, and any alignment will do.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) };
    out
}
