//! `avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c`: one token or a few, and sixteen rows as they lie.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use super::vnni::{load_line, load_quads, sixteen_scales, SCALES, WIDE};
use super::{avx2, Grouped};
use crate::kernels::panel::{
    join, quarter_sums, to_array, transpose_quarters, transpose_sixteen, Tile, QUAD, SIXTEEN,
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
    let whole = range.start + range.len() / SIXTEEN * SIXTEEN;
    LINES.with_borrow_mut(|lines| {
        lines.clear();
        x.iter().for_each(|x| lay_out::<BITS>(x, lines));
        let all = lines.chunks_exact(lines.len() / x.len());
        let [mut quants, mut scales, mut zeros] = streams(w, range.start..whole);
        let mut kept = [[_mm512_setzero_si512(); 4]; KEPT];
        for from in (range.start..whole).step_by(SIXTEEN) {
            scales.read(SIXTEEN * w.scales.len() / w.rows);
            zeros.read(SIXTEEN * w.zeros.unwrap_or_default().len() / w.rows);
            // What the first tokens brought into a cache the others find there.
            let mut t = 0;
            while t < x.len() {
                let x = &x[t..];
                let quants = if t == 0 { &mut quants } else { &mut Stream::default() };
                let mut y = [[0.0; SIXTEEN]; FEW];
                let lines = all.clone().skip(t);
                let count = match x.len() {
                    8 if BITS == 8 => across::<8>(w, from, x, quants, &mut y),
                    7 if BITS == 8 => across::<7>(w, from, x, quants, &mut y),
                    1 => some::<BITS, 1>(w, from, x, lines, quants, &mut kept, &mut y),
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

/// What is read of some rows: quants, scales, zero points.
pub(super) fn streams(w: &Grouped, rows: Range<usize>) -> [Stream; 3] {
    [w.quants, w.scales, w.zeros.unwrap_or_default()].map(|bytes| {
        let row = bytes.len() / w.rows;
        Stream::new(&bytes[rows.start * row..rows.end * row], SIXTEEN * row)
    })
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

/// Sixteen rows from `from` on by the first `T` tokens; returns `T`. Four rows take turns, so that memory is read nearly in
/// its order.
#[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
#[inline]
fn some<'a, const BITS: u32, const T: usize>(
    w: &Grouped,
    from: usize,
    x: &[Tile],
    mut lines: impl Iterator<Item = &'a [__m512i]>,
    quants: &mut Stream,
    kept: &mut [[__m512i; 4]; KEPT],
    out: &mut [[f32; SIXTEEN]; FEW],
) -> usize {
    let mut of_token: [&[__m512i]; T] = [&[]; T];
    for lines_of in &mut of_token {
        *lines_of = lines.next().expect("lines of each token");
    }
    let (line, bytes) = (8 / BITS as usize, w.bits.bytes(w.cols));
    let period = w.bits.bytes(w.period());
    // Bytes of one sum: a period's, if they are whole lines.
    let step = if period.is_multiple_of(WIDE) { period } else { WIDE };
    let quarters = if period.is_multiple_of(WIDE) { 4 } else { 4 * period / WIDE };
    let mut results = Results::<T>::new(w, from, &x[..T]);
    let all = &w.quants[from * bytes..(from + SIXTEEN) * bytes];
    for first in (0..bytes).step_by(KEPT / T * step) {
        let starts = (first..bytes.min(first + KEPT / T * step)).step_by(step);
        for (j, rows) in all.chunks_exact(4 * bytes).enumerate() {
            for (at, kept) in starts.clone().zip(kept.chunks_exact_mut(T)) {
                let end = bytes.min(at + step);
                let mut sums = [[_mm512_setzero_si512(); 4]; T];
                let mut i = at;
                while i < end {
                    let here = WIDE.min(end - i);
                    let mut a = [[_mm512_setzero_si512(); 2]; T];
                    for t in 0..T {
                        let two = &of_token[t][i / WIDE * line..][..line];
                        a[t] = [two[0], two[line - 1]];
                    }
                    quants.read(4 * here);
                    for r in 0..4 {
                        let weights = if here == WIDE {
                            // SAFETY: `i + WIDE <= bytes`, and `rows` are four times that; without a check of each.
                            unsafe { _mm512_loadu_si512(rows.as_ptr().add(r * bytes + i).cast()) }
                        } else {
                            load_line(&rows[r * bytes + i..][..here])
                        };
                        // Unsigned: 128 is added. Past the end of a row activations are zero.
                        let low = match BITS {
                            8 => _mm512_xor_si512(weights, _mm512_set1_epi8(i8::MIN)),
                            _ => _mm512_and_si512(weights, _mm512_set1_epi8(15)),
                        };
                        for t in 0..T {
                            sums[t][r] = _mm512_dpbusd_epi32(sums[t][r], low, a[t][0]);
                        }
                        if BITS == 4 {
                            let high =
                                _mm512_and_si512(_mm512_srli_epi16::<4>(weights), _mm512_set1_epi8(15));
                            for t in 0..T {
                                sums[t][r] = _mm512_dpbusd_epi32(sums[t][r], high, a[t][1]);
                            }
                        }
                    }
                    i += here;
                }
                for t in 0..T {
                    kept[t][j] = quarter_sums(sums[t]);
                }
            }
        }
        for (_, kept) in starts.zip(kept.chunks_exact(T)) {
            let mut sums = [[_mm512_setzero_si512(); 4]; T];
            for t in 0..T {
                sums[t] = transpose_quarters(kept[t]);
            }
            results.add(sums, quarters);
        }
    }
    for (out, y) in out.iter_mut().zip(results.y) {
        *out = to_array(y);
    }
    T
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
        results.add_period(dots);
    }
    for (out, y) in out.iter_mut().zip(results.y) {
        *out = to_array(y);
    }
    T
}

/// Results of sixteen rows and each token, as the sums come in.
struct Results<'a, const T: usize> {
    w: &'a Grouped<'a>,
    from: usize,
    x: &'a [Tile],
    y: [__m512; T],
    /// The period that comes next.
    period: usize,
    /// Its sums so far, and of how many quarters of a line.
    dots: ([__m512i; T], usize),
    group: usize,
    /// Where the next group begins.
    next_group: usize,
    scales: [__m512; SCALES],
    mins: [__m512; SCALES],
    /// The outlier that comes next.
    outliers: [usize; T],
}

impl<'a, const T: usize> Results<'a, T> {
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn new(w: &'a Grouped<'a>, from: usize, x: &'a [Tile]) -> Self {
        let zeros = [_mm512_setzero_ps(); SCALES];
        Self {
            w,
            from,
            x,
            y: [_mm512_setzero_ps(); T],
            period: 0,
            dots: ([_mm512_setzero_si512(); T], 0),
            group: 0,
            next_group: 0,
            scales: zeros,
            mins: zeros,
            outliers: [0; T],
        }
    }

    /// Adds the four quarters of a sum, of which so many are a period; what comes after the last is left out.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn add(&mut self, sums: [[__m512i; 4]; T], quarters: usize) {
        let two = |sums: [[__m512i; 4]; T], first: usize| {
            let mut dots = [_mm512_setzero_si512(); T];
            for (dot, sums) in dots.iter_mut().zip(sums) {
                *dot = _mm512_add_epi32(sums[first], sums[first + 1]);
            }
            dots
        };
        if quarters == 4 || quarters == 2 {
            let (mut first, second) = (two(sums, 0), two(sums, 2));
            if quarters == 2 {
                self.add_period(first);
                return self.add_period(second);
            }
            for (first, second) in first.iter_mut().zip(second) {
                *first = _mm512_add_epi32(*first, second);
            }
            return self.add_period(first);
        }
        for q in 0..4 {
            for (dot, sums) in self.dots.0.iter_mut().zip(&sums) {
                *dot = _mm512_add_epi32(*dot, sums[q]);
            }
            self.dots.1 += 1;
            if self.dots.1 == quarters {
                self.add_period(self.dots.0);
                self.dots = ([_mm512_setzero_si512(); T], 0);
            }
        }
    }

    /// Adds a period, by the same operations in the same order as the specification.
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    #[inline]
    fn add_period(&mut self, dots: [__m512i; T]) {
        let (w, i) = (self.w, self.period);
        let first = i * w.period();
        if first >= w.cols {
            return;
        }
        if first == self.next_group {
            self.group = first / w.group;
            self.next_group += w.group;
            if self.group.is_multiple_of(SCALES) {
                sixteen_scales(w, self.from, self.group, &mut self.scales, &mut self.mins);
            }
        }
        let group = self.group % SCALES;
        for (t, (dot, x)) in dots.into_iter().zip(self.x).enumerate() {
            let sum = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_set1_epi32(x.starts[i]), dot));
            let scale = _mm512_mul_ps(self.scales[group], _mm512_set1_ps(x.scales[i]));
            let mut y = _mm512_fmadd_ps(sum, scale, self.y[t]);
            if w.zeros.is_some() {
                y = _mm512_fmadd_ps(_mm512_set1_ps(x.sums[i]), self.mins[group], y);
            }
            while let Some(outlier) = x.outliers.get(self.outliers[t]) {
                if outlier.input >= first + w.period() {
                    break;
                }
                let mut quants = [0; SIXTEEN];
                for (r, quant) in quants.iter_mut().enumerate() {
                    *quant = w.quant(self.from + r, outlier.input) - w.offset();
                }
                // SAFETY: sixteen integers.
                let quants = _mm512_cvtepi32_ps(unsafe { _mm512_loadu_si512(quants.as_ptr().cast()) });
                let weights = _mm512_fmadd_ps(self.scales[group], quants, self.mins[group]);
                y = _mm512_fmadd_ps(_mm512_set1_ps(outlier.value), weights, y);
                self.outliers[t] += 1;
            }
            self.y[t] = y;
        }
        self.period += 1;
    }
}
