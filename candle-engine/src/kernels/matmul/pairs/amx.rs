//! `tdpbf16ps`: sixteen by sixteen sums of the products of 32 numbers each.

use std::arch::x86_64::*;
use std::mem::transmute;
use std::ops::Range;

use super::{Line, Sums, BLOCK, LANES};
use crate::kernels::amx::{self, Shape, Tiles};
use crate::kernels::matmul::Rows;
use crate::kernels::prefetch::Stream;

/// Tokens that are multiplied at once, where there are many: two tiles.
pub const TOKENS: usize = 2 * amx::ROWS;

/// Bytes from a pair of a panel's rows to the next one, and from a token's sums to the next one's.
const STRIDE: usize = size_of::<Line>();

/// Shapes the tiles of this thread for [`multiply`].
pub fn tiles() -> Tiles {
    // SAFETY: the level exists only after it was detected, and tasks do not nest.
    unsafe { Tiles::new([Shape::WHOLE; 8]) }
}

/// Lays the pairs of some tokens' inputs `k` out, rounded: sixteens of tokens, of each its blocks in turn, of them the
/// tokens; zeros up to a whole block. What stands for tokens that are not there does not matter.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn lay(x: Rows<f32>, tokens: Range<usize>, k: Range<usize>, width: usize, to: &mut [u32]) {
    assert!(tokens.len() <= width && width <= TOKENS, "tokens of a tile");
    for (sixteen, to) in tokens.clone().step_by(LANES).zip(to.chunks_exact_mut(to.len() / (width / LANES))) {
        for (start, to) in k.clone().step_by(2 * BLOCK).zip(to.chunks_exact_mut(BLOCK * LANES)) {
            let len = (k.end - start).min(2 * BLOCK);
            let some = u32::MAX >> (2 * BLOCK - len);
            for (t, to) in (sixteen..tokens.end).zip(to.as_chunks_mut::<BLOCK>().0) {
                let x = x.row(t)[start..start + len].as_ptr();
                // SAFETY: `len` floats; those that the masks leave out are not touched. Both types of pairs are 512
                // bits, of which any will do, and there is room for them.
                unsafe {
                    let low = _mm512_maskz_loadu_ps(some as u16, x);
                    let high = _mm512_maskz_loadu_ps((some >> LANES) as u16, x.wrapping_add(LANES));
                    let pairs = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                    _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
                }
            }
        }
    }
}

/// Adds the products of a panel's rows and a tile's tokens to `sums`, or to nothing.
///
/// # Safety
///
/// The [`tiles`] are in use.
pub unsafe fn multiply(panel: &[Line], x: &[u32], sums: &mut [Sums], fresh: bool) {
    let two = sums.len() == TOKENS;
    assert!(x.len() == panel.len() * sums.len() && panel.len().is_multiple_of(BLOCK), "pairs");
    assert!(two || sums.len() == LANES, "a tile of {}", sums.len());
    let to: *mut u8 = sums.as_mut_ptr().cast();
    let (mut w, mut x): (*const u8, *const u8) = (panel.as_ptr().cast(), x.as_ptr().cast());
    let other = panel.len() * LANES * size_of::<u32>();
    // SAFETY: by the contract; the assertions make sure of what is read and written.
    unsafe {
        if fresh {
            amx::zero::<0>();
            amx::zero::<1>();
            amx::zero::<2>();
            amx::zero::<3>();
        } else {
            amx::load::<0>(to, STRIDE);
            amx::load::<1>(to.add(amx::ROW), STRIDE);
            if two {
                amx::load::<2>(to.add(LANES * STRIDE), STRIDE);
                amx::load::<3>(to.add(LANES * STRIDE + amx::ROW), STRIDE);
            }
        }
        for _ in 0..panel.len() / BLOCK {
            amx::load::<4>(x, amx::ROW);
            amx::load::<6>(w, STRIDE);
            amx::dot_pairs::<0, 4, 6>();
            amx::load::<7>(w.add(amx::ROW), STRIDE);
            amx::dot_pairs::<1, 4, 7>();
            if two {
                amx::load::<5>(x.add(other), amx::ROW);
                amx::dot_pairs::<2, 5, 6>();
                amx::dot_pairs::<3, 5, 7>();
            }
            (w, x) = (w.add(BLOCK * STRIDE), x.add(LANES * amx::ROW));
        }
        amx::store::<0>(to, STRIDE);
        amx::store::<1>(to.add(amx::ROW), STRIDE);
        if two {
            amx::store::<2>(to.add(LANES * STRIDE), STRIDE);
            amx::store::<3>(to.add(LANES * STRIDE + amx::ROW), STRIDE);
        }
    }
}

/// sums\[t, r\] = x\[t\] · w\[r\] of `tokens` tokens, laid out in turn in one chunk and one tile of `width`. Rows are
/// read as they lie.
pub fn few(w: Rows<[u8; 2]>, x: &[u32], width: usize, tokens: usize, sums: &mut [f32]) {
    let whole = w.len / (2 * BLOCK) * (2 * BLOCK);
    assert!(tokens <= width && width <= LANES && sums.len() == tokens * w.count, "tokens");
    assert_eq!(x.len(), w.len.div_ceil(2).next_multiple_of(BLOCK) * width, "pairs");
    let (of_x, to) =
        (Shape { rows: BLOCK, row_bytes: 4 * width }, Shape { rows: LANES, row_bytes: 4 * width });
    // SAFETY: the level exists only after it was detected, and tasks do not nest.
    let _tiles = unsafe { Tiles::new([to, Shape::WHOLE, of_x, of_x, of_x, of_x, of_x, of_x]) };
    let mut stream = Stream::new(w.data.as_flattened(), LANES * 2 * w.stride);
    for first in (0..w.count).step_by(LANES) {
        let left = (w.count - first).min(LANES);
        let mut y = [[0f32; LANES]; LANES];
        // SAFETY: tiles of these shapes are in use. A whole block of sixteen rows can be read where it lies, of `x` a
        // block of pairs.
        unsafe {
            amx::zero::<0>();
            for (k, x) in (0..w.len).step_by(2 * BLOCK).zip(x.chunks_exact(BLOCK * width)) {
                stream.read(left * 2 * (w.len - k).min(2 * BLOCK));
                amx::load::<2>(x.as_ptr().cast(), 4 * width);
                if left == LANES && k < whole {
                    amx::load::<1>(w.row(first)[k..].as_ptr().cast(), 2 * w.stride);
                } else {
                    let mut rows = [[[0u8; 2]; 2 * BLOCK]; LANES];
                    for (r, row) in rows.iter_mut().enumerate().take(left) {
                        let from = &w.row(first + r)[k..w.len.min(k + 2 * BLOCK)];
                        row[..from.len()].copy_from_slice(from);
                    }
                    amx::load::<1>(rows.as_ptr().cast(), amx::ROW);
                }
                amx::dot_pairs::<0, 1, 2>();
            }
            amx::store::<0>(y.as_mut_ptr().cast(), size_of_val(&y[0]));
        }
        for (t, sums) in sums.chunks_exact_mut(w.count).enumerate() {
            sums[first..first + left].iter_mut().zip(&y).for_each(|(sum, y)| *sum = y[t]);
        }
    }
}
