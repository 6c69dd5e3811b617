//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: sixteen rows, 64 numbers at once.

mod token;
mod unpack;

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use self::token::{end_to_end, side_by_side};
use self::unpack::{unit, unpack_scales};
use super::avx2;
use super::formats::{Block, GROUP};
use crate::kernels::panel::{to_array, transpose_sixteen, Panel, Tile, OCTET, QUAD, SIXTEEN};
use crate::kernels::prefetch::Stream;
use crate::weights::Format;

/// Numbers that are unpacked at once: two groups.
const WIDE: usize = 2 * GROUP;
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
    if Step::<B>::SIDE_BY_SIDE {
        side_by_side::<B>(w, row_bytes, range.start..whole, x, &mut out);
    } else {
        end_to_end::<B>(w, row_bytes, range.start..whole, x, &mut out);
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
    let mut next = Stream::later(w.get((from + SIXTEEN) * row_bytes..).unwrap_or_default());
    let blocks = row_bytes / B::BYTES;
    let whole = blocks - blocks % Step::<B>::BLOCKS;
    for block in (0..whole).step_by(Step::<B>::BLOCKS) {
        next.read(SIXTEEN * Step::<B>::BYTES);
        pack_step::<B, true>(rows, block, s, panel);
    }
    for block in whole..blocks {
        pack_step::<B, false>(rows, block, s, panel);
    }
}

/// Packs a step of sixteen rows from a block on; unless `WHOLE`, that block alone.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn pack_step<B: Block, const WHOLE: bool>(rows: Rows, block: usize, s: usize, panel: &mut Panel) {
    let zero = _mm512_setzero_ps();
    let (mut scales, mut mins) = ([zero; MOST_SCALES], [zero; MOST_SCALES]);
    let len = if WHOLE { Step::<B>::LEN } else { B::LEN };
    let rows = rows.skip(block * B::BYTES, if WHOLE { Step::<B>::BYTES } else { B::BYTES });
    unpack_scales::<B, WHOLE>(rows, &mut scales, &mut mins);
    for i in 0..len / B::SCALED {
        let at = block * (B::LEN / B::SCALED) + i;
        panel.set_sixteen_scales(s, at, to_array(scales[i]), to_array(mins[i]));
    }
    for u in 0..len.div_ceil(WIDE) {
        let mut units = [_mm512_setzero_si512(); SIXTEEN];
        for (r, to) in units.iter_mut().enumerate() {
            // SAFETY: a row's step is there.
            *to = unsafe { unit::<B, WHOLE>(rows.row(r), u) };
        }
        let first = (block * B::LEN + u * WIDE) / QUAD;
        for (j, column) in transpose_sixteen(units).into_iter().enumerate().take(len.min(WIDE) / QUAD) {
            // SAFETY: a line's 64 bytes, at any alignment.
            unsafe { _mm512_storeu_si512(panel.sixteen_mut(s, first + j).as_mut_ptr().cast(), column) };
        }
    }
}

/// What is unpacked between two looks at the scales: 256 numbers, in one block or in eight, or two blocks where rows
/// are read side by side. What a row has beyond its last step comes block by block.
struct Step<B>(PhantomData<B>);

impl<B: Block> Step<B> {
    /// How one token is multiplied: sixteen rows at once, or four to their end. Q8_0, with little to unpack and a
    /// scale for every 32 numbers, is slower by fours.
    const SIDE_BY_SIDE: bool = matches!(B::FORMAT, Format::Q8_0);
    const LEN: usize = if Self::SIDE_BY_SIDE { WIDE } else { 256 };
    const BLOCKS: usize = Self::LEN / B::LEN;
    const BYTES: usize = B::BYTES * Self::BLOCKS;
    const UNITS: usize = Self::LEN / WIDE;
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
