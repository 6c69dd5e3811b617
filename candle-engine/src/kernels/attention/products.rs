//! The two products of attention over floats and the softmax between them, on `R` rows and one block of positions.
//!
//! A row's operations and their order do not depend on `R`: rows share only what is loaded for them.

use std::hint::black_box;
use std::ops::Range;

use super::number::{Number, Plane};
use crate::kernels::lanes::{Arith, LANES};
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

/// Scores of `R` rows from `row` on, of the `rows` of q `[d, rows]`, and keys `[d, BLOCK]`, each one sum over d in
/// order.
#[inline(always)]
pub(super) fn score<const R: usize, const P: usize, N: Number, A: Arith>(
    arith: A,
    q: &[f32],
    rows: usize,
    row: usize,
    keys: &Plane<N>,
    scores: &mut [[f32; BLOCK]; R],
) {
    const { assert!(BLOCK.is_multiple_of(P * A::N)) };
    let (columns, _) = keys.numbers.as_chunks::<BLOCK>();
    assert!(q.len() == columns.len() * rows && row + R <= rows, "score: rows of queries");
    for panel in (0..BLOCK).step_by(P * A::N) {
        let mut sums = [[arith.splat(0.0); P]; R];
        for (i, (columns, q)) in columns.iter().zip(q.chunks_exact(rows)).enumerate() {
            keys.fetch(i * BLOCK + panel);
            let columns = load_panel::<P, N, A>(arith, &columns[panel..]);
            let q: &[f32; R] = q[row..].first_chunk().expect("R rows");
            for r in 0..R {
                let q = arith.splat(q[r]);
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

/// Takes out of rows' scores those of positions that they do not see. Not inlined: most blocks are seen whole.
#[inline(never)]
fn hide(scores: &mut [[f32; BLOCK]], parts: &[Range<usize>]) {
    for (scores, part) in scores.iter_mut().zip(parts) {
        scores[..part.start].fill(f32::NEG_INFINITY);
        scores[part.end..].fill(f32::NEG_INFINITY);
    }
}

/// Each row's scores of what it sees alone.
#[inline(always)]
pub(super) fn hide_unseen<const R: usize>(scores: &mut [[f32; BLOCK]; R], parts: &[Range<usize>; R]) {
    // As parts begin and end in the order of rows.
    if parts[R - 1].start > 0 || parts[0].end < BLOCK {
        hide(scores, parts);
    }
}

/// Turns scores into weights relative to a row's largest score so far, and brings its total up to date. Each row sees a
/// part of the block, which is not empty. Returns the factors that bring earlier sums to the same scale.
#[inline(always)]
pub(super) fn weigh<const R: usize, A: Arith>(
    arith: A,
    scores: &mut [[f32; BLOCK]; R],
    parts: &[Range<usize>; R],
    max: &mut [f32; R],
    total: &mut [f32; R],
) -> [f32; R] {
    hide_unseen(scores, parts);
    let largest = largest(arith, scores, max);
    // In memory, as the scores are: LLVM would gather some of these and some of those in one register.
    let mut factors = [0.0; LANES];
    let rescale = black_box(&mut factors);
    for r in 0..R {
        rescale[r] = max[r] - largest[r];
        max[r] = largest[r];
        for score in &mut scores[r] {
            *score -= largest[r];
        }
    }
    arith.softmax_exp(rescale);
    arith.softmax_exp(scores.as_flattened_mut());
    let sums = sums(arith, scores);
    for r in 0..R {
        total[r] = arith.mul_add(total[r], rescale[r], sums[r]);
    }
    std::array::from_fn(|r| rescale[r])
}

/// Each row's largest score, or the number that is given if that is larger. A score that is NaN is passed over: it is a
/// weight that is NaN.
#[inline(always)]
pub(super) fn largest<const R: usize, A: Arith>(
    arith: A,
    scores: &[[f32; BLOCK]; R],
    least: &[f32; R],
) -> [f32; R] {
    let mut largest = [arith.splat(0.0); R];
    for r in 0..R {
        largest[r] = arith.splat(least[r]);
        for at in (0..BLOCK).step_by(A::N) {
            largest[r] = arith.max_v(arith.load(&scores[r][at..]), largest[r]);
        }
    }
    arith.max_of_each(largest)
}

/// The sums of a block's weights: halves are added to each other until one number is left.
#[inline(always)]
pub(super) fn sums<const R: usize, A: Arith>(arith: A, weights: &[[f32; BLOCK]; R]) -> [f32; R] {
    let mut sums = [arith.splat(0.0); R];
    for r in 0..R {
        // As many as the narrowest level has.
        let mut parts = [arith.splat(0.0); BLOCK / 4];
        let mut count = BLOCK / A::N;
        for (p, part) in parts[..count].iter_mut().enumerate() {
            *part = arith.load(&weights[r][p * A::N..]);
        }
        while count > 1 {
            count /= 2;
            for p in 0..count {
                parts[p] = arith.add_v(parts[p], parts[p + count]);
            }
        }
        sums[r] = parts[0];
    }
    arith.sum_of_each(sums)
}

/// sums = sums · rescale + weights `[R, BLOCK]` · values `[BLOCK, d]`, in the order of positions, of each row those that
/// it sees: `parts`, which begin and end in the order of rows, and are the same of fewer rows than the level has.
///
/// Shapes: `sums [R, width]`, `width` being `d` or more, in whole blocks.
#[inline(always)]
pub(super) fn add_values<const R: usize, const P: usize, N: Number, A: Arith>(
    arith: A,
    weights: &[[f32; BLOCK]; R],
    parts: &[Range<usize>; R],
    rescale: &[f32; R],
    values: &Plane<N>,
    d: usize,
    sums: &mut [f32],
) {
    const { assert!(BLOCK.is_multiple_of(P * A::N)) };
    let some = parts[0].start..parts[R - 1].end;
    assert!(some.end <= BLOCK && values.numbers.len() == BLOCK * d);
    debug_assert!(R == A::ROWS || parts[0] == parts[R - 1]);
    // What all rows see.
    let start = parts[R - 1].start.min(some.end);
    let all = start..parts[0].end.max(start);
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
            let columns = |j: usize| {
                values.fetch(j * d + panel);
                &values.numbers[j * d + panel..]
            };
            if R == A::ROWS {
                for j in some.start..all.start {
                    accumulate_some(arith, weights, parts, j, columns(j), &mut acc);
                }
            }
            for j in all.clone() {
                let columns = load_panel::<P, N, A>(arith, columns(j));
                for r in 0..R {
                    accumulate(arith, weights[r][j], &columns, &mut acc[r]);
                }
            }
            if R == A::ROWS {
                for j in all.end..some.end {
                    accumulate_some(arith, weights, parts, j, columns(j), &mut acc);
                }
            }
        } else {
            let mut rest = [N::ZERO; BLOCK];
            for j in some.clone() {
                rest[..d - panel].copy_from_slice(&values.numbers[j * d + panel..(j + 1) * d]);
                accumulate_some(arith, weights, parts, j, &rest, &mut acc);
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

/// Adds a position's values to the sums of the rows that see it.
#[inline(always)]
fn accumulate_some<const R: usize, const P: usize, N: Number, A: Arith>(
    arith: A,
    weights: &[[f32; BLOCK]; R],
    parts: &[Range<usize>; R],
    j: usize,
    columns: &[N],
    acc: &mut [[A::V; P]; R],
) {
    let columns = load_panel::<P, N, A>(arith, columns);
    for r in 0..R {
        if parts[r].contains(&j) {
            accumulate(arith, weights[r][j], &columns, &mut acc[r]);
        }
    }
}

#[inline(always)]
fn accumulate<const P: usize, A: Arith>(arith: A, weight: f32, columns: &[A::V; P], acc: &mut [A::V; P]) {
    let weight = arith.splat(weight);
    for p in 0..P {
        acc[p] = arith.mul_add_v(weight, columns[p], acc[p]);
    }
}
