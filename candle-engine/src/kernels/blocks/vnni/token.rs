//! One token: sixteen results, four rows read to their end before the next four, or all side by side.

use std::arch::x86_64::*;
use std::ops::Range;

use super::unpack::{alone, unit, unpack_scales};
use super::{Block, Rows, Step, GROUP, MOST_SCALES, WIDE};
use crate::kernels::panel::{quarter_sums, to_array, transpose_quarters, Tile, QUAD, SIXTEEN};
use crate::kernels::prefetch::Stream;

/// Numbers of a row that are multiplied before their sums are scaled.
const CHUNK: usize = 4096;

/// The sums of a chunk: `[unit][four rows]`, see [`multiply`].
type Dots = [[__m512i; 4]; CHUNK / WIDE];

/// `out(row, t, y)` for sixteens of the rows `range` of `w`, a multiple of sixteen, and each token.
///
/// Four rows are read to their end before the next four: the processor fetches a few streams ahead, not sixteen.
/// What all rows do together, their scales and sums, comes after them.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn end_to_end<B: Block>(
    w: &[u8],
    row_bytes: usize,
    range: Range<usize>,
    x: &[Tile],
    out: &mut impl FnMut(usize, usize, &[f32]),
) {
    let mut stream = Stream::new(&w[range.start * row_bytes..range.end * row_bytes]);
    let mut dots: Dots = [[_mm512_setzero_si512(); 4]; CHUNK / WIDE];
    for from in range.step_by(SIXTEEN) {
        let rows = Rows::new(w, row_bytes, from);
        for (t, x) in x.iter().enumerate() {
            let stream = if t == 0 { &mut stream } else { &mut Stream::default() };
            out(from, t, &to_array(four_by_four::<B>(rows, x, stream, &mut dots)));
        }
    }
}

/// As [`end_to_end`], but sixteen rows step by step.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn side_by_side<B: Block>(
    w: &[u8],
    row_bytes: usize,
    range: Range<usize>,
    x: &[Tile],
    out: &mut impl FnMut(usize, usize, &[f32]),
) {
    let blocks = row_bytes / B::BYTES;
    let whole = blocks - blocks % Step::<B>::BLOCKS;
    let mut stream = Stream::new(&w[range.start * row_bytes..range.end * row_bytes]);
    for from in range.step_by(SIXTEEN) {
        let rows = Rows::new(w, row_bytes, from);
        for (t, x) in x.iter().enumerate() {
            let stream = if t == 0 { &mut stream } else { &mut Stream::default() };
            let mut y = _mm512_setzero_ps();
            for block in (0..whole).step_by(Step::<B>::BLOCKS) {
                stream.read(SIXTEEN * Step::<B>::BYTES);
                y = sixteen::<B, true>(rows, block, x, y);
            }
            for block in whole..blocks {
                y = sixteen::<B, false>(rows, block, x, y);
            }
            out(from, t, &to_array(y));
        }
    }
}

/// Sixteen rows by one token; what is in `dots` does not matter.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn four_by_four<B: Block>(rows: Rows, x: &Tile, stream: &mut Stream, dots: &mut Dots) -> __m512 {
    let mut y = _mm512_setzero_ps();
    let blocks = rows.len / B::BYTES;
    let whole = blocks - blocks % Step::<B>::BLOCKS;
    let chunk = CHUNK / B::LEN;
    for first in (0..whole).step_by(chunk) {
        let end = whole.min(first + chunk);
        for j in 0..4 {
            let steps = dots.chunks_exact_mut(Step::<B>::UNITS);
            for (block, dots) in (first..end).step_by(Step::<B>::BLOCKS).zip(steps) {
                stream.read(4 * Step::<B>::BYTES);
                multiply::<B, true>(rows, block, x, j, dots);
            }
        }
        let steps = dots.chunks_exact(Step::<B>::UNITS);
        for (block, dots) in (first..end).step_by(Step::<B>::BLOCKS).zip(steps) {
            y = add_up::<B, true>(rows, block, x, dots, y);
        }
    }
    for block in whole..blocks {
        stream.read(SIXTEEN * B::BYTES);
        y = sixteen::<B, false>(rows, block, x, y);
    }
    y
}

/// `y` and the part of sixteen results of one unit from a block on.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn sixteen<B: Block, const WHOLE: bool>(rows: Rows, block: usize, x: &Tile, y: __m512) -> __m512 {
    let mut dots = [[_mm512_setzero_si512(); 4]; 1];
    for j in 0..4 {
        multiply::<B, WHOLE>(rows, block, x, j, &mut dots);
    }
    add_up::<B, WHOLE>(rows, block, x, &dots, y)
}

/// A step's products of the four rows `j`, from a block on: those of unit `u` are `dots[u][j]`, added up in
/// sixteens, of which quarter `q` of the register has the rows' `q`-th.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn multiply<B: Block, const WHOLE: bool>(
    rows: Rows,
    block: usize,
    x: &Tile,
    j: usize,
    dots: &mut [[__m512i; 4]],
) {
    let rows = rows.skip(block * B::BYTES, if WHOLE { Step::<B>::BYTES } else { B::BYTES });
    for (u, dots) in dots.iter_mut().enumerate() {
        let a = load_pair(&x.quads[(block * B::LEN + u * WIDE) / QUAD..], WHOLE);
        let mut four = [_mm512_setzero_si512(); 4];
        for (r, dot) in four.iter_mut().enumerate() {
            // SAFETY: a row's step is there.
            let w = unsafe { unit::<B, WHOLE>(rows.row(4 * j + r), u) };
            *dot = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, a);
        }
        dots[j] = quarter_sums(four);
    }
}

/// `y` and a step's part of sixteen results, from what [`multiply`] left.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn add_up<B: Block, const WHOLE: bool>(
    rows: Rows,
    block: usize,
    x: &Tile,
    dots: &[[__m512i; 4]],
    mut y: __m512,
) -> __m512 {
    let zero = _mm512_setzero_ps();
    let (mut scales, mut mins) = ([zero; MOST_SCALES], [zero; MOST_SCALES]);
    let rows = rows.skip(block * B::BYTES, if WHOLE { Step::<B>::BYTES } else { B::BYTES });
    unpack_scales::<B, WHOLE>(rows, &mut scales, &mut mins);
    let first = block * (B::LEN / B::SCALED);
    for (u, dots) in dots.iter().enumerate() {
        let dots = transpose_quarters(*dots);
        for g in 0..if WHOLE { 2 } else { 1 } {
            let at = (2 * u + g) * (GROUP / B::SCALED);
            let [a, b] = [dots[2 * g], dots[2 * g + 1]];
            if B::SCALED == GROUP {
                y = add::<B>(y, _mm512_add_epi32(a, b), x, first + at, scales[at], mins[at]);
            } else {
                y = add::<B>(y, a, x, first + at, scales[at], mins[at]);
                y = add::<B>(y, b, x, first + at + 1, scales[at + 1], mins[at + 1]);
            }
        }
    }
    y
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
