//! One token: sixteen results, as their rows' blocks are unpacked.

use std::arch::x86_64::*;
use std::ops::Range;

use super::unpack::{groups, quads, unpack_scales};
use super::{avx2, Block, Rows, GROUP, MOST_SCALES};
use crate::kernels::panel::{to_array, Tile, QUAD, SIXTEEN};
use crate::kernels::prefetch::Stream;

/// Groups in a block of 256.
const MOST_GROUPS: usize = 8;

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
    let mut stream = Stream::new(&w[range.start * row_bytes..whole * row_bytes]);
    for from in (range.start..whole).step_by(SIXTEEN) {
        let rows = Rows::new(w, row_bytes, from);
        for (t, x) in x.iter().enumerate() {
            let stream = if t == 0 { &mut stream } else { &mut Stream::default() };
            out(from, t, &to_array(sixteen::<B>(rows, x, stream)));
        }
    }
    if whole < range.end {
        avx2::matmul::<B>(w, row_bytes, whole..range.end, x, out);
    }
}

/// Sixteen rows by one token.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn sixteen<B: Block>(rows: Rows, x: &Tile, stream: &mut Stream) -> __m512 {
    let (mut y, zero) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    // Of a block, and written anew for each: of every group the sums of its halves.
    let mut dots = [[_mm512_setzero_si512(); 2]; MOST_GROUPS];
    let (mut scales, mut mins) = ([zero; MOST_SCALES], [zero; MOST_SCALES]);
    let mut high = [_mm512_setzero_si512(); GROUP / QUAD];
    for block in 0..rows.len / B::BYTES {
        stream.read(SIXTEEN * B::BYTES);
        let rows = rows.skip(block * B::BYTES, B::BYTES);
        for turn in 0..(B::LEN / GROUP).div_ceil(2) {
            let two = quads::<B>(rows, turn, &mut high);
            for (quads, g) in two.iter().zip(groups::<B>(turn)).take(B::LEN / GROUP) {
                let x = x.quads[(block * B::LEN + g * GROUP) / QUAD..].first_chunk().expect("a group");
                dots[g] = multiply::<B>(quads, x);
            }
        }
        unpack_scales::<B>(rows, &mut scales, &mut mins);
        let first = block * (B::LEN / B::SCALED);
        for (g, &[a, b]) in dots.iter().enumerate().take(B::LEN / GROUP) {
            if B::SCALED == GROUP {
                y = add::<B>(y, _mm512_add_epi32(a, b), x, first + g, scales[g], mins[g]);
            } else {
                let at = 2 * g;
                y = add::<B>(y, a, x, first + at, scales[at], mins[at]);
                y = add::<B>(y, b, x, first + at + 1, scales[at + 1], mins[at + 1]);
            }
        }
    }
    y
}

/// The sums of the first and of the second half of a group.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn multiply<B: Block>(quads: &[__m512i; GROUP / QUAD], x: &[i32; GROUP / QUAD]) -> [__m512i; 2] {
    // Quants with a sign get 128 added.
    let flip = _mm512_set1_epi8(if B::BITS == 8 { i8::MIN } else { 0 });
    let mut halves = [_mm512_setzero_si512(); 2];
    for j in 0..GROUP / QUAD {
        let half = &mut halves[2 * j / (GROUP / QUAD)];
        *half = _mm512_dpbusd_epi32(*half, _mm512_xor_si512(quads[j], flip), _mm512_set1_epi32(x[j]));
    }
    halves
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
