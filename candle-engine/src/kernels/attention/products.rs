//! The two products of attention over floats and the softmax between them, on `R` rows and one block of positions.
//!
//! A row's operations and their order do not depend on `R`: rows share only what is loaded for them.

use std::hint::black_box;
use std::ops::Range;

use super::number::{Number, Plane};
use crate::kernels::lanes::{Arith, LANES};
use crate::kernels::math::exp;
use crate::kv::BLOCK;

/// `P` registers of a panel.
#[inline(always)]
fn load_panel<const P: usize, N: Number, A: Arith>(arith: A, x: &[N]) -> [A::V; P] {
    // No closure: outside of this function it would be compiled without the level's features.
    let x = &x[..P * A::N];
    let mut panel = [arith.splat(0.0); P];
    for (p, v) in panel.iter_mut().enumerate() {
        *v = N::load(arith, &x[p * A::N..]);
    }
    panel
}

/// Scores of `R` rows: q `[R, d]` · keys `[d, BLOCK]`, each one sum over d in order.
#[inline(always)]
pub(super) fn score<const R: usize, const P: usize, N: Number, A: Arith>(
    arith: A,
    q: [&[f32]; R],
    keys: &Plane<N>,
    scores: &mut [[f32; BLOCK]; R],
) {
    const { assert!(BLOCK.is_multiple_of(P * A::N)) };
    let (columns, _) = keys.numbers.as_chunks::<BLOCK>();
    let q = q.map(|q| &q[..columns.len()]);
    for panel in (0..BLOCK).step_by(P * A::N) {
        let mut sums = [[arith.splat(0.0); P]; R];
        for (i, columns) in columns.iter().enumerate() {
            keys.fetch(i * BLOCK + panel);
            let columns = load_panel::<P, N, A>(arith, &columns[panel..]);
            for r in 0..R {
                let q = arith.splat(q[r][i]);
                for p in 0..P {
                    sums[r][p] = arith.mul_add_v(q, columns[p], sums[r][p]);
                }
            }
        }
        for (sums, scores) in sums.iter().zip(&mut *scores) {
            for (p, sum) in sums.iter().enumerate() {
                let at = panel + p * A::N;
                arith.store(*sum, &mut scores[at..]);
            }
        }
    }
}

/// Turns scores into weights relative to a row's largest score so far, and brings its total up to date. Returns the
/// factors that bring earlier sums to the same scale.
#[inline(always)]
pub(super) fn weigh<const R: usize, A: Arith>(
    arith: A,
    scores: &mut [[f32; BLOCK]; R],
    part: Range<usize>,
    max: &mut [f32; R],
    total: &mut [f32; R],
) -> [f32; R] {
    if part.len() < BLOCK {
        for scores in &mut *scores {
            for (j, score) in scores.iter_mut().enumerate() {
                *score = if part.contains(&j) { *score } else { f32::NEG_INFINITY };
            }
        }
    }
    // In memory, as the scores are: LLVM would gather some of these and some of those in one register.
    let mut factors = [0.0; LANES];
    let rescale = black_box(&mut factors);
    for r in 0..R {
        let mut largest = arith.splat(max[r]);
        for at in (0..BLOCK).step_by(A::N) {
            // A score that is NaN is passed over, and is a weight that is NaN.
            largest = arith.max_v(arith.load(&scores[r][at..]), largest);
        }
        let largest = arith.max_of(largest);
        rescale[r] = max[r] - largest;
        max[r] = largest;
        for score in &mut scores[r] {
            *score -= largest;
        }
    }
    for x in &mut *rescale {
        *x = exp(arith, *x);
    }
    for x in scores.as_flattened_mut() {
        *x = exp(arith, *x);
    }
    for r in 0..R {
        total[r] = arith.mul_add(total[r], rescale[r], sum(arith, &scores[r]));
    }
    std::array::from_fn(|r| rescale[r])
}

/// The sum of a block's weights: halves are added to each other until one number is left.
#[inline(always)]
pub(super) fn sum<A: Arith>(arith: A, weights: &[f32; BLOCK]) -> f32 {
    // As many as the narrowest level has.
    let mut parts = [arith.splat(0.0); BLOCK / 4];
    let mut count = BLOCK / A::N;
    for (p, part) in parts[..count].iter_mut().enumerate() {
        *part = arith.load(&weights[p * A::N..]);
    }
    while count > 1 {
        count /= 2;
        for p in 0..count {
            parts[p] = arith.add_v(parts[p], parts[p + count]);
        }
    }
    arith.sum_of(parts[0])
}

/// sums = sums · rescale + weights `[R, part]` · values `[part, d]`, in the order of positions.
///
/// Shapes: `sums [R, width]`, `width` being `d` or more, in whole blocks.
#[inline(always)]
pub(super) fn add_values<const R: usize, const P: usize, N: Number, A: Arith>(
    arith: A,
    weights: &[[f32; BLOCK]; R],
    part: Range<usize>,
    rescale: &[f32; R],
    values: &Plane<N>,
    d: usize,
    sums: &mut [f32],
) {
    const { assert!(BLOCK.is_multiple_of(P * A::N)) };
    assert!(part.end <= BLOCK && values.numbers.len() == BLOCK * d);
    let (width, step) = (sums.len() / R, P * A::N);
    for panel in (0..d).step_by(step) {
        let mut acc = [[arith.splat(0.0); P]; R];
        for r in 0..R {
            let (sums, rescale) = (&sums[r * width + panel..][..step], arith.splat(rescale[r]));
            for p in 0..P {
                acc[r][p] = arith.mul_v(arith.load(&sums[p * A::N..]), rescale);
            }
        }
        if panel + step <= d {
            for j in part.clone() {
                let at = j * d + panel;
                values.fetch(at);
                let columns = load_panel::<P, N, A>(arith, &values.numbers[at..]);
                accumulate(arith, weights, j, &columns, &mut acc);
            }
        } else {
            let mut rest = [N::ZERO; BLOCK];
            for j in part.clone() {
                rest[..d - panel].copy_from_slice(&values.numbers[j * d + panel..(j + 1) * d]);
                let columns = load_panel::<P, N, A>(arith, &rest);
                accumulate(arith, weights, j, &columns, &mut acc);
            }
        }
        for r in 0..R {
            let sums = &mut sums[r * width + panel..][..step];
            for p in 0..P {
                arith.store(acc[r][p], &mut sums[p * A::N..]);
            }
        }
    }
}

#[inline(always)]
fn accumulate<const R: usize, const P: usize, A: Arith>(
    arith: A,
    weights: &[[f32; BLOCK]; R],
    j: usize,
    columns: &[A::V; P],
    acc: &mut [[A::V; P]; R],
) {
    for r in 0..R {
        let weight = arith.splat(weights[r][j]);
        for p in 0..P {
            acc[r][p] = arith.mul_add_v(weight, columns[p], acc[r][p]);
        }
    }
}
