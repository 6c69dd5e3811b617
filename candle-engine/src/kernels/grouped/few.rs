//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: one token or a few, and sixteen rows as they lie.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use super::one;
use super::results::Results;
use super::vnni::{load_line, load_quads, WIDE};
use super::{avx2, Grouped};
use crate::kernels::panel::{
    join, quarter_sums, sums_of_quarters, to_array, transpose_quarters, transpose_sixteen, with_room, Tile,
    QUAD, SIXTEEN,
};
use crate::kernels::prefetch::Stream;

/// Tokens up to which this is faster than a panel, by the bits of a weight.
pub const fn few(bits: u32) -> usize {
    if bits == 8 {
        FEW
    } else {
        4
    }
}

/// Tokens that are multiplied at once at most.
const FEW: usize = 8;

/// Sums of sixteen rows that wait until those of the last row are there, all tokens' together: 4 KB.
const KEPT: usize = 16;

thread_local! {
    /// Activations as they meet lines of weights, kept from call to call.
    static LINES: RefCell<Vec<__m512i>> = RefCell::default();
}

/// `out(row, t, y)` for runs of the rows `range` of `w` and each token.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub fn matmul<const BITS: u32>(
    w: &Grouped,
    range: Range<usize>,
    x: &[Tile],
    mut out: impl FnMut(usize, usize, &[f32]),
) {
    let whole = match Sums::of(w) {
        Some(_) => range.start + range.len() / SIXTEEN * SIXTEEN,
        None => range.start,
    };
    let of_sixteen = |bytes: &[u8]| SIXTEEN * (bytes.len() / w.rows);
    let (of_scales, of_zeros) = (of_sixteen(w.scales), of_sixteen(w.zeros.unwrap_or_default()));
    LINES.with_borrow_mut(|lines| {
        let all = lines_of_all::<BITS>(x, lines);
        let in_turn = if x.len() > 6 && BITS == 8 { SIXTEEN } else { 4 };
        let [mut quants, mut scales, mut zeros] = streams(w, range.start..whole, in_turn);
        if let [x] = x {
            return with_room(|kept| {
                for from in (range.start..whole).step_by(SIXTEEN) {
                    scales.read(of_scales);
                    zeros.read(of_zeros);
                    out(from, 0, &to_array(one::one::<BITS>(w, from, x, all[0], kept)));
                }
            });
        }
        let mut kept = [[_mm512_setzero_si512(); 4]; KEPT];
        for from in (range.start..whole).step_by(SIXTEEN) {
            scales.read(of_scales);
            zeros.read(of_zeros);
            // What the first tokens brought into a cache the others find there.
            let mut t = 0;
            while t < x.len() {
                let x = &x[t..];
                let quants = if t == 0 { &mut quants } else { &mut Stream::default() };
                let mut y = [[0.0; SIXTEEN]; FEW];
                let lines = &all[t..];
                let count = match x.len() {
                    8 if BITS == 8 => across::<8>(w, from, x, quants, &mut y),
                    7 if BITS == 8 => across::<7>(w, from, x, quants, &mut y),
                    2 => some::<BITS, 2>(w, from, x, lines, quants, &mut kept, &mut y),
                    3 | 6 => some::<BITS, 3>(w, from, x, lines, quants, &mut kept, &mut y),
                    5 => some::<BITS, 5>(w, from, x, lines, quants, &mut kept, &mut y),
                    _ => some::<BITS, 4>(w, from, x, lines, quants, &mut kept, &mut y),
                };
                for (i, y) in y[..count].iter().enumerate() {
                    out(from, t + i, y);
                }
                t += count;
            }
        }
    });
    if whole < range.end {
        avx2::matmul::<BITS>(w, whole..range.end, x, out);
    }
}

/// What is read of some rows, of which so many take turns: quants, scales, zero points.
pub(super) fn streams(w: &Grouped, rows: Range<usize>, in_turn: usize) -> [Stream; 3] {
    [w.quants, w.scales, w.zeros.unwrap_or_default()].map(|bytes| {
        let row = bytes.len() / w.rows;
        Stream::new(&bytes[rows.start * row..rows.end * row], in_turn * row)
    })
}

/// Each token's activations as they meet lines of weights: of bytes as they lie, where rows end with a line, else copies in
/// `lines`.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn lines_of_all<'a, const BITS: u32>(x: &'a [Tile], lines: &'a mut Vec<__m512i>) -> [&'a [__m512i]; FEW] {
    assert!(x.len() <= FEW, "few tokens");
    let mut all = [&[][..]; FEW];
    if BITS == 8 && x.iter().all(|x| x.quads.len().is_multiple_of(WIDE / QUAD)) {
        for (all, x) in all.iter_mut().zip(x) {
            // SAFETY: they begin with a line of a cache, and are whole ones.
            *all =
                unsafe { std::slice::from_raw_parts(x.quads.as_ptr().cast(), x.quads.len() / (WIDE / QUAD)) };
        }
        return all;
    }
    lines.clear();
    x.iter().for_each(|x| lay_out::<BITS>(x, lines));
    all.iter_mut().zip(lines.chunks_exact(lines.len() / x.len())).for_each(|(all, lines)| *all = lines);
    all
}

/// Adds a token's activations to `lines` as they meet a line of weights: 64, or of nibbles the 64 in low halves and then
/// the 64 in high ones; zeros past the end.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn lay_out<const BITS: u32>(x: &Tile, lines: &mut Vec<__m512i>) {
    for quads in x.quads.chunks(WIDE / QUAD * 8 / BITS as usize) {
        if BITS == 8 {
            lines.push(load_quads(quads));
            continue;
        }
        let (first, second) = quads.split_at(quads.len().min(WIDE / QUAD));
        let (first, second) = (load_quads(first), load_quads(second));
        let high = |v| _mm512_cvtepi16_epi8(_mm512_srli_epi16::<8>(v));
        lines.push(join(_mm512_cvtepi16_epi8(first), _mm512_cvtepi16_epi8(second)));
        lines.push(join(high(first), high(second)));
    }
}

/// How a row is cut into sums that are kept.
pub(super) struct Sums {
    /// Bytes of one: a period's, or a line of periods.
    pub bytes: usize,
    /// Quarters of one that are a period.
    pub quarters: usize,
}

impl Sums {
    /// None if periods end within the quarter of a line, or with another than they began.
    pub fn of(w: &Grouped) -> Option<Self> {
        match w.bits.bytes(w.period()) {
            bytes if bytes.is_multiple_of(WIDE) => Some(Self { bytes, quarters: 4 }),
            32 => Some(Self { bytes: WIDE, quarters: 2 }),
            16 => Some(Self { bytes: WIDE, quarters: 1 }),
            _ => None,
        }
    }
}

/// Sixteen rows from `from` on by the first `T` tokens; returns `T`. Four rows take turns, so that memory is read nearly in
/// its order.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn some<const BITS: u32, const T: usize>(
    w: &Grouped,
    from: usize,
    x: &[Tile],
    lines: &[&[__m512i]],
    quants: &mut Stream,
    kept: &mut [[__m512i; 4]; KEPT],
    out: &mut [[f32; SIXTEEN]; FEW],
) -> usize {
    let bytes = w.bits.bytes(w.cols);
    let of_token: &[&[__m512i]; T] = lines.first_chunk().expect("lines of each token");
    let of_row = bytes.div_ceil(WIDE) * 8 / BITS as usize;
    assert!(of_token.iter().all(|lines| lines.len() >= of_row), "lines of a row");
    let sums = Sums::of(w).expect("rows that can be cut");
    let mut results = Results::<T>::new(w, from, &x[..T]);
    let all = &w.quants[from * bytes..(from + SIXTEEN) * bytes];
    // In registers.
    let mut ahead = std::mem::take(quants);
    for first in (0..bytes).step_by(KEPT / T * sums.bytes) {
        let here = (bytes - first).min(KEPT / T * sums.bytes);
        for (j, rows) in all.chunks_exact(4 * bytes).enumerate() {
            // SAFETY: each of the four rows has `here` bytes from `first` on, and lines of all of a row were asserted.
            unsafe {
                let rows = rows.as_ptr().add(first);
                let mut kept = kept.as_mut_ptr();
                let (mut at, mut line) = (0, first / WIDE);
                while at < here {
                    let end = here.min(at + sums.bytes);
                    let mut of_rows = [[_mm512_setzero_si512(); 4]; T];
                    while at + WIDE <= end {
                        ahead.read_lines::<4>();
                        let all = u64::MAX;
                        add_line::<BITS, T>(rows.add(at), bytes, all, of_token, line, &mut of_rows);
                        (at, line) = (at + WIDE, line + 1);
                    }
                    if at < end {
                        ahead.read(4 * (end - at));
                        let rest = (1 << (end - at)) - 1;
                        add_line::<BITS, T>(rows.add(at), bytes, rest, of_token, line, &mut of_rows);
                        at = end;
                    }
                    for of_rows in of_rows {
                        (*kept)[j] = quarter_sums(of_rows);
                        kept = kept.add(1);
                    }
                }
            }
        }
        let kept = &kept[..T * here.div_ceil(sums.bytes)];
        match sums.quarters {
            1 => add::<4, T>(&mut results, kept),
            2 => add::<2, T>(&mut results, kept),
            _ => add::<1, T>(&mut results, kept),
        }
    }
    *quants = ahead;
    for (out, y) in out.iter_mut().zip(results.y) {
        *out = to_array(y);
    }
    T
}

/// Adds the products of line `line` of four rows, and of each token, to `sums`.
///
/// # Safety
///
/// From `rows` on, and from each of three more `stride` bytes apart, the bytes of `mask` can be read; `x` has so many
/// lines of weights.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
unsafe fn add_line<const BITS: u32, const T: usize>(
    rows: *const u8,
    stride: usize,
    mask: u64,
    x: &[&[__m512i]; T],
    line: usize,
    sums: &mut [[__m512i; 4]; T],
) {
    #[allow(clippy::needless_range_loop)] // of all tokens' sums one
    for r in 0..4 {
        // SAFETY: the caller's promise; any alignment will do. Past the end of a row activations are zero.
        let weights = unsafe { _mm512_maskz_loadu_epi8(mask, rows.add(r * stride).cast()) };
        for t in 0..T {
            // SAFETY: as above.
            sums[t][r] = unsafe {
                one::add_line::<BITS>(sums[t][r], weights, x[t].as_ptr().add(line * 8 / BITS as usize))
            };
        }
    }
}

/// As [`some`], for more tokens: sixteen rows' weights are transposed in registers, and no sums are.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn across<const T: usize>(
    w: &Grouped,
    from: usize,
    x: &[Tile],
    quants: &mut Stream,
    out: &mut [[f32; SIXTEEN]; FEW],
) -> usize {
    let x = &x[..T];
    let rows = &w.quants[from * w.cols..(from + SIXTEEN) * w.cols];
    let mut quads = [&[][..]; T];
    for (quads, x) in quads.iter_mut().zip(x) {
        *quads = &x.quads[..w.cols.div_ceil(QUAD)];
    }
    let mut rest = [[0; SIXTEEN]; T];
    let mut results = Results::<T>::new(w, from, x);
    for first in (0..w.cols).step_by(w.period()) {
        let end = w.cols.min(first + w.period());
        let mut dots = [_mm512_setzero_si512(); T];
        for at in (first..end).step_by(WIDE) {
            quants.read(SIXTEEN * WIDE);
            let mut weights = [_mm512_setzero_si512(); SIXTEEN];
            for (r, weights) in weights.iter_mut().enumerate() {
                let line = if at + WIDE <= end {
                    // SAFETY: each of the sixteen rows has so many weights from here on; without checks of each.
                    unsafe { _mm512_loadu_si512(rows.as_ptr().add(r * w.cols + at).cast()) }
                } else {
                    load_line(&rows[r * w.cols..][at..end])
                };
                // Unsigned: 128 is added.
                *weights = _mm512_xor_si512(line, _mm512_set1_epi8(i8::MIN));
            }
            let columns = transpose_sixteen(weights);
            // Past the end of the period activations are zero.
            let mut sixteen = [&[0; SIXTEEN]; T];
            for ((sixteen, rest), quads) in sixteen.iter_mut().zip(&mut rest).zip(quads) {
                let quads = &quads[at / QUAD..end.div_ceil(QUAD)];
                *sixteen = match quads.first_chunk() {
                    Some(sixteen) => sixteen,
                    None => {
                        *rest = [0; SIXTEEN];
                        rest[..quads.len()].copy_from_slice(quads);
                        rest
                    }
                };
            }
            for j in 0..SIXTEEN {
                for t in 0..T {
                    let x = _mm512_set1_epi32(sixteen[t][j]);
                    dots[t] = _mm512_dpbusd_epi32(dots[t], columns[j], x);
                }
            }
        }
        results.add_periods(&dots);
    }
    for (out, y) in out.iter_mut().zip(results.y) {
        *out = to_array(y);
    }
    T
}

/// Adds some sums that were kept, of `PERIODS` each.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn add<const PERIODS: usize, const T: usize>(results: &mut Results<T>, kept: &[[__m512i; 4]]) {
    for kept in kept.chunks_exact(T) {
        let mut dots = [[_mm512_setzero_si512(); T]; PERIODS];
        for (t, kept) in kept.iter().enumerate() {
            if PERIODS == 1 {
                dots[0][t] = sums_of_quarters(*kept);
                continue;
            }
            let [a, b, c, d] = transpose_quarters(*kept);
            if PERIODS == 2 {
                dots[0][t] = _mm512_add_epi32(a, b);
                dots[1][t] = _mm512_add_epi32(c, d);
            } else {
                dots.iter_mut().zip([a, b, c, d]).for_each(|(dots, v)| dots[t] = v);
            }
        }
        results.add_periods(dots.as_flattened());
    }
}
