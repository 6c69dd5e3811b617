//! One token: sixteen results, as their rows' blocks are unpacked.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use super::unpack::{quads, scales};
use super::{avx2, has_sub_scales, k_block, Block, Rows, GROUP};
use crate::kernels::panel::{to_array, with_room, Tile, QUAD, SIXTEEN};
use crate::kernels::prefetch::Stream;

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
    if has_sub_scales::<B>() {
        k_blocks::<B>(w, row_bytes, range.start..whole, x, &mut out);
    } else {
        let bytes = &w[range.start * row_bytes..whole * row_bytes];
        let mut stream = Stream::new(bytes, SIXTEEN * row_bytes);
        for from in (range.start..whole).step_by(SIXTEEN) {
            let rows = Rows::new::<SIXTEEN>(w, row_bytes, from);
            for (t, x) in x.iter().enumerate() {
                let stream = if t == 0 { &mut stream } else { &mut Stream::default() };
                out(from, t, &to_array(sixteen::<B>(rows, x, stream)));
            }
        }
    }
    if whole < range.end {
        avx2::matmul::<B>(w, row_bytes, whole..range.end, x, out);
    }
}

thread_local! {
    /// Activations as they meet the parts of blocks, kept from call to call.
    static LINES: RefCell<Vec<__m512i>> = RefCell::default();
}

/// [`matmul`] of blocks with sub-scales, by whole sixteens of rows.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn k_blocks<B: Block>(
    w: &[u8],
    row_bytes: usize,
    range: Range<usize>,
    x: &[Tile],
    out: &mut impl FnMut(usize, usize, &[f32]),
) {
    LINES.with_borrow_mut(|lines| {
        lines.clear();
        x.iter().for_each(|x| k_block::lay_out::<B>(x, lines));
        with_room(|kept| {
            for from in range.step_by(SIXTEEN) {
                let rows = Rows::new::<SIXTEEN>(w, row_bytes, from);
                for (t, (x, lines)) in x.iter().zip(lines.chunks_exact(lines.len() / x.len())).enumerate() {
                    out(from, t, &to_array(k_block::sixteen::<B>(rows, x, lines, kept)));
                }
            }
        });
    });
}

/// Sixteen rows, of blocks that are one period, by one token; the same operations in the same order as the specification.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn sixteen<B: Block>(rows: Rows, x: &Tile, stream: &mut Stream) -> __m512 {
    // Quants with a sign get 128 added.
    let flip = _mm512_set1_epi8(if B::BITS == 8 { i8::MIN } else { 0 });
    let mut y = _mm512_setzero_ps();
    let mut high = [_mm512_setzero_si512(); GROUP / QUAD];
    for block in 0..rows.len() / B::BYTES {
        stream.read(SIXTEEN * B::BYTES);
        let rows = rows.skip(block * B::BYTES, B::BYTES);
        let [quads, _] = quads::<B>(rows, 0, &mut high);
        let quants: &[i32; GROUP / QUAD] = x.quads[block * (GROUP / QUAD)..].first_chunk().expect("a block");
        let mut dots = [_mm512_setzero_si512(); 2];
        for j in 0..GROUP / QUAD {
            let dot = &mut dots[2 * j / (GROUP / QUAD)];
            *dot = _mm512_dpbusd_epi32(*dot, _mm512_xor_si512(quads[j], flip), _mm512_set1_epi32(quants[j]));
        }
        let (scale, min) = scales::<B>(rows);
        let dot = _mm512_add_epi32(_mm512_add_epi32(dots[0], dots[1]), _mm512_set1_epi32(x.starts[block]));
        let scale = _mm512_mul_ps(scale, _mm512_set1_ps(x.scales[block]));
        y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, y);
        if B::HAS_MIN {
            y = _mm512_fmadd_ps(_mm512_set1_ps(x.sums[block]), min, y);
        }
    }
    y
}
