//! Losses and their gradients.

use std::ops::Range;

use super::matrix::Matrix;
use crate::kernels::lanes::{per_isa, Arith};
use crate::kernels::math::{exp, ln};
use crate::kernels::Isa;

/// How a cross-entropy counts, as PyTorch's does.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CrossEntropy {
    /// Share of a target's probability that all classes have equally.
    pub label_smoothing: f32,
    /// What each class counts, or 1 each if empty.
    pub weights: Vec<f32>,
}

/// The mean cross-entropy of softmax(logits) against labels, and its gradient.
///
/// −Σ wᵧ log pᵧ / Σ wᵧ over the rows, y a row's label; with smoothing a share of it is spread over all classes.
///
/// Shapes: `logits [rows, classes]`, `labels [rows]`, `gradient` as `logits`. Returns the loss; rows are summed up
/// in their order.
///
/// # Panics
///
/// If a shape does not fit or a label is no class.
pub fn softmax_cross_entropy(
    how: &CrossEntropy,
    logits: &Matrix,
    labels: &[u32],
    gradient: &mut Matrix,
) -> f32 {
    softmax_cross_entropy_on(Isa::best(), how, logits, labels, gradient)
}

pub(super) fn softmax_cross_entropy_on(
    isa: Isa,
    how: &CrossEntropy,
    logits: &Matrix,
    labels: &[u32],
    gradient: &mut Matrix,
) -> f32 {
    let (rows, classes) = (logits.rows(), logits.cols());
    assert_eq!(labels.len(), rows, "cross_entropy: labels");
    assert_eq!((gradient.rows(), gradient.cols()), (rows, classes), "cross_entropy: gradient");
    assert!(
        labels.iter().fold(true, |fine, &label| fine & ((label as usize) < classes)),
        "cross_entropy: a label of {classes} classes"
    );
    assert!(how.weights.is_empty() || how.weights.len() == classes, "cross_entropy: weights");
    let mut loss = 0.0;
    let result = &mut loss;
    per_isa!(isa, kernel, (how: &CrossEntropy, logits: &Matrix, labels: &[u32], gradient: &mut Matrix, result: &mut f32));
    loss
}

/// Eight rows at a time, one in each lane.
#[inline(always)]
fn kernel<A: Arith>(
    arith: A,
    how: &CrossEntropy,
    logits: &Matrix,
    labels: &[u32],
    gradient: &mut Matrix,
    loss: &mut f32,
) {
    let classes = logits.cols();
    let weight = |class: usize| how.weights.get(class).copied().unwrap_or(1.0);
    let (total, all) = if how.weights.is_empty() {
        (labels.len() as f32, classes as f32)
    } else {
        (labels.iter().map(|&label| weight(label as usize)).sum(), how.weights.iter().sum())
    };
    let (sharp, smooth) = (1.0 - how.label_smoothing, how.label_smoothing / classes as f32);
    let mut sum_of_losses = 0.0;
    let mut group = [[0.0; EIGHT]; EIGHT];
    for (block, labels) in labels.chunks(EIGHT).enumerate() {
        let rows = block * EIGHT..block * EIGHT + labels.len();
        let mut largest = [f32::NEG_INFINITY; EIGHT];
        for first in (0..classes).step_by(EIGHT) {
            columns(arith, logits, &rows, first, &mut group);
            for x in group.iter().take(classes - first) {
                for l in 0..EIGHT {
                    // A number that is none wins, so that it shows in the loss.
                    largest[l] = if x[l] > largest[l] || x[l].is_nan() { x[l] } else { largest[l] };
                }
            }
        }
        // A lane without a row has no label, and counts nothing.
        let (mut label_of, mut counts) = ([u32::MAX; EIGHT], [0.0; EIGHT]);
        for ((to, count), &label) in label_of.iter_mut().zip(&mut counts).zip(labels) {
            (*to, *count) = (label, sharp * weight(label as usize));
        }
        let (mut sums, mut smoothed, mut targets) = ([0.0; EIGHT], [0.0; EIGHT], [0.0; EIGHT]);
        for first in (0..classes).step_by(EIGHT) {
            // Few classes are all at hand.
            if classes > EIGHT {
                columns(arith, logits, &rows, first, &mut group);
            }
            for (class, x) in (first..classes).zip(&mut group) {
                let share = smooth * weight(class);
                for l in 0..EIGHT {
                    let below = x[l] - largest[l];
                    smoothed[l] += share * below;
                    targets[l] = if label_of[l] == class as u32 { below } else { targets[l] };
                    x[l] = exp(arith, below);
                    sums[l] += x[l];
                }
            }
        }
        // −sharp · w_y · log p_y − smooth · Σ w · log p
        let (mut losses, mut scales) = ([0.0; EIGHT], [0.0; EIGHT]);
        for l in 0..EIGHT {
            let log = ln(arith, sums[l]);
            losses[l] = counts[l] * (log - targets[l]) + smooth * all * log - smoothed[l];
            scales[l] = (counts[l] + smooth * all) / (sums[l] * total);
            counts[l] /= total;
        }
        sum_of_losses += losses[..labels.len()].iter().sum::<f32>();
        // d/dx = p · (sharp · w_y + smooth · Σ w) − sharp · w_y · [y] − smooth · w
        for first in (0..classes).step_by(EIGHT) {
            if classes > EIGHT {
                columns(arith, logits, &rows, first, &mut group);
                for x in &mut group {
                    for l in 0..EIGHT {
                        x[l] = exp(arith, x[l] - largest[l]);
                    }
                }
            }
            for (class, x) in (first..).zip(&mut group) {
                let share = smooth * weight(class) / total;
                for l in 0..EIGHT {
                    let count = if label_of[l] == class as u32 { counts[l] } else { 0.0 };
                    let d = x[l] * scales[l] - count - share;
                    // The padding stays zero.
                    x[l] = if class < classes { d } else { 0.0 };
                }
            }
            set_columns(arith, &group, gradient, &rows, first);
        }
    }
    *loss = sum_of_losses / total;
}

/// Rows and columns that are read together.
const EIGHT: usize = 8;

/// Columns from `first` on, of up to eight rows; lanes of no row hold what the last row does.
#[inline(always)]
fn columns<A: Arith>(
    arith: A,
    x: &Matrix,
    rows: &Range<usize>,
    first: usize,
    columns: &mut [[f32; EIGHT]; EIGHT],
) {
    if rows.len() == EIGHT {
        let from = &x.data()[x.at(rows.start, first)..];
        arith.transpose_8x8(from, x.width(), columns.as_flattened_mut(), EIGHT);
    } else {
        for (c, column) in columns.iter_mut().enumerate().take(x.cols() - first) {
            for (l, to) in column.iter_mut().enumerate() {
                *to = x.data()[x.at(rows.end.min(rows.start + l + 1) - 1, first + c)];
            }
        }
    }
}

/// The reverse of [`columns`].
#[inline(always)]
fn set_columns<A: Arith>(
    arith: A,
    columns: &[[f32; EIGHT]; EIGHT],
    x: &mut Matrix,
    rows: &Range<usize>,
    first: usize,
) {
    let width = x.width();
    if rows.len() == EIGHT {
        let at = x.at(rows.start, first);
        arith.transpose_8x8(columns.as_flattened(), EIGHT, &mut x.data_mut()[at..], width);
    } else {
        for (c, column) in columns.iter().enumerate() {
            for (row, from) in rows.clone().zip(column) {
                let at = x.at(row, first + c);
                x.data_mut()[at] = *from;
            }
        }
    }
}

/// A loss of numbers against target numbers, the mean over all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pointwise {
    /// (x − y)²
    Mse,
    /// |x − y|; the slope at 0 is 0
    Mae,
    /// d² / 2 where d = |x − y| is below delta, else delta · (d − delta / 2)
    Huber {
        /// Where the square ends.
        delta: f32,
    },
    /// −y log σ(x) − (1 − y) log(1 − σ(x))
    BceWithLogits,
}

impl Pointwise {
    /// The loss of one number and its slope.
    #[inline(always)]
    fn apply(self, x: f32, y: f32) -> (f32, f32) {
        let d = x - y;
        match self {
            Self::Mse => (d * d, 2.0 * d),
            Self::Mae => (d.abs(), if d == 0.0 { 0.0 } else { d.signum() }),
            Self::Huber { delta } if d.abs() < delta => (0.5 * d * d, d),
            Self::Huber { delta } => (delta * (d.abs() - 0.5 * delta), delta * d.signum()),
            Self::BceWithLogits => {
                // log(1 + e^−|x|) loses nothing at either end.
                let e = (-x.abs()).exp();
                let sigmoid = if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) };
                (x.max(0.0) - x * y + e.ln_1p(), sigmoid - y)
            }
        }
    }
}

/// The mean of a [`Pointwise`] loss, and its gradient.
///
/// Shapes: `x [rows, cols]`, `targets` row by row, `gradient` as `x`.
///
/// # Panics
///
/// If a shape does not fit.
pub fn pointwise(how: Pointwise, x: &Matrix, targets: &[f32], gradient: &mut Matrix) -> f32 {
    let (rows, cols) = (x.rows(), x.cols());
    assert_eq!(targets.len(), rows * cols, "loss: targets");
    assert_eq!((gradient.rows(), gradient.cols()), (rows, cols), "loss: gradient");
    let share = 1.0 / (rows * cols) as f32;
    let mut loss = 0.0;
    for (i, target) in targets.iter().enumerate() {
        let at = x.at(i / cols, i % cols);
        let (value, slope) = how.apply(x.data()[at], *target);
        loss += value;
        gradient.data_mut()[at] = slope * share;
    }
    loss * share
}
