//! The two products of attention over an int8 cache: queries and weights are integers of 16 bits, whose rounding is
//! a hundredth of that of the cache, and sums are exact.

use std::hint::black_box;
use std::ops::Range;

use super::integers::Integers;
use super::number::Plane;
use super::products::{self, hide_unseen, sums};
use crate::kernels::lanes::{Arith, LANES};
use crate::kv::BLOCK;

/// Rows of queries `[rows, d]` in 16 bits, and what their products are to be multiplied by.
pub(super) struct Queries {
    /// `[rows, ⌈d / 2⌉]`
    pairs: Vec<[i16; 2]>,
    factors: Vec<f32>,
    stride: usize,
}

impl Queries {
    #[inline(always)]
    pub fn new(q: &[f32], d: usize) -> Self {
        // So large that the sum of the products still has 32 bits.
        let most = ((i32::MAX as usize / 128 / d.max(1)) as f32).min(f32::from(i16::MAX));
        let stride = d.div_ceil(2);
        let rows = q.len() / d.max(1);
        let (mut pairs, mut factors) = (vec![[0; 2]; rows * stride], Vec::with_capacity(rows));
        for (q, pairs) in q.chunks_exact(d.max(1)).zip(pairs.chunks_exact_mut(stride.max(1))) {
            let (factor, inverse) = factors_of(largest(q), most);
            factors.push(factor);
            for (q, to) in q.iter().zip(pairs.as_flattened_mut()) {
                *to = round(q * inverse);
            }
        }
        Self { pairs, factors, stride }
    }

    #[inline(always)]
    pub fn row(&self, row: usize) -> &[[i16; 2]] {
        &self.pairs[row * self.stride..][..self.stride]
    }

    /// What the products of a row are to be multiplied by.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))] // as matrix registers
    pub fn factor(&self, row: usize) -> f32 {
        self.factors[row]
    }
}

/// The largest magnitude, above all of which NaN is.
#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    // Magnitudes are in the order of their bits.
    let largest = x.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff));
    f32::from_bits(largest)
}

/// What makes floats of integers whose largest is `most`, and the other way round.
#[inline(always)]
fn factors_of(largest: f32, most: f32) -> (f32, f32) {
    (largest / most, if largest == 0.0 { 0.0 } else { most / largest })
}

/// The nearest integer, of halves the even one.
#[inline(always)]
fn round(x: f32) -> i16 {
    // The integer then stands in the low bits: 1.5 · 2²³.
    (x + 12_582_912.0).to_bits() as i16
}

/// Scores of `R` rows from `row` on: q `[R, d]` · keys `[d / 2, BLOCK, 2]`, and a last row of keys `[BLOCK]` where `d`
/// is odd. `S` sums of a score run side by side.
#[inline(always)]
pub(super) fn score<const R: usize, const S: usize, L: Integers>(
    level: L,
    queries: &Queries,
    row: usize,
    keys: &Plane<i8>,
    scores: &mut [[f32; BLOCK]; R],
) {
    let (arith, n) = (level.arith(), <L::A as Arith>::N);
    const { assert!(BLOCK.is_multiple_of(2 * <L::A as Arith>::N)) };
    keys.fetch_scales();
    let scales = keys.scales.expect("scales of an int8 cache");
    let (columns, last) = keys.numbers.as_chunks::<{ 2 * BLOCK }>();
    let (some, others) = columns.as_chunks::<S>();
    // As many as there are columns: so no index is checked in the loops.
    let (mut some_q, mut others_q): ([&[_]; R], [&[_]; R]) = ([&[]; R], [&[]; R]);
    for r in 0..R {
        let (q, rest) = queries.row(row + r).split_at(S * some.len());
        (some_q[r], others_q[r]) = (&q.as_chunks::<S>().0[..some.len()], rest);
    }
    // With a number that is not there beside each.
    let mut alone = [0; 2 * BLOCK];
    for (to, last) in alone.as_chunks_mut::<2>().0.iter_mut().zip(last) {
        to[0] = *last;
    }
    let last = if last.is_empty() { None } else { Some(alone) };
    for panel in (0..BLOCK).step_by(2 * n) {
        let mut sums = [[[level.zero(); 2]; R]; S];
        for (i, columns) in some.iter().enumerate() {
            for s in 0..S {
                keys.fetch(2 * ((S * i + s) * BLOCK + panel));
                let columns =
                    [level.load(&columns[s][2 * panel..]), level.load(&columns[s][2 * (panel + n)..])];
                for r in 0..R {
                    let q = level.splat(some_q[r][i][s]);
                    for p in 0..2 {
                        sums[s][r][p] = level.dot(sums[s][r][p], columns[p], q);
                    }
                }
            }
        }
        for (i, column) in others.iter().chain(&last).enumerate() {
            let columns = [level.load(&column[2 * panel..]), level.load(&column[2 * (panel + n)..])];
            for r in 0..R {
                let q = level.splat(others_q[r][i]);
                for p in 0..2 {
                    sums[0][r][p] = level.dot(sums[0][r][p], columns[p], q);
                }
            }
        }
        for r in 0..R {
            let factor = arith.splat(queries.factors[row + r]);
            for p in 0..2 {
                let mut sum = sums[0][r][p];
                for more in &sums[1..] {
                    sum = level.add(sum, more[r][p]);
                }
                let at = panel + p * n;
                let score = arith.mul_v(arith.mul_v(level.to_floats(sum), factor), arith.load(&scales[at..]));
                arith.store(score, &mut scores[r][at..]);
            }
        }
    }
}

/// A row's weights of a block's positions, and factors of what was summed before and of their sums.
#[derive(Clone, Copy, Default)]
pub(super) struct Weights {
    pub pairs: [[i16; 2]; BLOCK / 2],
    pub before: f32,
    pub here: f32,
}

/// Turns scores into a block's weights, which have the values' scales in them, and brings the rows' largest scores and
/// totals up to date. Each row sees a part of the block, which is not empty.
///
/// They are relative to the block's largest score: so small weights, if all of a block are small, keep their precision,
/// and nothing waits for the block before.
#[inline(always)]
pub(super) fn weigh<const R: usize, L: Integers>(
    level: L,
    scores: &mut [[f32; BLOCK]; R],
    parts: &[Range<usize>; R],
    scales: &[f32; BLOCK],
    weights: &mut [Weights; R],
    max: &mut [f32; R],
    total: &mut [f32; R],
) {
    let (arith, n) = (level.arith(), <L::A as Arith>::N);
    // In memory, as the scores are: LLVM would gather some of these and some of those in one register.
    let mut factors = [[0.0; LANES / 2]; 2];
    let factors = black_box(&mut factors);
    hide_unseen(scores, parts);
    let here = products::largest(arith, scores, &[f32::MIN; R]);
    for r in 0..R {
        let largest = if here[r] > max[r] { here[r] } else { max[r] };
        (factors[0][r], factors[1][r]) = (max[r] - largest, here[r] - largest);
        max[r] = largest;
        for score in &mut scores[r] {
            *score -= here[r];
        }
    }
    arith.softmax_exp(factors.as_flattened_mut());
    arith.softmax_exp(scores.as_flattened_mut());
    let sums = sums(arith, scores);
    let (mut of, mut seen, mut factor) = (0..0, *scales, 0.0);
    for r in 0..R {
        if parts[r] != of {
            (of, seen) = (parts[r].clone(), *scales);
            factor = normalize(&mut seen, &of);
        }
        let [before, here] = [factors[0][r], factors[1][r]];
        total[r] = arith.mul_add(total[r], before, sums[r] * here);
        (weights[r].before, weights[r].here) = (before, here * factor);
        for at in (0..BLOCK).step_by(n) {
            let weight = arith.mul_v(arith.load(&scores[r][at..]), arith.load(&seen[at..]));
            level.store_rounded(weight, &mut weights[r].pairs.as_flattened_mut()[at..]);
        }
    }
}

/// Scales of the part that is seen, so that the largest makes 1 the largest of 16 bits; what makes floats of them again.
#[inline(always)]
fn normalize(scales: &mut [f32; BLOCK], part: &Range<usize>) -> f32 {
    // What is not seen may be anything.
    scales[..part.start].fill(0.0);
    scales[part.end..].fill(0.0);
    let (factor, inverse) = factors_of(largest(scales), f32::from(i16::MAX));
    for scale in scales {
        *scale *= inverse;
    }
    factor
}

/// Adds the values of a block `[BLOCK / 2, d, 2]`, weighted, to the rows' sums.
///
/// Shapes: `sums [R, width]`, `width` being `d` or more, in whole blocks. `P` registers of columns at a time.
#[inline(always)]
pub(super) fn add_values<const R: usize, const P: usize, L: Integers>(
    level: L,
    weights: &[Weights; R],
    parts: &[Range<usize>; R],
    values: &Plane<i8>,
    d: usize,
    sums: &mut [f32],
) {
    let n = <L::A as Arith>::N;
    // Weights of what a row does not see are 0.
    let pairs = parts[0].start / 2..parts[R - 1].end.div_ceil(2);
    let mut column = 0;
    while column + P * n <= d {
        panel::<R, P, L>(level, weights, pairs.clone(), values, d, column, sums);
        column += P * n;
    }
    while column < d {
        panel::<R, 1, L>(level, weights, pairs.clone(), values, d, column, sums);
        column += n;
    }
}

/// `P` registers of the sums' columns; one may be cut short.
#[inline(always)]
fn panel<const R: usize, const P: usize, L: Integers>(
    level: L,
    weights: &[Weights; R],
    pairs: Range<usize>,
    values: &Plane<i8>,
    d: usize,
    column: usize,
    sums: &mut [f32],
) {
    let (arith, n, width) = (level.arith(), <L::A as Arith>::N, sums.len() / R);
    let mut acc = [[level.zero(); P]; R];
    let (start, len) = (2 * (pairs.start * d + column), (2 * P * n).min(2 * (d - column)));
    let mut rest = [0; 2 * BLOCK];
    for (i, numbers) in values.numbers[start..].chunks(2 * d).take(pairs.len()).enumerate() {
        let j = pairs.start + i;
        let mut numbers = &numbers[..len];
        if P == 1 && len < 2 * n {
            rest[..len].copy_from_slice(numbers);
            numbers = &rest;
        }
        let mut columns = [level.splat([0; 2]); P];
        for p in 0..P {
            if p % 2 == 0 {
                values.fetch(start + 2 * (i * d + p * n));
            }
            columns[p] = level.load(&numbers[2 * p * n..]);
        }
        for (acc, weights) in acc.iter_mut().zip(weights) {
            let weight = level.splat(weights.pairs[j]);
            for p in 0..P {
                acc[p] = level.dot(acc[p], columns[p], weight);
            }
        }
    }
    for r in 0..R {
        let sums = &mut sums[r * width + column..][..P * n];
        for p in 0..P {
            let sums = &mut sums[p * n..];
            let before = arith.mul_v(arith.load(sums), arith.splat(weights[r].before));
            let added = arith.mul_add_v(level.to_floats(acc[r][p]), arith.splat(weights[r].here), before);
            arith.store(added, sums);
        }
    }
}
