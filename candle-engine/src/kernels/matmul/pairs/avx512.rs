//! `vdpbf16ps`: thirty-two products, added in twos.

use std::arch::x86_64::*;
use std::mem::transmute;
use std::ops::Range;

use super::laid::width;
use super::{Line, Sums, BLOCK, LANES, TILE};
use crate::kernels::matmul::Rows;
use crate::kernels::panel::transpose_sixteen;
use crate::kernels::prefetch::Stream;

/// Lays the pairs of some tokens' inputs `k` out, rounded: of each token in turn, zeros up to `width` tokens and up to
/// a whole block.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn lay(x: Rows<f32>, tokens: Range<usize>, k: Range<usize>, width: usize, to: &mut [u32]) {
    assert!(tokens.len() <= width && width <= TILE, "tokens of a tile");
    for (start, to) in k.clone().step_by(2 * BLOCK).zip(to.chunks_exact_mut(BLOCK * width)) {
        let len = (k.end - start).min(2 * BLOCK);
        let some = mask_of(len);
        let mut pairs = [_mm512_setzero_si512(); LANES];
        for (pairs, t) in pairs.iter_mut().zip(tokens.clone()) {
            let x = x.row(t)[start..start + len].as_ptr();
            // SAFETY: `len` floats; those that the masks leave out are not touched.
            let (low, high) = unsafe {
                (
                    _mm512_maskz_loadu_ps(some as u16, x),
                    _mm512_maskz_loadu_ps((some >> LANES) as u16, x.wrapping_add(LANES)),
                )
            };
            // SAFETY: both types are 512 bits, of which any will do.
            *pairs = unsafe { transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) };
        }
        if width == 1 {
            // SAFETY: a block of one token.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs[0]) };
            continue;
        }
        for (pairs, to) in transpose_sixteen(pairs).iter().zip(to.chunks_exact_mut(width)) {
            // SAFETY: `width` pairs; those that the mask leaves out are not touched.
            unsafe { _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), (1 << width) - 1, *pairs) };
        }
    }
}

/// The first `len` of 32 lanes.
#[inline(always)]
fn mask_of(len: usize) -> u32 {
    u32::MAX >> (2 * BLOCK - len)
}

/// Lays the pairs of a panel's rows, inputs `k`, out; what stands for rows that are not there does not matter.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn pack(w: Rows<[u8; 2]>, k: Range<usize>, to: &mut [Line]) {
    for half in [0, LANES] {
        let sixteen = Sixteen::new(w, half);
        for (start, to) in k.clone().step_by(2 * BLOCK).zip(to.chunks_exact_mut(BLOCK)) {
            let columns = sixteen.columns(start..k.end.min(start + 2 * BLOCK));
            for j in 0..BLOCK {
                // SAFETY: a pair of each of sixteen rows.
                unsafe { _mm512_storeu_si512(to[j].0[half..].as_mut_ptr().cast(), columns[j]) };
            }
        }
    }
}

/// Sixteen rows; the last one several times where there are fewer.
struct Sixteen<'a> {
    starts: [*const u8; LANES],
    len: usize,
    rows: std::marker::PhantomData<&'a [u8]>,
}

impl<'a> Sixteen<'a> {
    fn new(w: Rows<'a, [u8; 2]>, first: usize) -> Self {
        let mut starts = [std::ptr::null(); LANES];
        for (r, start) in (first..).zip(&mut starts) {
            *start = w.row(r.min(w.count - 1)).as_ptr().cast();
        }
        Self { starts, len: w.len, rows: std::marker::PhantomData }
    }

    /// Pairs of at most 32 inputs, then zeros: of each row in turn.
    #[inline]
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    fn columns(&self, k: Range<usize>) -> [__m512i; BLOCK] {
        assert!(k.start <= k.end && k.end <= self.len, "inputs of a row");
        let mut rows = [_mm512_setzero_si512(); LANES];
        if k.len() == 2 * BLOCK {
            for (row, from) in rows.iter_mut().zip(self.starts) {
                // SAFETY: so many numbers of a row, by the assertion.
                *row = unsafe { _mm512_loadu_si512(from.add(2 * k.start).cast()) };
            }
        } else {
            let some = mask_of(k.len());
            for (row, from) in rows.iter_mut().zip(self.starts) {
                // SAFETY: as above; what the mask leaves out is not touched.
                *row = unsafe { _mm512_maskz_loadu_epi16(some, from.add(2 * k.start).cast()) };
            }
        }
        transpose_sixteen(rows)
    }
}

/// sums\[t, r\] = x\[t\] · w\[r\] of `tokens` tokens, laid out in one chunk and one tile.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn few(w: Rows<[u8; 2]>, x: &[u32], tokens: usize, sums: &mut [f32]) {
    match width(tokens) {
        1 => rows::<1>(w, x, tokens, sums),
        4 => rows::<4>(w, x, tokens, sums),
        8 => rows::<8>(w, x, tokens, sums),
        _ => rows::<TILE>(w, x, tokens, sums),
    }
}

#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn rows<const T: usize>(w: Rows<[u8; 2]>, x: &[u32], tokens: usize, sums: &mut [f32]) {
    assert_eq!(x.len(), w.len.div_ceil(2).next_multiple_of(BLOCK) * T, "pairs");
    let mut stream = Stream::new(w.data.as_flattened(), LANES * 2 * w.stride);
    for first in (0..w.count).step_by(LANES) {
        let left = (w.count - first).min(LANES);
        let sixteen = Sixteen::new(w, first);
        let mut acc = [_mm512_setzero_ps(); T];
        for (start, x) in (0..w.len).step_by(2 * BLOCK).zip(x.chunks_exact(BLOCK * T)) {
            let x: &[[u32; T]; BLOCK] = x.as_chunks::<T>().0.try_into().expect("a block");
            stream.read(left * 4 * BLOCK);
            let columns = sixteen.columns(start..w.len.min(start + 2 * BLOCK));
            for j in 0..BLOCK {
                for t in 0..T {
                    acc[t] = dot(acc[t], columns[j], _mm512_set1_epi32(x[j][t] as i32));
                }
            }
        }
        for t in 0..T {
            if t < tokens {
                let to = sums[t * w.count + first..][..left].as_mut_ptr();
                // SAFETY: `left` sums; those that the mask leaves out are not touched.
                unsafe { _mm512_mask_storeu_ps(to, ((1u32 << left) - 1) as u16, acc[t]) };
            }
        }
    }
}

/// Adds the products of pairs.
#[inline]
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn dot(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: all types are 512 bits, of which any will do.
    let (a, b) = unsafe { (transmute::<__m512i, __m512bh>(a), transmute::<__m512i, __m512bh>(b)) };
    _mm512_dpbf16_ps(sum, a, b)
}

/// Adds the products of a panel's rows and a tile's tokens to `sums`, or to nothing.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn multiply(panel: &[Line], x: &[u32], sums: &mut [Sums], fresh: bool) {
    match sums.len() {
        1 => tile::<1>(panel, x, sums, fresh),
        4 => tile::<4>(panel, x, sums, fresh),
        8 => tile::<8>(panel, x, sums, fresh),
        TILE => tile::<TILE>(panel, x, sums, fresh),
        width => unreachable!("tiles of {width}"),
    }
}

/// The same for `T` tokens.
#[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn tile<const T: usize>(panel: &[Line], x: &[u32], sums: &mut [Sums], fresh: bool) {
    assert_eq!(x.len(), panel.len() * T, "pairs");
    let sums: &mut [Sums; T] = sums.try_into().expect("a tile");
    let mut acc = [[_mm512_setzero_ps(); 2]; T];
    if !fresh {
        for t in 0..T {
            let from = sums[t].0.as_ptr();
            // SAFETY: two registers of sums.
            acc[t] = unsafe { [_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(LANES))] };
        }
    }
    for (line, x) in panel.iter().zip(x.as_chunks::<T>().0) {
        let from = line.0.as_ptr();
        // SAFETY: two registers of pairs.
        let w = unsafe { [_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(LANES).cast())] };
        for t in 0..T {
            let x = _mm512_set1_epi32(x[t] as i32);
            acc[t][0] = dot(acc[t][0], w[0], x);
            acc[t][1] = dot(acc[t][1], w[1], x);
        }
    }
    for t in 0..T {
        let to = sums[t].0.as_mut_ptr();
        // SAFETY: two registers of sums.
        unsafe {
            _mm512_storeu_ps(to, acc[t][0]);
            _mm512_storeu_ps(to.add(LANES), acc[t][1]);
        }
    }
}
