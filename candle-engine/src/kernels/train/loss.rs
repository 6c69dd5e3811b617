//! Losses and their gradients.

use super::matrix::Matrix;
use crate::kernels::lanes::{per_isa, Arith};
use crate::kernels::math::exp;
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
        labels.iter().all(|&label| (label as usize) < classes),
        "cross_entropy: a label of {classes} classes"
    );
    assert!(how.weights.is_empty() || how.weights.len() == classes, "cross_entropy: weights");
    let mut loss = 0.0;
    let result = &mut loss;
    per_isa!(isa, kernel, (how: &CrossEntropy, logits: &Matrix, labels: &[u32], gradient: &mut Matrix, result: &mut f32));
    loss
}

#[inline(always)]
fn kernel<A: Arith>(
    arith: A,
    how: &CrossEntropy,
    logits: &Matrix,
    labels: &[u32],
    gradient: &mut Matrix,
    loss: &mut f32,
) {
    let (classes, width, panels) = (logits.cols(), logits.width(), logits.panels());
    let weight = |class: usize| how.weights.get(class).copied().unwrap_or(1.0);
    let total: f32 = labels.iter().map(|&label| weight(label as usize)).sum();
    let all: f32 = (0..classes).map(weight).sum();
    let (sharp, smooth) = (1.0 - how.label_smoothing, how.label_smoothing / classes as f32);
    let mut sum_of_losses = 0.0;
    for (row, &label) in labels.iter().enumerate() {
        let label = label as usize;
        // The row's part of each panel, without the padding.
        let part = |panel: usize| {
            let first = (panel * logits.rows() + row) * width;
            first..first + width.min(classes - panel * width)
        };
        let mut largest = f32::NEG_INFINITY;
        for panel in 0..panels {
            for &x in &logits.data()[part(panel)] {
                // A number that is none wins, so that it shows in the loss.
                largest = if x > largest || x.is_nan() { x } else { largest };
            }
        }
        let (mut sum, mut smoothed) = (0.0, 0.0);
        for panel in 0..panels {
            let (x, out) = (&logits.data()[part(panel)], &mut gradient.data_mut()[part(panel)]);
            for (out, x) in out.iter_mut().zip(x) {
                *out = exp(arith, *x - largest);
            }
            sum += out.iter().sum::<f32>();
            if smooth != 0.0 {
                let weights = (panel * width..).map(weight);
                smoothed += x.iter().zip(weights).map(|(x, weight)| weight * (*x - largest)).sum::<f32>();
            }
        }
        let log = sum.ln();
        let target = logits.data()[logits.at(row, label)] - largest;
        sum_of_losses += sharp * weight(label) * (log - target) + smooth * (all * log - smoothed);
        // d/dx = p · (sharp · w_y + smooth · Σ w) − sharp · w_y · [y] − smooth · w
        let scale = (sharp * weight(label) + smooth * all) / (sum * total);
        for panel in 0..panels {
            let out = &mut gradient.data_mut()[part(panel)];
            out.iter_mut().for_each(|out| *out *= scale);
            if smooth != 0.0 {
                let weights = (panel * width..).map(weight);
                out.iter_mut().zip(weights).for_each(|(out, weight)| *out -= smooth * weight / total);
            }
        }
        let at = gradient.at(row, label);
        gradient.data_mut()[at] -= sharp * weight(label) / total;
    }
    *loss = sum_of_losses / total;
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
